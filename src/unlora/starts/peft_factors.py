"""Starting factors by PEFT's own initialisers, without what they do to the model.

OLoRA, CorDA, LoRA-GA and PiSSA are defined with W - s B A in place of the base weight W, and PEFT writes it there. Here
PEFT factorises a copy of one layer at a time; the factors go into an anchored adapter, whose anchor does the same to
the output. The copy is a `nn.Linear` also for GPT-2's Conv1D, whose transposed weight PEFT's OLoRA would decompose, and
whose input width PEFT's LoRA-GA would take for its output width.

CorDA, EVA and LoRA-GA pass data through the model first. PEFT does that too, with hooks and attributes on the layers
themselves, which are taken off again (`peft_layers`).
"""

from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from unlora.adapters.anchored import refuse_adapter
from unlora.adapters.initial import FactorRequest, InitialFactors, refuse_rank
from unlora.errors import InputError
from unlora.importance.accumulate import MODEL_INPUTS, Batch
from unlora.losses.log_probs import NOT_SCORED, Predictions
from unlora.models.forward import completion_logits
from unlora.models.scored import scored_logits
from unlora.models.target_modules import peft_target_modules
from unlora.starts.peft_layers import (
    PeftInitialiser,
    Targets,
    factors_of_copies,
    left_as_found,
    peft_module,
    peft_speaks,
    refuse_rounded,
    unused,
)

EVA_STEPS = 1000
"""Steps after which EVA counts as not converging, if it has read the set three times; PEFT would go on for ever."""

GRADIENT = "_peft_loraga_grad"
"""Where PEFT leaves a layer's mean gradient for its LoRA-GA initialiser."""

PADDING = {"input_ids": 0, "attention_mask": 0, "labels": NOT_SCORED}


def data_free_factors(
    kind: Literal["olora", "pissa"], targets: Targets, request: FactorRequest
) -> dict[str, InitialFactors]:
    """OLoRA (arXiv 2406.01775): B, A the first r columns and rows of Q and R in W = Q R; or PiSSA (arXiv 2404.02948).

    PEFT does not divide OLoRA's factors by the scaling s, so that s B A is s times the part of W that they span.

    Args:
        kind: which of the two.
        targets: canonical name -> linear layer.
        request: r and s.

    Raises:
        InputError: the rank is larger than a layer.
    """
    for target in targets.values():
        refuse_rank(request.rank, target)
    return factors_of_copies(targets, PeftInitialiser(kind), request)


def corda_factors(
    model: PreTrainedModel,
    targets: Targets,
    retain_batches: Iterable[Batch],
    request: FactorRequest,
) -> dict[str, InitialFactors]:
    """CorDA (arXiv 2406.05223) in its knowledge-preserved mode: the r directions of W that the retain set uses least.

    W C = U S V^T with C the second moments of a layer's inputs on the retain set; s B A is the tail of U S V^T C^-1.
    PEFT scales every example's inputs by its largest one. The matrices C (d_in, d_in) of all layers are held at once.

    Args:
        model: the model whose layers `targets` are; it is left as it was found.
        targets: canonical name -> linear layer.
        retain_batches: dict batches; all tokens count, and each example is read on its own, without its padding.
        request: r and s.

    Raises:
        InputError: the rank is larger than a layer, a layer took no part, or PEFT does not support a layer.
    """
    module = peft_module("corda", "tuners.lora.corda", "0.18")
    _refuse(model, targets, request.rank)
    refuse_rounded("corda", targets)
    parts = {"corda_config": peft_module("corda", "tuners.lora.config", "0.18").CordaConfig(corda_method="kpm")}
    initialiser = PeftInitialiser("corda", parts, attribute="eigens")
    names = peft_target_modules(model, list(targets))
    config = initialiser.config(names, rank=request.rank, scaling=request.scaling)
    batches = list(retain_batches)
    if not batches:
        raise InputError("corda: the retain set is empty.")

    def read() -> None:
        for batch in batches:
            for row, mask in enumerate(batch["attention_mask"].bool()):
                alone = {key: batch[key][row][mask][None].to(model.device) for key in MODEL_INPUTS}
                completion_logits(model, alone)
        for name, target in targets.items():
            if getattr(target.module, "sample_count", 0) == 0:
                raise unused("corda", name, target)

    with left_as_found(model, targets), peft_speaks("corda"):
        module.preprocess_corda(model, config, run_model=read)
        for target in targets.values():
            eigens = vars(target.module)["eigens"]
            eigens.S_WC, eigens.U_WC, eigens.V_WC = eigens.S_WC.cpu(), eigens.U_WC.cpu(), eigens.V_WC.cpu()
        return factors_of_copies(targets, initialiser, request)


