"""Prepares a machine that reaches package registries and nothing else.

`vllm_spark.cli.prepare` calls these functions when a download has failed.
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
