"""Pulumi plugins in Python for machines that cannot download the official ones.

Normally the Pulumi engine downloads the official `docker` 5.2.0 and `command` 1.2.1 plugins. Some
machines reach package registries (PyPI, the Go module proxy, Debian) and nothing else, and no
registry serves those binaries. These two plugins are substitutes. They speak the same provider
protocol, use the `docker` package on the real Docker daemon, and cover only what this program uses.
They refuse every other resource or property and ignore none.

They reproduce the quirks of the official plugins that the program has to handle. The behaviour was
read from the sources of terraform-provider-docker 4.5, pulumi-docker 5.2 and pulumi-command 1.2.1.
"""

from __future__ import annotations

from pathlib import Path
from shlex import quote

LAUNCHER = """\
#!/bin/sh
exec {python} -P -c {program} "$@"
"""


def write_plugin_dir(directory: Path, name: str, version: str, python: Path) -> None:
    """Fill `directory` so that `pulumi plugin install resource NAME VERSION --file` accepts it.

    The Pulumi engine looks there for an executable named `pulumi-resource-NAME`. This one is a
    script that runs the code of this checkout with `python`, so an edit here needs no new
    installation. The plugin reports `version` to the engine.
    """
    checkout = Path(__file__).resolve().parents[2]
    program = (
        f"import sys; sys.path.insert(0, {str(checkout)!r}); "
        f"from offline.plugins.{name}_provider import main; main({version!r})"
    )
    directory.mkdir(parents=True, exist_ok=True)
    launcher = directory / f"pulumi-resource-{name}"
    launcher.write_text(LAUNCHER.format(python=quote(str(python)), program=quote(program)))
    launcher.chmod(0o755)