def lora_ga_factors(
    model: PreTrainedModel,
    targets: Targets,
    forget_batches: Iterable[Batch],
    request: FactorRequest,
) -> dict[str, InitialFactors]:
    """LoRA-GA (arXiv 2407.05000): the leading 2r singular vectors of the mean gradient G of the forget set.

    PEFT's defaults: direction "ArB2r", A = V_1..r^T and B = U_r+1..2r S_r+1..2r, and scale "stable", which multiplies
    B by d_out^1/4 / 16^1/2 (gamma is 16). So B depends on the size of the gradient, and B A does not approximate W,
    which an anchored adapter does not ask for. The gradients of all target weights are held at once.

    Args:
        model: the model whose layers `targets` are; it is left as it was found.
        targets: canonical name -> linear layer.
        forget_batches: dict batches; the loss is the mean over examples of the mean over their completion tokens.
        request: r, at most half of a layer's smaller side, and s; from its seed PEFT's randomised decomposition of
            every module starts.

    Raises:
        InputError: 2r is larger than a layer, a layer took no part in the loss, or PEFT is older than 0.19.
    """
    module = peft_module("lora_ga", "tuners.lora.loraga", "0.19")
    rank = request.rank
    _refuse(model, targets, rank)
    refuse_rounded("lora_ga", targets)
    for name, target in targets.items():
        if 2 * rank > min(target.d_out, target.d_in):
            raise InputError(
                f"adapter.rank: lora_ga takes 2 x {rank} singular vectors, more than target module '{name}' of shape "
                f"({target.d_out}, {target.d_in}) has."
            )
    parts = {"lora_ga_config": peft_module("lora_ga", "tuners.lora.config", "0.19").LoraGAConfig()}
    initialiser = PeftInitialiser("lora_ga", parts, attribute=GRADIENT)
    config = initialiser.config(peft_target_modules(model, list(targets)), rank=rank, scaling=request.scaling)
    batches = [scored for batch in forget_batches if (scored := _scored_examples(batch)) is not None]
    if not batches:
        raise InputError("lora_ga: no example of the forget set has a token that is scored.")
    # PEFT divides the summed gradient by the number of backward passes.
    share = len(batches) / sum(len(batch["labels"]) for batch in batches)

    def train_step() -> None:
        model.eval()  # PEFT has just switched dropout on.
        for batch in batches:
            inputs = {key: value.to(model.device) for key, value in batch.items()}
            predictions = Predictions.from_scored(scored_logits(model, inputs), inputs["labels"])
            (-predictions.mean_log_probs().sum() * share).backward()

    with left_as_found(model, targets), peft_speaks("lora_ga"):
        module.preprocess_loraga(model, config, train_step)
        for name, target in targets.items():
            gradient = vars(target.module).get(GRADIENT)
            if gradient is None:
                raise unused("lora_ga", name, target)
            vars(target.module)[GRADIENT] = (gradient.T if target.transposed else gradient).cpu()
        return factors_of_copies(targets, initialiser, request)


