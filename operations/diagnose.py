"""`make diagnose LOG=file`: why did this vLLM not start? For any log that somebody has.

    python -m operations.diagnose FILE [--json]      (FILE may be - for standard input)

Exit code: 0 healthy, 1 failed, 3 unknown, 2 when the log cannot be read.
"""

from __future__ import annotations

import argparse
import codecs
import io
import json
import signal
import sys
from collections.abc import Iterable, Sequence

from engine.diagnosis import Diagnosis, diagnose

EXIT_CODES = {"healthy": 0, "failed": 1, "unknown": 3}
_UNREADABLE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints cause, mend and evidence; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m operations.diagnose",
        description="Says why a vLLM server did not start, from its log.",
        epilog="exit code: 0 healthy, 1 failed, 3 unknown, 2 when the log cannot be read",
    )
    parser.add_argument("log", help="a saved log (docker logs NAME > file 2>&1), or - for stdin")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    try:
        found = _diagnose(options.log)
    except OSError as problem:
        print(
            f"cannot read the log {options.log}: {problem.strerror}; save one with"
            " `docker logs NAME > file 2>&1`, or pipe it in with LOG=-",
            file=sys.stderr,
        )
        return _UNREADABLE
    print(as_json(found) if options.json else as_text(found))
    return EXIT_CODES[found.verdict]


def as_json(found: Diagnosis) -> str:
    """One object: verdict, cause, mend, evidence."""
    return json.dumps(
        {
            "verdict": found.verdict,
            "cause": found.cause,
            "mend": found.mend,
            "evidence": list(found.evidence),
        },
        ensure_ascii=False,
    )


def as_text(found: Diagnosis) -> str:
    """Readable at midnight: what, what to do, why I say so."""
    parts = [f"{found.verdict}: {found.cause}"]
    if found.mend:
        parts.append(f"mend: {found.mend}")
    if found.evidence:
        parts.append("the log says:\n" + "\n".join(f"    {line}" for line in found.evidence))
    return "\n\n".join(parts)


def _diagnose(name: str) -> Diagnosis:
    with open(sys.stdin.fileno() if name == "-" else name, "rb") as log:  # noqa: PTH123
        return diagnose(_lines(log))


def _lines(log: io.BufferedReader) -> Iterable[str]:
    """Whatever the bytes are: a log is cut anywhere, and PowerShell's `>` writes UTF-16."""
    wide = log.peek(2)[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
    encoding = "utf-16" if wide else "utf-8-sig"
    text = io.TextIOWrapper(log, encoding=encoding, errors="replace", newline="\n")
    return (line.rstrip("\n") for line in text)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` is no error
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
    sys.exit(main())
