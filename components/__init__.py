"""The Pulumi resources, one per file: declarations, and thin dynamic providers.

The public face is `VllmServer` with its arguments: one served model, any number in a program.
"""

from components.vllm_server import VllmServer, VllmServerArgs

__all__ = ["VllmServer", "VllmServerArgs"]