def eva_factors(
    model: PreTrainedModel,
    targets: Targets,
    forget_batches: Iterable[Batch],
    *,
    rank: int,
    progress: Callable[[int], None] | None = None,
) -> dict[str, InitialFactors]:
    """EVA (arXiv 2410.07170): A holds the leading r principal directions of a layer's inputs on the forget set; B = 0.

    Ranks are not redistributed (rho = 1). Only the positions of completion tokens count, as PEFT does by default from
    0.20 on. The decomposition is randomised with PEFT's own fixed seed, and reads the set until it has converged.

    Args:
        model: the model whose layers `targets` are; it is left as it was found.
        targets: canonical name -> linear layer.
        forget_batches: dict batches; small ones are joined, because a step needs 2r tokens.
        rank: r.
        progress: called with 1 after each module.

    Raises:
        InputError: the rank is larger than a layer, a layer took no part, too few tokens, or no convergence.
    """
    module = peft_module("eva", "tuners.lora.eva", "0.18")
    _refuse(model, targets, rank)
    parts = {"eva_config": peft_module("eva", "tuners.lora.config", "0.18").EvaConfig(rho=1.0)}
    names = peft_target_modules(model, list(targets))
    config = PeftInitialiser("eva", parts).config(names, rank=rank, scaling=1.0)
    batches = _joined(forget_batches, least=2 * rank)
    steps = 0

    def forward(_model: nn.Module, batch: dict[str, Tensor]) -> None:
        nonlocal steps
        if steps == max(EVA_STEPS, 3 * len(batches)):
            raise InputError(f"eva: the decomposition of rank {rank} has not converged after {steps} steps.")
        steps += 1
        completion_logits(model, batch)

    with left_as_found(model, targets), peft_speaks("eva"):
        _refuse_unused(model, targets, batches[0])
        directions = module.get_eva_state_dict(
            model,
            batches,
            config,
            forward_fn=forward,
            prepare_model_inputs_fn=lambda batch, _config: (batch["labels"] != NOT_SCORED).nonzero(),
            show_progress_bar=False,
        )
    factors = {}
    for name, target in targets.items():
        lora_a = directions[name].float().cpu()
        factors[name] = InitialFactors(torch.zeros(target.d_out, rank), lora_a, 1.0, "eva", None)
        if progress is not None:
            progress(1)
    return factors


def _refuse(model: PreTrainedModel, targets: Targets, rank: int) -> None:
    refuse_adapter(model)
    for target in targets.values():
        refuse_rank(rank, target)


@torch.no_grad()
def _refuse_unused(model: PreTrainedModel, targets: Targets, batch: Batch) -> None:
    """Read one example with a hook on every target; PEFT's EVA fails without a word about the layer."""
    seen: set[str] = set()
    with ExitStack() as stack:
        for name, target in targets.items():
            hook = target.module.register_forward_hook(lambda _module, _inputs, _output, name=name: seen.add(name))
            stack.callback(hook.remove)
        completion_logits(model, {key: batch[key][:1].to(model.device) for key in MODEL_INPUTS})
    for name, target in targets.items():
        if name not in seen:
            raise unused("eva", name, target)


def _scored_examples(batch: Batch) -> dict[str, Tensor] | None:
    scored = (batch["labels"][:, 1:] != NOT_SCORED).any(dim=1)  # Nothing predicts the first token.
    return {key: batch[key][scored] for key in MODEL_INPUTS} if scored.any() else None


def _joined(batches: Iterable[Batch], *, least: int) -> list[dict[str, Tensor]]:
    """Join batches in order until each has `least` completion tokens; what is left over goes with the last one."""
    joined: list[dict[str, Tensor]] = []
    for batch in batches:
        piece = {key: batch[key] for key in MODEL_INPUTS}
        if joined and _completion_tokens(joined[-1]) < least:
            joined[-1] = _stacked(joined[-1], piece)
        else:
            joined.append(piece)
    if len(joined) > 1 and _completion_tokens(joined[-1]) < least:
        joined[-2:] = [_stacked(joined[-2], joined[-1])]
    count = _completion_tokens(joined[-1]) if joined else 0
    if count < least:
        raise InputError(f"eva: the forget set has {count} completion tokens; the rank asks for at least {least}.")
    return joined


def _completion_tokens(batch: Batch) -> int:
    return int((batch["labels"] != NOT_SCORED).sum())


def _stacked(first: Batch, second: Batch) -> dict[str, Tensor]:
    length = max(first["labels"].shape[1], second["labels"].shape[1])
    return {
        key: torch.cat([F.pad(part[key], (0, length - part[key].shape[1]), value=fill) for part in (first, second)])
        for key, fill in PADDING.items()
    }
