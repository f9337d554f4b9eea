"""`python -m bootstrap`: every part that stack `local` needs, without deploying anything."""

import sys

from bootstrap.local_parts import ensure_everything
from bootstrap.steps import Unready

try:
    ensure_everything()
except Unready as error:
    sys.exit(f"error: {error}")
