"""An adapter multiplied into the weights it was made for, and a look at whether the function is still the same.

A merge can go wrong without a word: into a matrix that two layers share (a tied output head), into weights that are
rounded again, or past a part of the adapter that the merge does not know. The logits show all of them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from unlora.errors import InputError
from unlora.models.quantised import Bits
from unlora.models.quiet import quiet
from unlora.models.wrapping import CausalModel, evaluating, unwrap
from unlora.shapes import TokenIds

PROBE_ROWS, PROBE_LENGTH = 2, 16

MERGED_TOLERANCE = 1e-4
"""Of the relative difference of logits in float32; merging moved them by up to 2e-6."""

ROUNDED_TOLERANCE = 16
"""Units in the last place of a lower precision. A merge rounds every weight once more: up to 4 of them were seen, and
on SmolLM2 2.4 in bfloat16 and 3.3 in float16."""

STEPS_TOLERANCE = 0.02
"""Of 8-bit layers, which round their inputs too: one that moved by 1e-7 may fall on another of 255 steps. On a tiny
model the logits of one adapter, written as other factors of the same product, differed by 0.4 %."""


class MergeCheck(NamedTuple):
    """How far the logits on a few tokens moved by merging, and what would still be rounding."""

    relative_difference: float
    """Root mean square of the difference, divided by that of the logits."""
    tolerance: float


class Merged(NamedTuple):
    """A plain model that computes what base and adapter did."""

    model: PreTrainedModel
    check: MergeCheck


class Expected(NamedTuple):
    """What a merged model has to compute, where that is not what base and adapter compute as they are given."""

    logits: Float[Tensor, "row token vocab"]
    """From `probe_logits`."""
    dtype: torch.dtype
    """The coarsest number format that they were computed in."""


def merge_adapter(wrapped: PeftModel, *, where: str, expected: Expected | None = None) -> Merged:
    """Merge the active adapter into the base weights and compare the logits of before and after on a few tokens.

    An output head that shares its weights with the embedding gets its own copy first where the adapter changes one of
    them; the model then says `tie_word_embeddings=False` in its config. The base may not be rounded.

    Args:
        wrapped: base and adapter; used up, its layers become the merged model's.
        where: what the message of a failure begins with, such as the adapter's folder.
        expected: what the merged model has to compute, such as that of the same adapter on a rounded base; None for
            what `wrapped` does.

    Raises:
        InputError: the merged model computes something else than rounding explains, or a weight became NaN.
    """
    _describe_replicas(wrapped)
    probe = probe_tokens(wrapped)
    before = probe_logits(wrapped, probe) if expected is None else expected.logits
    tied = _give_own_weights(wrapped)
    try:
        with quiet():
            model: Any = wrapped.merge_and_unload(safe_merge=True)
    except ValueError as error:
        raise InputError(f"{where}: cannot be merged ({' '.join(str(error).split())[:200]}).") from None
    _settle_tying(model, tied)
    dtypes = [model.dtype] if expected is None else [model.dtype, expected.dtype]
    coarsest = max(dtypes, key=lambda dtype: torch.finfo(dtype).eps)
    check = compare_logits(before, probe_logits(model, probe), dtype=coarsest)
    if not check.relative_difference <= check.tolerance:
        raise InputError(
            f"{where}: merged into its base it is another model (the logits differ by {check.relative_difference:.1%}, "
            f"and rounding to {str(coarsest).removeprefix('torch.')} explains {check.tolerance:.2%}); merge it with "
            "the library that made it and give the merged folder."
        )
    return Merged(model, check)


def probe_tokens(model: CausalModel) -> TokenIds:
    """Tokens to compare logits on: spread over the vocabulary, those that an adapter trained among them."""
    config: Any = unwrap(model).config.get_text_config()
    count = PROBE_ROWS * PROBE_LENGTH
    ids = torch.linspace(0, config.vocab_size - 1, count).round().long()
    trained = torch.tensor(_trained_tokens(model)[: count // 2], dtype=torch.long)
    ids[1 : 2 * len(trained) : 2] = trained
    return ids.reshape(PROBE_ROWS, PROBE_LENGTH)


@torch.no_grad()
def probe_logits(model: CausalModel, probe: TokenIds | None = None) -> Float[Tensor, "row token vocab"]:
    """Return the logits of `probe_tokens` in float32, in eval mode, on the CPU."""
    probe = probe_tokens(model) if probe is None else probe
    with evaluating(model):
        return model(input_ids=probe.to(model.device), use_cache=False).logits.float().cpu()


@torch.no_grad()
def changes_nothing(wrapped: PeftModel) -> bool:
    """Whether base and active adapter give the base's own logits, bit for bit: untrained, or of strength nought.

    Trained biases cannot be switched off; an adapter with some is taken to change something.
    """
    if getattr(wrapped.active_peft_config, "bias", "none") != "none":
        return False
    with_it = probe_logits(wrapped)
    with wrapped.disable_adapter(), quiet():
        return torch.equal(with_it, probe_logits(wrapped))


def compare_logits(
    before: Float[Tensor, "row token vocab"],
    after: Float[Tensor, "row token vocab"],
    *,
    dtype: torch.dtype,
    bits: Bits | None = None,
) -> MergeCheck:
    """Return the relative difference of two sets of logits, and what rounding to `dtype` explains.

    That is 1e-4 in float32, and 16 units in the last place of a lower precision; 2 % where `bits` are "8bit".
    """
    if before.shape != after.shape:
        return MergeCheck(float("inf"), 0.0)
    difference = (after - before).square().mean().sqrt() / before.square().mean().sqrt()
    tolerance = MERGED_TOLERANCE if dtype == torch.float32 else ROUNDED_TOLERANCE * torch.finfo(dtype).eps
    return MergeCheck(float(difference), max(tolerance, STEPS_TOLERANCE) if bits == "8bit" else tolerance)


def _trained_tokens(model: CausalModel) -> list[int]:
    if not isinstance(model, PeftModel):
        return []
    indices: Any = getattr(model.active_peft_config, "trainable_token_indices", None) or []
    return sorted({index for part in indices.values() for index in part} if isinstance(indices, dict) else indices)


def _give_own_weights(wrapped: PeftModel) -> bool:
    """Copy each weight that the adapter changes in one layer and another layer reads too.

    Returns:
        Whether the embedding and the output head were such layers.
    """
    plain = unwrap(wrapped)
    layers = (
        plain.modules()
        if _replication(wrapped)
        else (module.get_base_layer() for module in wrapped.modules() if isinstance(module, BaseTunerLayer))
    )
    changed = {id(parameter) for layer in layers for parameter in layer.parameters(recurse=False)}
    was_tied = _is_tied(plain)
    seen: set[int] = set()
    for module, name, parameter in _owned_parameters(plain):
        if id(parameter) in changed and id(parameter) in seen:
            setattr(module, name, nn.Parameter(parameter.detach().clone(), requires_grad=parameter.requires_grad))
        seen.add(id(parameter))
    return was_tied


def _replication(wrapped: PeftModel) -> Sequence[Sequence[int]] | None:
    """Which runs of layers the adapter puts behind one another, sharing the weights of the base."""
    return getattr(wrapped.active_peft_config, "layer_replication", None)


def _describe_replicas(wrapped: PeftModel) -> None:
    """Let the config say of which type each replicated layer is; PEFT only changes their number."""
    config: Any = unwrap(wrapped).config.get_text_config()
    types = getattr(config, "layer_types", None)
    replication = _replication(wrapped)
    if replication and types and len(types) != config.num_hidden_layers:
        config.layer_types = [types[index] for start, end in replication for index in range(start, end)]


def _owned_parameters(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Parameter]]:
    for module in list(model.modules()):
        for name, parameter in list(module.named_parameters(recurse=False)):
            yield module, name, parameter


def _is_tied(model: PreTrainedModel) -> bool:
    head: Any = model.get_output_embeddings()
    embedding: Any = model.get_input_embeddings()
    if head is None or embedding is None:
        return False
    return _storage(head) == _storage(embedding)


def _storage(module: Any) -> int:
    """Where the weight of a layer lies, below whatever PEFT put around it."""
    while not isinstance(module, nn.Embedding | nn.Linear):
        below = getattr(module, "original_module", None)
        below = below if below is not None else getattr(module, "base_layer", None)
        if below is None:
            break
        module = below
    return module.weight.data_ptr()


def _settle_tying(model: PreTrainedModel, was_tied: bool) -> None:
    """Tie a head again that came out equal to the embedding; where it did not, let the config say so."""
    if not was_tied:
        return
    head: Any = model.get_output_embeddings()
    embedding: Any = model.get_input_embeddings()
    equal = torch.equal(head.weight, embedding.weight)
    if equal:
        head.weight = embedding.weight
    for config in (model.config, model.config.get_text_config()):
        if hasattr(config, "tie_word_embeddings"):
            config.tie_word_embeddings = equal
