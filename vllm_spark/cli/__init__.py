"""One program, `vllm-spark`, with a subcommand for every task of a stack.

The public face is `main.run`; a module holds one subcommand, or a few that belong together. The
make targets only call it.
"""
