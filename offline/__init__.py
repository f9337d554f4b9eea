"""How a machine with package registries, and no other internet, does all of this.

Where GitHub, Docker Hub and the model hub can be reached, nothing here is used: the official
Pulumi plugins, images and models are the normal case.
"""

from pathlib import Path

HERE = Path(__file__).resolve().parent
"""This folder of the checkout."""
