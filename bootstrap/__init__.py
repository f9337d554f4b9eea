"""Makes a machine ready for `pulumi up`: each part that is missing, and only that.

Every module here is one part and has one function `ensure_...`: it returns at once if the part is
there, says what it does if it is not, and falls back aloud from the usual way (a download) to the
one in `offline/` (package registries only).
"""
