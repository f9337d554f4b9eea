"""What the workflows tell people on GitHub: a comment on a pull request, and an issue about drift.

It runs with a token that may write. So it never runs code of a pull request, and takes the report
of one as data. `commands` has the subcommands.
"""
