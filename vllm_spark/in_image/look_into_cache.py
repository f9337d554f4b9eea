"""Lists the content of the cache, and removes the given compiled kernels: for `make caches`.

    python3 - CACHE [--remove NAME ...] < look_into_cache.py

It runs where the cache is mounted, because a Docker volume cannot be read from the host. Each line
of standard output is `KIND<tab>BYTES<tab>NAME`; KIND is `weights` (a repository), `compiled` (the
kernels of one image) or `other`. It removes only folders below `compiled`.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
from pathlib import Path


def main() -> None:
    """Remove the given kernels, then list the content."""
    parser = argparse.ArgumentParser(prog="look_into_cache", description=__doc__)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--remove", nargs="*", default=[], metavar="NAME")
    given = parser.parse_args()
    for name in given.remove:
        if Path(name).name == name and name not in (".", ".."):
            shutil.rmtree(given.cache / "compiled" / name, ignore_errors=True)
    other = 0
    for entry in sorted(given.cache.iterdir()):
        if entry.name == "compiled" and entry.is_dir():
            for place in sorted(entry.iterdir()):
                print(f"compiled\t{bytes_in(place)}\t{place.name}")
        elif entry.name.startswith("models--"):
            name = entry.name.removeprefix("models--").replace("--", "/", 1)
            print(f"weights\t{bytes_in(entry)}\t{name}")
        else:
            other += bytes_in(entry)
    print(f"other\t{other}\t-")


def bytes_in(path: Path) -> int:
    """Bytes on disk at and below a path; a file with several names counts once."""
    seen: dict[int, int] = {}
    for each in (path, *path.rglob("*")):
        with contextlib.suppress(FileNotFoundError):  # a server may change files here
            found = each.lstat()
            seen[found.st_ino] = found.st_blocks * 512
    return sum(seen.values())


if __name__ == "__main__":
    main()
