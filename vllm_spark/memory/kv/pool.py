"""The general core: from the specs of all cached layers to groups, blocks, requests and tokens.

vLLM cuts its pool into blocks. A block has one page for each layer of a group, and every group of
layers draws its blocks from the same pool. So the number of blocks that one request takes is the
sum over the groups, and with sliding windows or state layers it is not proportional to the length
of the request: such a model has no "bytes per token".
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

from vllm_spark.memory.kv.releases import CacheRules

Kind = Literal["full", "window", "chunk", "state"]


@dataclass(frozen=True)
class LayerSpec:
    """What one layer keeps: a page of `page_bytes` for each block of `block_tokens`.

    `retained_tokens` is the sliding window or the chunk; `state_pages` what a state layer takes for
    a request whatever its length. `every_block` is for state layers that keep one state a block.
    `fixed_page` marks pages that cannot grow with the block: they are padded instead.
    """

    kind: Kind
    block_tokens: int
    page_bytes: int
    retained_tokens: int = 0
    state_pages: int = 0
    every_block: bool = False
    family: str = ""
    """Tells apart specs of equal size that vLLM does not merge, by heads and dimensions."""

    @property
    def fixed_page(self) -> bool:
        """Whether the page stays when the block grows: the page of a state does."""
        return self.kind == "state"

    def pages(self, length: int, in_flight: int) -> int:
        """Pages for one request of `length` tokens (`max_memory_usage_bytes` over the page).

        `in_flight` is the number of tokens that are scheduled and not yet released.
        """
        match self.kind:
            case "full":
                return math.ceil(length / self.block_tokens)
            case "window":
                kept = min(self.retained_tokens - 1 + in_flight, length)
                return math.ceil(kept / self.block_tokens) + 1
            case "chunk":
                return math.ceil(min(self.retained_tokens + in_flight, length) / self.block_tokens)
            case "state":
                blocks = math.ceil(length / self.block_tokens) if self.every_block else 0
                return blocks + self.state_pages


@dataclass(frozen=True)
class Group:
    """Layers that share a block table: of equal spec, or all growing with each token."""

    specs: tuple[tuple[LayerSpec, int], ...]

    @property
    def layers(self) -> int:
        """Cached layers in this group."""
        return sum(count for _, count in self.specs)

    @property
    def page_bytes(self) -> int:
        """Bytes of one block in this group, over all its layers."""
        return sum(spec.page_bytes * count for spec, count in self.specs)

    @property
    def block_tokens(self) -> int:
        """Tokens in a block."""
        return self.specs[0][0].block_tokens

    def pages(self, length: int, in_flight: int) -> int:
        """Blocks that a request of `length` tokens takes from this group."""
        return max(spec.pages(length, in_flight) for spec, _ in self.specs)


@dataclass(frozen=True)
class CacheLayout:
    """The groups of a model's cached layers and the bytes of one block."""

    groups: tuple[Group, ...]
    block_bytes: int
    in_flight: int
    """Tokens that can be scheduled and not yet released."""
    rules: CacheRules
    weighs_pages: bool = False
    """Whether a request's blocks are its bytes over the bytes of the first group's block, as
    packed blocks were counted once; else the sum over the groups."""

    def blocks(self, pool_bytes: float) -> int:
        """Whole blocks in a pool."""
        return max(0, int(pool_bytes // self.block_bytes))

    def blocks_per_request(self, length: int) -> int:
        """Blocks that one request of `length` tokens can hold at once."""
        pages = [group.pages(length, self.in_flight) for group in self.groups]
        if not self.weighs_pages:
            return sum(pages)
        taken = sum(
            number * group.page_bytes for number, group in zip(pages, self.groups, strict=True)
        )
        return math.ceil(taken / self.groups[0].page_bytes)

    def usable(self, blocks: int) -> int:
        """Blocks that the check at start counts on."""
        return blocks - 1 if self.rules.reserves_null_block else blocks

    def longest(self, blocks: int, limit: int) -> int:
        """The longest request, in tokens and at most `limit`, that so many blocks hold; or 0."""
        low, high = 0, limit
        while low < high:
            middle = (low + high + 1) // 2
            if self.blocks_per_request(middle) <= self.usable(blocks):
                low = middle
            else:
                high = middle - 1
        return low

    def tokens(self, blocks: int, length: int) -> int:
        """ "GPU KV cache size" as vLLM prints it, for requests of `length` tokens."""
        if self.rules.counts_whole_sequences:
            return int(blocks / self.blocks_per_request(length) * length)
        smallest = min(group.block_tokens for group in self.groups)
        return blocks // len(self.groups) * smallest

    @cached_property
    def grows_evenly(self) -> bool:
        """Whether every token takes the same bytes, so that "bytes per token" means something."""
        return all(spec.kind == "full" for group in self.groups for spec, _ in group.specs)

    @property
    def bytes_per_token(self) -> int:
        """Bytes that one more token of a long request takes in the layers that grow with it."""
        return sum(
            spec.page_bytes * count // spec.block_tokens
            for group in self.groups
            for spec, count in group.specs
            if spec.kind == "full"
        )


def lay_out(
    layers: Iterable[tuple[LayerSpec, int]], rules: CacheRules, in_flight: int
) -> CacheLayout:
    """Group layers as vLLM does (`get_kv_cache_groups`). `layers` are specs and their counts."""
    counts: Counter[LayerSpec] = Counter()
    for spec, count in layers:
        counts[spec] += count
    if _of_one_type(list(counts)):
        groups = [Group(tuple(counts.items()))]
    else:
        groups = _groups_of_one_page(counts, rules)
    block_bytes = max(group.page_bytes for group in groups)
    return CacheLayout(tuple(groups), block_bytes, in_flight, rules)


def _of_one_type(specs: list[LayerSpec]) -> bool:
    """Whether all layers need the same number of tokens: then they form one group as they are."""
    kinds = {(spec.kind, spec.block_tokens, spec.retained_tokens) for spec in specs}
    only_states = all(spec.kind == "state" for spec in specs)
    return len(kinds) == 1 and (not only_states or len(specs) == 1)


def _groups_of_one_page(counts: Counter[LayerSpec], rules: CacheRules) -> list[Group]:
    """Give all layers the largest page, then split each kind into groups of equal size."""
    page = max(spec.page_bytes for spec in counts)
    unified: Counter[LayerSpec] = Counter()
    for spec, count in counts.items():
        unified[_with_page(spec, page)] += count
    smallest, largest = min(unified.values()), max(unified.values())
    size = largest if largest < smallest * rules.group_factor else smallest
    return [
        Group(((spec, len(range(first, count, number))),))
        for spec, count in unified.items()
        for number in (math.ceil(count / size),)
        for first in range(number)
    ]


def _with_page(spec: LayerSpec, page: int) -> LayerSpec:
    """A larger page holds more tokens if it is a multiple of the old one; else it is padded."""
    ratio, rest = divmod(page, spec.page_bytes)
    if rest or spec.fixed_page:
        return replace(spec, page_bytes=page)
    return replace(spec, page_bytes=page, block_tokens=spec.block_tokens * ratio)
