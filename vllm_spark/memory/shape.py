"""The shape of a model: what its weights and its KV cache take, counted matrix by matrix.

Nothing here reads a file or knows a model family; `engine.model_config` makes a shape from a
`config.json`, and a model whose cache does not grow by the same bytes with every token never
becomes one.
"""

from __future__ import annotations

from dataclasses import dataclass

from vllm_spark.memory.quantization import Quantization

VOCABULARY_PADDING = 64  # vLLM pads the rows of embedding and lm_head to a multiple of this


@dataclass(frozen=True)
class Linear:
    """`copies` equal weight matrices, `copies_read` of which one token passes through.

    `name` is the checkpoint's, since quantisation formats name the layers that they leave alone.
    """

    name: str
    inputs: int
    outputs: int
    bias: bool = False
    copies: int = 1
    copies_read: int = 1
    quantizable: bool = True

    @property
    def parameters(self) -> int:
        """Elements of all copies, biases included."""
        return self.copies * self.outputs * (self.inputs + self.bias)


@dataclass(frozen=True)
class ModelShape:
    """A decoder-only transformer with full attention. Sizes are in elements, not bytes."""

    family: str
    layers: int
    hidden_size: int
    query_size: int
    kv_heads: int
    head_dim: int
    ffn_size: int
    """Widest feed-forward layer; of one expert where there are experts."""
    experts_per_token: int
    """0 for a dense model."""
    vocabulary: int
    positions: int
    """Tokens of context that the model was made for; max-model-len cannot exceed it."""
    tied_embeddings: bool
    linears: tuple[Linear, ...]
    norm_parameters: int
    vision_parameters: int | None
    """0 without a vision tower, None if there is one whose size is not known here."""
    quantization: Quantization | None
    fp8_kv_cache: bool

    @property
    def parameters(self) -> int:
        """All parameters, as the Hub counts them, without a vision tower of unknown size."""
        embeddings = self.vocabulary * self.hidden_size * (1 if self.tied_embeddings else 2)
        matrices = sum(linear.parameters for linear in self.linears)
        return embeddings + matrices + self.norm_parameters + (self.vision_parameters or 0)

    def weight_bytes(
        self, quantization: Quantization | None, dtype_bytes: int, tensor_parallel: int
    ) -> float:
        """Bytes of the weights on one GPU."""
        embedding = self._embedding_bytes(dtype_bytes) * (1 if self.tied_embeddings else 2)
        matrices = sum(
            linear.copies * self._linear_bytes(linear, quantization, dtype_bytes)
            for linear in self.linears
        )
        whole = (self.norm_parameters + (self.vision_parameters or 0)) * dtype_bytes
        rotary_cache = self.positions * self.head_dim * 2
        return (embedding + matrices) / tensor_parallel + whole + rotary_cache

    def bytes_read_per_token(
        self, quantization: Quantization | None, dtype_bytes: int, tensor_parallel: int
    ) -> float:
        """Bytes of weights that one GPU reads to make one token of one sequence.

        Of the experts only the chosen ones, and all of lm_head, but one row of the embedding.
        """
        matrices = sum(
            linear.copies_read * self._linear_bytes(linear, quantization, dtype_bytes)
            for linear in self.linears
        )
        return (matrices + self._embedding_bytes(dtype_bytes)) / tensor_parallel

    def kv_bytes_per_token(self, element_bytes: int, tensor_parallel: int) -> int:
        """Bytes of keys and values that one token leaves on one GPU."""
        heads = max(1, self.kv_heads // tensor_parallel)
        return 2 * self.layers * heads * self.head_dim * element_bytes

    def _embedding_bytes(self, dtype_bytes: int) -> int:
        rows = -(-self.vocabulary // VOCABULARY_PADDING) * VOCABULARY_PADDING
        return rows * self.hidden_size * dtype_bytes

    @staticmethod
    def _linear_bytes(linear: Linear, quantization: Quantization | None, dtype_bytes: int) -> float:
        bias = linear.outputs * linear.bias * dtype_bytes
        if quantization is None or not linear.quantizable:
            return linear.inputs * linear.outputs * dtype_bytes + bias
        if quantization.leaves_alone(linear.name):
            return linear.inputs * linear.outputs * dtype_bytes + bias
        return quantization.matrix_bytes(linear.inputs, linear.outputs) + bias
