"""How a machine with package registries, and no other internet, is made ready.

The public face is what `vllm_spark.cli.prepare` calls where a download has failed.
"""

from offline.bootstrap.docker_daemon import start_docker
from offline.bootstrap.parts import ensure_parts_of
from offline.bootstrap.plugins import install_python_plugins
from offline.bootstrap.pulumi_cli import build_pulumi_cli

__all__ = [
    "build_pulumi_cli",
    "ensure_parts_of",
    "install_python_plugins",
    "start_docker",
]
