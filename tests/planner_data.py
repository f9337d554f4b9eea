"""Models' configs and published KV caches in tests/data/planner, which the planner's tests share.

`configs/` holds the config.json (with hf_quant_config.json merged into it) of 59 checkpoints,
without the keys that have no effect here and with the first expert only. Those marked
`_reconstructed` were rebuilt from published shapes.
"""

from __future__ import annotations

from pathlib import Path

from vllm_spark.memory.model_config import read_config
from vllm_spark.memory.shape import Loaded, ModelShape

DATA = Path(__file__).parent / "data" / "planner"
CONFIGS = sorted((DATA / "configs").glob("*.json"))
LOADED = {
    "all": Loaded(),
    "text": Loaded(vision=False),
    "all with MTP": Loaded(drafts=True),
    "without output layer": Loaded(output_layer=False),
}
"""Which parts of a model a published server loaded, by the words of weights.json."""


def config_path(name: str) -> Path:
    """The file of a checkpoint, by owner--name."""
    return DATA / "configs" / f"{name}.json"


def shape(name: str) -> ModelShape:
    """The shape of a checkpoint that can be modelled."""
    found = read_config(config_path(name))
    assert isinstance(found, ModelShape), found.reason
    return found
