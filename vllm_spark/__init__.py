"""Serve LLMs with vLLM on a DGX Spark: everything that is not Pulumi.

Rooms, each importing only what stands below it: `cli`; `docker_host`; `deployment`; `gate`;
`config`, `memory` and `diagnosis`; `flags`. `in_image` holds the scripts that run inside the served
image, `setup` what makes a machine ready. The Pulumi resources are in `components`.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
