"""Copies the compiled kernels that an image brings into the cache, where later ones are kept too.

    python3 -c "$(cat seed_caches.py)" '[["/root/.cache/vllm", "/cache/compiled/IMAGE/vllm"]]'

NVIDIA's images since 26.10 bring some. The server's variables name our places, so without a copy
it would not find them. A copy that was interrupted is made again; it appears only when complete.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path


def main() -> None:
    """Copy each [source, target] in the first argument."""
    for source, target in json.loads(sys.argv[1]):
        part = Path(f"{target}.part")
        shutil.rmtree(part, ignore_errors=True)
        try:
            shutil.copytree(source, part, symlinks=True)
            part.rename(target)
        except OSError as error:
            shutil.rmtree(part, ignore_errors=True)
            print(f"{source}: {error}", file=sys.stderr)
    print("done")


if __name__ == "__main__":
    main()
