#!/bin/sh
# The last Python language host that is a Go module of its own (v3.79) does not understand how a
# newer CLI sends `runtime.options.virtualenv`; it takes the same as arguments.
exec "$(dirname "$0")/language-python" -root "$PWD" -virtualenv .venv "$@"
