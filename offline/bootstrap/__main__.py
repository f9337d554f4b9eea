"""`python -m offline.bootstrap`: prepare everything that stack `local` needs; deploy nothing."""

import sys

from vllm_spark.cli.prepare import ensure_parts_of, ensure_pulumi
from vllm_spark.config.stack_file import load_stack, stack_file
from vllm_spark.errors import VllmSparkError

try:
    ensure_pulumi()
    ensure_parts_of(load_stack(stack_file("local")))
except VllmSparkError as error:
    sys.exit(f"error: {error}")
