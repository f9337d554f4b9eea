"""What every user needs on a machine: the Pulumi CLI, its plugins, and the environment for both.

Every module is one part; `ensure_...` returns at once if the part is there, and says what it does
if it is not. What stands in where nothing can be downloaded is in `offline/bootstrap`.
"""
