"""Pulumi plugins in Python for machines where the official ones cannot be downloaded.

The official `docker` 5.2.0 and `command` 1.2.1 plugins are the normal case: the engine downloads
them by itself. Some machines reach package registries (PyPI, the Go module proxy, Debian) and
nothing else, and no registry serves those binaries. There these two stand in. They speak the same
provider protocol, do the work with the `docker` package on the real Docker daemon, and cover only
what this program uses; every other resource or property is refused, never ignored.

Where the official plugin has a quirk that the program must live with, so do these. What they know
of it was read from the sources of terraform-provider-docker 4.5, pulumi-docker 5.2 and
pulumi-command 1.2.1.
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

    The engine looks there for an executable named `pulumi-resource-NAME`. Ours is a script that
    starts `python` (of the environment this program is installed in) on the code in this
    checkout, so an edit here needs no new install. `version` is what the plugin answers when the
    engine asks.
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
