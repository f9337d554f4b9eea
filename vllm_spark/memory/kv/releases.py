"""What of the KV cache's layout changed between releases of vLLM.

Read in the source of 0.11.0, 0.12.0, 0.13.0, 0.14.0, 0.16.0, 0.17.1, 0.18.1, 0.19.1, 0.20.0,
0.20.1 and of every minor release from 0.21 to 0.33.
"""

from __future__ import annotations

from dataclasses import dataclass

from vllm_spark.images import Version


@dataclass(frozen=True)
class CacheRules:
    """How one release of vLLM lays out its KV cache."""

    group_factor: float
    """Groups take the size of the largest kind of layers if that is smaller than this times the
    size of the smallest kind, else that of the smallest."""
    counts_whole_sequences: bool
    """Whether "GPU KV cache size" is the concurrency times the longest sequence; before, it was
    the blocks over the groups times the smallest block."""
    batches_in_flight: int
    """Batches that a sliding window holds back from release: two with asynchronous scheduling."""
    reserves_null_block: bool
    """Whether the check at start leaves out the block that stands for "no block"."""
    hybrids_cache_prefixes: bool
    """Whether prefix caching is on by default for models with state layers."""
    caches_every_state: bool
    """Whether the model classes that can do it keep a state for each block ("all")."""
    packs_by_size: bool
    packs_densely: bool
    """How blocks of layers with pages of several sizes are cut: DeepSeek V4's."""
    checkpoints_mamba: bool
    checkpoints_gdn: bool
    """Whether a prefill keeps one more state of a Mamba-2 or Gated DeltaNet layer ("align")."""


def cache_rules(version: Version) -> CacheRules:
    """The rules of a release."""

    def since(release: str) -> bool:
        return version >= Version.parse(release)

    return CacheRules(
        group_factor=1.5 if since("0.18") else 1.25 if since("0.12") else 1.0,
        counts_whole_sequences=since("0.20.1"),
        batches_in_flight=2 if since("0.26") else 1,
        reserves_null_block=since("0.29"),
        hybrids_cache_prefixes=since("0.26"),
        caches_every_state=since("0.16") and not since("0.28"),
        packs_by_size=since("0.24"),
        packs_densely=since("0.27"),
        checkpoints_mamba=since("0.32"),
        checkpoints_gdn=since("0.33"),
    )
