#!/bin/sh
# The last Python language host that is a Go module of its own (v3.79) does not read the form in which
# a newer CLI sends `runtime.options.virtualenv`. It accepts the same settings as arguments.
exec "$(dirname "$0")/language-python" -root "$PWD" -virtualenv .venv "$@"
