"""What a run takes, from sizes alone: bytes, and floating-point operations, a multiply-add as two."""

from typing import Literal, NamedTuple

from unlora.models.quantised import NF4_BLOCK, Quantisation

FLOAT32 = 4
BYTES_A_ROUNDED_WEIGHT: dict[Quantisation, float] = {"4bit": 0.5 + FLOAT32 / NF4_BLOCK, "8bit": 1.0}
"""Codes, and in nf4 a float32 scale for each block."""
BYTES_AN_UPDATED_PARAMETER = 3 * FLOAT32
"""Its gradient and AdamW's two moments."""

BUFFER_SHARE = 0.5
"""Of activations and logits: buffers that are freed at once, and what an allocator leaves unused. A run of SmolLM2 on a
CPU peaked at 5.66 GB in training and 3.65 GB in importance, planned 5.78 and 3.90; another device may need more."""

Measurement = Literal["marginals", "lora_factors", "full_weights", "contrast", "contrast_inputs"]
"""A space of the importance map, or a contrast map."""


class Layers(NamedTuple):
    """The target modules, summed over them."""

    modules: int
    area: int
    """d_out * d_in."""
    outputs: int
    """d_out."""
    inputs: int
    """d_in."""
    largest: int
    """d_out * d_in of the largest."""

    @property
    def width(self) -> int:
        """d_out + d_in: LoRA of rank r has r times as many parameters."""
        return self.outputs + self.inputs


class BatchShape(NamedTuple):
    """One padded batch."""

    rows: int
    length: int
    kept: int
    """Positions of every row whose logits are computed: from the first that predicts a label to the end."""
    scored: int
    """Tokens whose loss is taken, all rows together."""

    @property
    def tokens(self) -> int:
        """Positions that are computed, padding included."""
        return self.rows * self.length


def weight_bytes(parameter_bytes: int, layers: Layers, size: int, quantisation: Quantisation | None) -> int:
    """Base weights; only the target modules are rounded, from `size` bytes a weight."""
    if quantisation is None:
        return parameter_bytes
    return round(parameter_bytes - layers.area * (size - BYTES_A_ROUNDED_WEIGHT[quantisation]))


def updated_parameters(layers: Layers, rank: int, *, anchored: bool, freeze_a: bool) -> int:
    """Entries of the factors that get a gradient; in an anchored factor the frozen half gets a gradient of zero."""
    return (2 if anchored else 1) * rank * (layers.outputs if freeze_a else layers.width)


def logit_bytes(batch: BatchShape, vocabulary: int, size: int) -> int:
    """Logits and their gradient at every kept position; of a scored one a copy, its log-softmax and that's gradient."""
    return vocabulary * (2 * size * batch.rows * batch.kept + (size + 2 * FLOAT32) * batch.scored)


def reference_logit_bytes(batch: BatchShape, vocabulary: int, size: int, share: float) -> int:
    """The reference's logits, and their log-softmax where scored, of a share of the rows; kept until the loss is."""
    return round(share * vocabulary * (size * batch.rows * batch.kept + FLOAT32 * batch.scored))


def with_buffers(parts: dict[str, int]) -> dict[str, int]:
    """The parts of a stage, and the room that those need which come and go with every batch."""
    moving = sum(size for part, size in parts.items() if part.endswith(("activations", "logits")))
    return {**parts, "buffers": round(BUFFER_SHARE * moving)}


def checkpointed_bytes(activations: int, blocks: int, tokens: int, hidden: int, size: int) -> int:
    """With gradient checkpointing: the input of every block, and the activations of the one that is recomputed."""
    return activations // blocks + blocks * tokens * hidden * size


def statistics_bytes(
    kind: Measurement, layers: Layers, *, rank: int, centred: bool, columns: int, beside_model: bool
) -> int:
    """Running sums at their most: the retain set's, with what is left of the forget set's.

    Args:
        kind: what is measured.
        layers: where.
        rank: of the virtual factors (lora_factors).
        centred: whether a mean is kept besides the squares (full_weights).
        columns: of a sketch.
        beside_model: whether the sums of full weights lie in the model's memory; one layer's own moments always do.
    """
    moments = 2 if centred else 1
    values = {
        "marginals": 2 * layers.outputs + layers.inputs + 2 * layers.width,
        "lora_factors": (1 + 2 + 1) * rank * layers.width,  # forget's record, retain's moments, the factors
        "full_weights": 3 * layers.largest + ((1 + moments) * layers.area if beside_model else 0),
        "contrast": 2 * 2 * columns * layers.width,  # of either set a sketch and its probes
        "contrast_inputs": 2 * columns * layers.width,
    }
    return FLOAT32 * values[kind]


def published_statistics_bytes(layers: Layers, size: int, *, rank: int | None) -> int:
    """The released sums: S1 and S2 of LoRA's factors, or S2 of every weight (rank None), for both sets."""
    return 2 * size * (2 * rank * layers.width if rank is not None else layers.area)


def file_bytes(kind: Measurement, layers: Layers, *, rank: int, sets: int) -> int:
    """Importance file without its header, which is a few hundred bytes a module; float32."""
    if kind in ("contrast", "contrast_inputs"):
        sides = layers.width if kind == "contrast" else layers.inputs
        eigenvalues = layers.modules * (2 if kind == "contrast" else 1)
        return FLOAT32 * rank * (sides + eigenvalues)
    values = {"marginals": layers.width, "lora_factors": rank * layers.width, "full_weights": layers.area}
    return FLOAT32 * sets * values[kind]


def pass_flops(flops_a_token: float, head: int, batch: BatchShape) -> float:
    """Forward and backward pass of one batch; `head` is the output head's number of weights, which gets no gradient."""
    return flops_a_token * batch.tokens + 4 * head * batch.rows * batch.kept


def statistics_flops(kind: Measurement, layers: Layers, batch: BatchShape, *, rank: int, columns: int) -> float:
    """What the statistics of one batch add to its forward and backward pass."""
    products = {
        # Gram matrices of both sides and their use, and a product as large as a gradient on every fourth batch.
        "marginals": min(2 * batch.length * layers.width, layers.area) + layers.area / 4,
        "lora_factors": 2 * rank * layers.width,
        "full_weights": layers.area,
        "contrast": 2 * columns * layers.width,
        "contrast_inputs": columns * layers.width,
    }
    return 2.0 * batch.tokens * products[kind]
