"""Options that several subcommands have."""

from __future__ import annotations

import click

stack_option = click.option(
    "--stack", default="local", show_default=True, help="The stack, as in Pulumi.<stack>.yaml."
)
server_option = click.option(
    "--server", help="One server of a program that has several, by its resource name."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
