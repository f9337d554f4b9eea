"""The README's own program, run as it stands."""

from __future__ import annotations

import re
from pathlib import Path

from tests.stack.conftest import ROOT, Deploy


def test_the_readmes_program_declares_two_servers_side_by_side(
    deploy: Deploy, tmp_path: Path
) -> None:
    (block,) = re.findall(
        r"^```python\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    program = tmp_path / "__main__.py"
    program.write_text(block)
    declared = deploy("spark", program=program)
    containers = {
        one.inputs["name"]: one.inputs["ports"][0]["external"]
        for one in declared.resources
        if one.typ == "docker:index/container:Container"
    }
    assert containers == {"chat-spark": 8000, "think-spark": 8001}
