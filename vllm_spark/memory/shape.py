"""The shape of a model: what its weights take, and what its layers cache.

Nothing here reads a file or knows a model family; `memory.model_config` makes a shape from a
config.json. Where the bytes of the checkpoint itself are known (`stored`), they count.
"""

from __future__ import annotations

from dataclasses import dataclass

from vllm_spark.memory.kv.cached_layers import Attention, CachedLayers
from vllm_spark.memory.quantization import OUTPUT_LAYER, Quantization
from vllm_spark.memory.weights.linears import MARLIN, ExpertPadding, Linear
from vllm_spark.memory.weights.stored import StoredWeights

VOCABULARY_PADDING = 64  # vLLM pads the rows of embedding and lm_head to a multiple of this


@dataclass(frozen=True)
class Loaded:
    """Which parts of a model a server loads, and how."""

    output_layer: bool = True
    """False for pooling models, which drop it."""
    vision: bool = True
    drafts: bool = False
    """Whether the modules of multi-token prediction are loaded."""
    padding: ExpertPadding = MARLIN


EVERYTHING = Loaded()


@dataclass(frozen=True)
class ModelShape:
    """A decoder-only model. Sizes are in elements, not bytes."""

    family: str
    layers: int
    hidden_size: int
    query_size: int
    kv_heads: int
    head_dim: int
    ffn_size: int
    """Widest feed-forward layer; of one expert where there are experts."""
    experts: int
    """Experts of a layer; 0 for a dense model."""
    experts_per_token: int
    vocabulary: int
    positions: int
    """Tokens of context that the model was made for; max-model-len cannot exceed it."""
    tied_embeddings: bool
    linears: tuple[Linear, ...]
    """Empty for a family whose matrices are not known, which needs `stored`."""
    norm_parameters: int
    rotary_elements: int
    """Elements of the tables of sines and cosines, which vLLM keeps in 16 bits."""
    vision_parameters: int | None
    """0 without a vision tower, None if there is one whose size is not known here."""
    quantization: Quantization | None
    fp8_kv_cache: bool
    cached: tuple[CachedLayers, ...]
    doubled_elements: int = 0
    """Elements that vLLM keeps a second time, in 16 bits."""
    stored: StoredWeights | None = None
    pooling: bool = False
    """Whether the model is made for embeddings or scores, by its name or architecture."""

    @property
    def parameters(self) -> int:
        """All parameters, as the Hub counts them, without a vision tower of unknown size."""
        embeddings = self.vocabulary * self.hidden_size * (1 if self.tied_embeddings else 2)
        matrices = sum(linear.parameters for linear in self.linears if not linear.drafts)
        return embeddings + matrices + self.norm_parameters + (self.vision_parameters or 0)

    def weight_bytes(
        self,
        quantization: Quantization | None,
        dtype_bytes: int,
        tensor_parallel: int,
        loaded: Loaded = EVERYTHING,
    ) -> float:
        """Bytes of the weights on one GPU."""
        rotary_and_doubled = (
            self.rotary_elements + self.doubled_elements / tensor_parallel
        ) * dtype_bytes
        if self.stored is not None:
            stored = self.stored.gpu_bytes(
                output_layer=loaded.output_layer and not self.tied_embeddings,
                vision=loaded.vision,
                drafts=loaded.drafts,
                expert_factor=self._padding_factor(loaded.padding, tensor_parallel),
                single_factor=1.0 if quantization else dtype_bytes / 4,
            )
            return stored / tensor_parallel + rotary_and_doubled
        matrices = sum(
            linear.copies
            * linear.gpu_bytes(quantization, dtype_bytes, tensor_parallel, loaded.padding)
            for linear in self.linears
            if loaded.drafts or not linear.drafts
        )
        embedding = self._embedding_bytes(dtype_bytes)
        if loaded.output_layer and not self.tied_embeddings:
            embedding += self._output_bytes(quantization, dtype_bytes)
        vision = (self.vision_parameters or 0) * loaded.vision * dtype_bytes
        norms = self.norm_parameters * dtype_bytes
        return matrices + (embedding + vision) / tensor_parallel + norms + rotary_and_doubled

    def bytes_read_per_token(
        self, quantization: Quantization | None, dtype_bytes: int, tensor_parallel: int
    ) -> float:
        """Bytes of weights that one GPU reads to make one token of one sequence.

        Of the experts only the chosen ones, and all of lm_head, but one row of the embedding.
        """
        if self.stored is not None:
            share = self.experts_per_token / self.experts if self.experts else 1.0
            return self.stored.read_bytes(share, self.tied_embeddings) / tensor_parallel
        matrices = sum(
            linear.copies_read * linear.gpu_bytes(quantization, dtype_bytes, 1, NO_PADDING)
            for linear in self.linears
            if not linear.drafts
        )
        output = (
            self._embedding_bytes(dtype_bytes)
            if self.tied_embeddings
            else self._output_bytes(quantization, dtype_bytes)
        )
        return (matrices + output) / tensor_parallel

    def kv_bytes_per_token(self, element_bytes: int, tensor_parallel: int) -> int:
        """Bytes that one token leaves on one GPU in the layers that keep every token."""
        total = 0
        for layer in self.cached:
            if not isinstance(layer, Attention) or layer.drafts or layer.retained_tokens:
                continue
            heads = 1 if layer.latent else max(1, layer.kv_heads // tensor_parallel)
            token = heads * (layer.head_dim + layer.value_dim) * element_bytes
            total += layer.count * (token if layer.fixed_bytes is None else layer.fixed_bytes)
        return total

    @property
    def pads_experts(self) -> bool:
        """Whether the kernel that vLLM takes for the experts decides about their bytes."""
        return self.quantization is not None and self.quantization.mxfp4

    def _padding_factor(self, padding: ExpertPadding, tensor_parallel: int) -> float:
        """How much larger the experts are in memory than in the checkpoint."""
        if not self.pads_experts:
            return 1.0
        split = self.ffn_size // tensor_parallel
        inner = -(-split // padding.intermediate) * padding.intermediate
        outer = -(-self.hidden_size // padding.hidden) * padding.hidden
        return inner * outer / (split * self.hidden_size)

    def _embedding_bytes(self, dtype_bytes: int) -> float:
        rows = -(-self.vocabulary // VOCABULARY_PADDING) * VOCABULARY_PADDING
        return rows * self.hidden_size * dtype_bytes

    def _output_bytes(self, quantization: Quantization | None, dtype_bytes: int) -> float:
        form = quantization.form_of(OUTPUT_LAYER) if quantization else None
        if form is None:
            return self._embedding_bytes(dtype_bytes)
        rows = -(-self.vocabulary // VOCABULARY_PADDING) * VOCABULARY_PADDING
        return form.matrix_bytes(self.hidden_size, rows)


NO_PADDING = ExpertPadding("none", 1, 1)
