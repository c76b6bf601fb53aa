"""What a run takes, from sizes alone: bytes, and floating-point operations, a multiply-add as two."""

from unlora.models.quantised import NF4_BLOCK, Bits
from unlora.starts.sizes import FLOAT32, BatchShape, Layers

BYTES_A_ROUNDED_WEIGHT: dict[Bits, float] = {"4bit": 0.5 + FLOAT32 / NF4_BLOCK, "8bit": 1.0}
"""Codes, and in nf4 a float32 scale for each block."""
BYTES_AN_UPDATED_PARAMETER = 3 * FLOAT32
"""Its gradient and AdamW's two moments."""

BUFFER_SHARE = 0.5
"""Of activations and logits: buffers that are freed at once, and what an allocator leaves unused. A run of SmolLM2 on a
CPU peaked at 5.66 GB in training and 3.65 GB in importance, planned 5.78 and 3.90; another device may need more."""


def weight_bytes(parameter_bytes: int, layers: Layers, size: int, quantisation: Bits | None) -> int:
    """Base weights; only the target modules are rounded, from `size` bytes a weight."""
    if quantisation is None:
        return parameter_bytes
    return round(parameter_bytes - layers.area * (size - BYTES_A_ROUNDED_WEIGHT[quantisation]))


def updated_parameters(layers: Layers, rank: int, *, anchored: bool, freeze_a: bool) -> int:
    """Entries of the factors that get a gradient; in an anchored factor the frozen half gets a gradient of zero."""
    return (2 if anchored else 1) * rank * (layers.outputs if freeze_a else layers.width)


def logit_bytes(batch: BatchShape, vocabulary: int, size: int) -> int:
    """Of every scored token: logits, the same in the batch's order, their gradient, log-softmax and that's gradient."""
    return vocabulary * (3 * size + 2 * FLOAT32) * batch.scored


def reference_logit_bytes(batch: BatchShape, vocabulary: int, size: int, share: float) -> int:
    """The reference's logits of scored tokens and their log-softmax, of a share of the rows; kept until the loss is."""
    return round(share * vocabulary * (size + FLOAT32) * batch.scored)


def with_buffers(parts: dict[str, int]) -> dict[str, int]:
    """The parts of a stage, and the room that those need which come and go with every batch."""
    moving = sum(size for part, size in parts.items() if part.endswith(("activations", "logits")))
    return {**parts, "buffers": round(BUFFER_SHARE * moving)}


def checkpointed_bytes(activations: int, blocks: int, tokens: int, hidden: int, size: int) -> int:
    """With gradient checkpointing: the input of every block, and the activations of the one that is recomputed."""
    return activations // blocks + blocks * tokens * hidden * size


def pass_flops(flops_a_token: float, head: int, batch: BatchShape) -> float:
    """Forward and backward pass of one batch; `head` is the output head's number of weights, which gets no gradient."""
    return flops_a_token * batch.tokens + 4 * head * batch.scored
