"""Importance as the released VILA and FILA code measures it: for comparison, never the default.

For a batch b of n_b labels let g_b be the gradient of the mean loss over all its tokens. Over E passes,

    S1 = sum n_b g_b,    S2 = sum n_b g_b^2,    N = sum n_b,

and the map holds, for each set,

    VILA (arXiv 2508.21300)   V = max(0, S2 / N - (S1 / N)^2) of a LoRA pair that stands in the network: what is
                              measured is W + s B A with both factors N(0, sigma^2), another model than the target;
    FILA (arXiv 2408.06621)   S2 of every base weight, divided by nothing.

What becomes of them is in `unlora.starts.published_factors`. `estimate_importance` measures the intact model instead.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.errors import InputError
from unlora.importance.accumulate import Batch
from unlora.importance.arithmetic import AccumulatorDtype, PublishedArithmetic
from unlora.importance.batch_sums import BatchSums, Leaf, LeafGradients
from unlora.importance.hooks import LEAVE_OUT, measuring
from unlora.importance.importance_map import (
    ImportanceMap,
    ImportanceMetadata,
    ModuleImportance,
    SetCounts,
    SetImportance,
    set_importance,
)
from unlora.importance.spaces import virtual_factors
from unlora.losses.log_probs import NOT_SCORED, Predictions
from unlora.models.choose import targets_of
from unlora.models.dequantise import is_rounded
from unlora.models.fingerprint import fingerprint
from unlora.models.scored import scored_logits
from unlora.models.target_modules import TargetModule
from unlora.shapes import LoraA, LoraB

PublishedSpace = Literal["lora_factors", "full_weights"]

FIELDS: dict[PublishedSpace, tuple[str, ...]] = {"lora_factors": ("lora_b", "lora_a"), "full_weights": ("values",)}


class Probe(NamedTuple):
    """The LoRA pair of one module while it is measured."""

    lora_b: LoraB
    lora_a: LoraA


def estimate_published_importance(
    model: PreTrainedModel,
    forget: Sequence[TokenisedExample],
    retain: Sequence[TokenisedExample],
    *,
    space: PublishedSpace,
    pad_token_id: int,
    target_modules: Sequence[str] | None = None,
    rank: int = 8,
    scaling: float = 2.0,
    probe_std: float = 0.05,
    passes: int = 10,
    batch_size: int = 4,
    accumulator_dtype: AccumulatorDtype = "gradient",
    seed: int = 0,
    data_sha256: tuple[str | None, str | None] = (None, None),
    model_fingerprint: str | None = None,
    progress: Callable[[int], None] | None = None,
) -> ImportanceMap:
    """Measure importance with the arithmetic of the released code.

    The model is left as it was; while VILA's is measured, it computes W + s B A.

    Args:
        model: a causal language model; dropout is switched off while it is measured.
        forget: examples of the forget set.
        retain: examples of the retain set; every step draws from all of them, with replacement.
        space: "lora_factors" (VILA) or "full_weights" (FILA).
        pad_token_id: fills short rows.
        target_modules: names or patterns; by default every linear layer that can have an adapter of that rank.
        rank: of the inserted factors (lora_factors only, as are scaling and probe_std).
        scaling: s = alpha / rank.
        probe_std: sigma of both factors; here it decides which network is measured.
        passes: E.
        batch_size: forget examples of a batch.
        accumulator_dtype: of S1 and S2. "gradient", as released, takes the gradient's format, which is the model's.
        seed: of the factors, the order of the forget set and the retain draws.
        data_sha256: content hashes of the two sets, recorded.
        model_fingerprint: `fingerprint(model)`, where it is known: it takes a pass over the weights.
        progress: called with the number of examples of each finished step, both sets together.

    Returns:
        A map whose metadata carry `published`. Its counts are distinct examples, distinct batches (the forget set's
        repeat, the retain set's are drawn anew) and the labels of all passes: N.

    Raises:
        InputError: an empty set, a forget set of a single batch (its variance is zero), no pass, no target module, or
            one that takes no part in the loss.
    """
    _refuse_sizes(len(forget), len(retain), space, passes, batch_size)
    targets = targets_of(model, target_modules, rank=rank)
    of_lora = space == "lora_factors"
    probes = {}
    if of_lora:
        probes = make_probes(targets, rank=rank, probe_std=probe_std, seed=seed, dtype_of_rounded=model.dtype)
    leaves = _leaves(targets, probes)
    dtype = next(iter(leaves.values())).dtype if accumulator_dtype == "gradient" else getattr(torch, accumulator_dtype)
    forget_sums, retain_sums = (BatchSums(dtype, centred=of_lora) for _ in range(2))
    drawn: set[int] = set()
    with ExitStack() as stack:
        stack.enter_context(measuring(model))
        stack.enter_context(inserted(targets, probes, scaling))
        gradients = stack.enter_context(LeafGradients(leaves).attached())
        for forget_rows, retain_rows in paired_rows(len(forget), len(retain), passes, batch_size, seed):
            for sums, examples, rows in ((forget_sums, forget, forget_rows), (retain_sums, retain, retain_rows)):
                batch = collate([examples[row] for row in rows], pad_token_id)
                label_count = int((batch["labels"] != NOT_SCORED).sum())
                sums.label_count += label_count
                loss = token_mean_loss(model, {key: value.to(model.device) for key, value in batch.items()})
                gradients.backward(loss, partial(sums.add, label_count=label_count))
            drawn.update(retain_rows)
            if progress is not None:
                progress(len(forget_rows) + len(retain_rows))
    batch_count = -(-len(forget) // batch_size)
    metadata = ImportanceMetadata(
        statistic="variance" if of_lora else "second_moment",
        space=space,
        gradient_unit="batch",
        reduction="token_mean_of_batch",
        rank=rank if of_lora else None,
        probe_std=probe_std if of_lora else None,
        seed=seed,
        model_fingerprint=model_fingerprint or fingerprint(model),
        module_shapes={target.name: (target.d_out, target.d_in) for target in targets.values()},
        forget=_counts(len(forget), batch_count, forget_sums, data_sha256[0]),
        retain=_counts(len(drawn), passes * batch_count, retain_sums, data_sha256[1]),
        published=PublishedArithmetic(
            passes=passes,
            batch_size=batch_size,
            scaling=scaling if of_lora else None,
            accumulator_dtype=str(dtype).removeprefix("torch."),
        ),
    )
    modules = {
        name: ModuleImportance(_record(space, target, forget_sums), _record(space, target, retain_sums))
        for name, target in targets.items()
    }
    return ImportanceMap(modules, metadata)


def paired_rows(
    forget_count: int, retain_count: int, passes: int, batch_size: int, seed: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Yield the forget and the retain rows of every step.

    The forget set is shuffled once and falls into the same batches in every pass. Forget row k brings the retain row
    (k + u) mod retain_count along, with a new u, uniform over the retain set, in every pass.
    """
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(forget_count, generator=generator).tolist()
    for _ in range(passes):
        for start in range(0, forget_count, batch_size):
            rows = order[start : start + batch_size]
            draws = torch.randint(retain_count, (len(rows),), generator=generator).tolist()
            yield rows, [(row + draw) % retain_count for row, draw in zip(rows, draws, strict=True)]


def make_probes(
    targets: Mapping[str, TargetModule],
    *,
    rank: int,
    probe_std: float,
    seed: int,
    dtype_of_rounded: torch.dtype = torch.float32,
) -> dict[str, Probe]:
    """Draw B (d_out, rank), A (rank, d_in) of every module, all entries N(0, probe_std^2), in its weight's format.

    A weight in 4 or 8 bits has none that could learn; its probe is in `dtype_of_rounded`, the format of its inputs.

    Raises:
        InputError: no column, or no spread.
    """
    probes = {}
    for name, target in targets.items():
        lora_a, lora_b = virtual_factors(name, target.d_out, target.d_in, rank=rank, probe_std=probe_std, seed=seed)
        weight = target.module.get_parameter("weight")
        like = {"device": weight.device, "dtype": dtype_of_rounded if is_rounded(target.module) else weight.dtype}
        probes[name] = Probe(lora_b.to(**like), lora_a.to(**like))
    return probes


@contextmanager
def inserted(targets: Mapping[str, TargetModule], probes: Mapping[str, Probe], scaling: float) -> Iterator[None]:
    """Let each module with a probe compute W x + s B (A x); no weight is written, and the hooks go on every way out."""

    def hook(probe: Probe) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], Tensor]:
        def add(_module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
            return output + scaling * (inputs[0] @ probe.lora_a.T @ probe.lora_b.T)

        return add

    with ExitStack() as stack:
        for name, probe in probes.items():
            stack.callback(targets[name].module.register_forward_hook(hook(probe)).remove)
        yield


def token_mean_loss(model: PreTrainedModel, batch: Batch) -> Float[Tensor, ""]:
    """Mean negative log-likelihood over all scored tokens of the batch: long examples weigh more than short ones."""
    predictions = Predictions.from_scored(scored_logits(model, batch), batch["labels"])
    return -predictions.token_log_probs().sum() / predictions.token_counts.sum()


def _refuse_sizes(forget_count: int, retain_count: int, space: PublishedSpace, passes: int, batch_size: int) -> None:
    if passes < 1 or batch_size < 1:
        raise InputError(f"importance: passes {passes} and batch_size {batch_size} must both be positive.")
    for name, count in (("forget", forget_count), ("retain", retain_count)):
        if count == 0:
            raise InputError(f"the {name} set has no example; nothing can be measured.")
    if space == "lora_factors" and forget_count <= batch_size:
        raise InputError(
            f"the forget set makes a single batch ({forget_count} examples, batch size {batch_size}) and the variance "
            "of batch gradients needs two: take a smaller batch."
        )


def _leaves(targets: Mapping[str, TargetModule], probes: Mapping[str, Probe]) -> dict[Leaf, Tensor]:
    """What the gradient is taken of: the probes' factors, or the weights where there are no probes."""
    if not probes:
        return {(name, "values"): target.leaf_weight() for name, target in targets.items()}
    return {(name, field): tensor for name, probe in probes.items() for field, tensor in probe._asdict().items()}


def _record(space: PublishedSpace, target: TargetModule, sums: BatchSums) -> SetImportance:
    try:
        tensors = {field: sums.read((target.name, field)) for field in FIELDS[space]}
    except KeyError:
        raise InputError(f"target module '{target.name}' took no part in the loss; {LEAVE_OUT}.") from None
    if space == "full_weights" and target.transposed:
        tensors["values"] = tensors["values"].T.contiguous()
    return set_importance(space, tensors)


def _counts(example_count: int, sample_count: int, sums: BatchSums, sha256: str | None) -> SetCounts:
    return SetCounts(
        example_count=example_count,
        token_count=sums.label_count,
        unscored_count=0,
        data_sha256=sha256,
        sample_count=sample_count,
    )
