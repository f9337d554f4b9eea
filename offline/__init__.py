"""Substitutes for machines that reach package registries and nothing else.

Nothing here is used on a machine that reaches GitHub, Docker Hub and the Hugging Face Hub: there
the official Pulumi plugins, images and models are downloaded.
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent
"""This folder of the checkout."""
