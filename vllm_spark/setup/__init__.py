"""What every user needs on a machine: the Pulumi CLI, its plugins, and the environment for both.

Every module is one part. `ensure_...` returns at once if the part exists; otherwise it installs the
part and prints its progress. `offline/bootstrap` has the substitutes for failed downloads.
"""
