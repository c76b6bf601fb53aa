"""What a run will take, before anything is loaded: parameters, tokens, steps, memory by part, operations.

Parameters, activations and operations are counted on the model without its weights; batches are the run's own. Memory
is that of one device at the largest batch.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import psutil
from torch import nn
from transformers import PreTrainedModel

from unlora.adapters.anchored import attach_plain_adapter
from unlora.data.tokenise import TokenisedExample
from unlora.importance.expert_taps import keeping
from unlora.importance.hooks import GradientTaps, measuring
from unlora.models.experts import ExpertModule, experts_tensor, find_experts, whole_tensors
from unlora.models.formats import recorded_quantisation
from unlora.models.quantised import Bits
from unlora.models.skeleton import footprint, load_skeleton
from unlora.models.target_modules import TargetModule
from unlora.reach import Reach
from unlora.recipes.plan import arithmetic
from unlora.recipes.plan.batches import RunData, measured_shapes, training_shapes
from unlora.run.level import stops_at_level
from unlora.run.number_format import number_format
from unlora.run.settings import UnlearnSettings
from unlora.run.starting import chosen_start, freezes_a
from unlora.run.targets import choose_targets
from unlora.runtime import resolve_device
from unlora.starts.sizes import FLOAT32, BatchShape, Device, Layers
from unlora.starts.start import Start
from unlora.training.parts import BatchPlan as Reads

BEFORE_ROUTING = "adapter.expert_excess leaves more out, once it is seen where the tokens of both sets are sent."


@dataclass(frozen=True)
class RunPlan:
    """One run, on each of its devices; bytes, and floating-point operations of all devices together."""

    parameters: int
    module_count: int
    trained_parameters: int
    adapter_parameters: int
    """As saved; an anchored adapter holds its start as well."""
    forget_examples: int
    retain_examples: int
    measured_examples: int
    """Of both sets, in the statistics; 0 where nothing is measured."""
    forget_tokens: int
    retain_tokens: int
    trained_tokens: int
    """Of all batches, padding included."""
    longest: int
    steps: int
    to_level: bool
    """Whether training may stop at a level before: steps, tokens and operations of training are then the most."""
    devices: int
    importance_flops: float
    training_flops: float
    importance_memory: dict[str, int]
    """Part -> bytes; empty where nothing is measured."""
    training_memory: dict[str, int]
    importance_file: int
    """Bytes on disk."""
    reach: Reach
    """What of the model the adapter is on, before `adapter.coverage` or `adapter.expert_excess` leaves more out."""

    @property
    def memory(self) -> dict[str, dict[str, int]]:
        """Stage -> part -> bytes."""
        return {"importance": self.importance_memory, "training": self.training_memory}

    @property
    def peak_stage(self) -> str:
        """The stage that needs more."""
        return max(self.memory, key=lambda stage: sum(self.memory[stage].values()))

    @property
    def peak(self) -> int:
        """Bytes of that stage."""
        return sum(self.memory[self.peak_stage].values())

    @property
    def largest_part(self) -> tuple[str, int]:
        """What takes most of it, and how many bytes."""
        parts = self.memory[self.peak_stage]
        return max(parts.items(), key=lambda part: part[1])


class Skeleton(NamedTuple):
    """The model without weights, and what follows from its shapes."""

    model: PreTrainedModel
    targets: dict[str, TargetModule]
    reach: Reach
    layers: Layers
    held: Layers
    """The same with the experts that no adapter is wanted on, but whose tensor has one: PEFT holds factors of all."""
    parameters: int
    weight_bytes: int
    size: int
    """Bytes of a number in the format that is computed in."""
    head: int
    """Weights of the output head."""
    vocabulary: int
    on_cpu: bool
    """Whether the host's memory is the model's."""


def make_plan(settings: UnlearnSettings, reading: RunData, *, devices: int = 1) -> RunPlan:
    """Add up what a run takes; with several devices each holds the whole model and takes its share of each batch.

    Raises:
        InputError: as `unlearn` would, as far as the model's config and the adapter are concerned.
    """
    start = chosen_start(settings)
    skeleton = _skeleton(settings, start)
    measured = list(measured_shapes(start, reading.sets, settings.seed))
    trained = list(training_shapes(settings, reading, devices))
    # Before the adapter is attached.
    importance_memory, importance_flops = _importance(start, settings.adapter.rank, skeleton, measured)
    training_memory, training_flops = _training(settings, start, skeleton, trained, reading)
    layers, held, rank = skeleton.layers, skeleton.held, settings.adapter.rank
    halves = 2 if start.anchored else 1
    retain_tokens = reading.sets.retain_tokens or []
    batches = len(trained) // devices
    return RunPlan(
        parameters=skeleton.parameters,
        module_count=layers.modules,
        trained_parameters=rank * (held.outputs if freezes_a(settings.adapter, start) else held.width),
        adapter_parameters=halves * rank * held.width,
        forget_examples=len(reading.sets.forget_tokens),
        retain_examples=len(retain_tokens),
        measured_examples=sum(batch.rows for batch in measured),
        forget_tokens=_tokens(reading.sets.forget_tokens),
        retain_tokens=_tokens(retain_tokens),
        trained_tokens=sum(batch.tokens for batch in trained),
        longest=max(len(example.input_ids) for example in (*reading.sets.forget_tokens, *retain_tokens)),
        steps=-(-batches // settings.training.gradient_accumulation_steps),
        to_level=stops_at_level(settings),
        devices=devices,
        importance_flops=importance_flops,
        training_flops=training_flops,
        importance_memory=importance_memory,
        training_memory=training_memory,
        importance_file=start.file_bytes(layers, rank, sets=2 if retain_tokens else 1),
        reach=skeleton.reach,
    )


def _skeleton(settings: UnlearnSettings, start: Start) -> Skeleton:
    chosen = settings.model
    device = resolve_device(chosen.device)
    dtype = number_format(chosen, device)
    model = load_skeleton(chosen.name, base=chosen.base, dtype=dtype, trust_remote_code=chosen.trust_remote_code)
    choice = choose_targets(settings.adapter, start, model, settings.objective)
    targets = choice.targets
    quantisation: Bits | None = chosen.quantisation or recorded_quantisation(model.config)
    layers = _layers(targets.values())
    parameters = list(model.parameters())
    text = model.config.get_text_config()
    size = dtype.itemsize
    return Skeleton(
        model=model,
        targets=targets,
        reach=choice.reach if settings.adapter.expert_excess is None else choice.reach.noting(BEFORE_ROUTING),
        layers=layers,
        held=_layers(_held(model, targets)),
        parameters=sum(parameter.numel() for parameter in parameters),
        weight_bytes=arithmetic.weight_bytes(
            sum(int(parameter.nbytes) for parameter in parameters), layers, size, quantisation
        ),
        size=size,
        head=text.vocab_size * text.hidden_size,
        vocabulary=text.vocab_size,
        on_cpu=device.type == "cpu",
    )


def _layers(targets: Collection[TargetModule]) -> Layers:
    areas = [target.d_out * target.d_in for target in targets]
    outputs, inputs = (sum(sides) for sides in zip(*((one.d_out, one.d_in) for one in targets), strict=True))
    return Layers(modules=len(targets), area=sum(areas), outputs=outputs, inputs=inputs, largest=max(areas))


def _held(model: PreTrainedModel, targets: Mapping[str, TargetModule]) -> list[TargetModule]:
    tensors = whole_tensors(targets)
    layers = [target for target in targets.values() if not isinstance(target, ExpertModule)]
    return [*layers, *(one for one in find_experts(model).values() if one.parameter in tensors)]


def _importance(
    start: Start, rank: int, skeleton: Skeleton, batches: Sequence[BatchShape]
) -> tuple[dict[str, int], float]:
    """Memory by part and operations of the importance stage."""
    if not batches:
        return {}, 0.0
    model, layers = skeleton.model, skeleton.layers
    largest = _largest(batches)
    experts = {name: target for name, target in skeleton.targets.items() if isinstance(target, ExpertModule)}
    modules = {name: target.module for name, target in skeleton.targets.items() if name not in experts}
    with measuring(model), GradientTaps(modules, lambda *_: None).attached() as taps, keeping(experts):
        taps.start_batch(largest.rows, largest.length)
        kept, flops = footprint(model, largest.rows, largest.length)
    flops_a_token = flops / largest.tokens
    total = sum(
        arithmetic.pass_flops(flops_a_token, skeleton.head, batch) + start.statistics_flops(layers, batch, rank)
        for batch in batches
    )
    sums = start.statistics_bytes(layers, rank, Device(skeleton.size, is_host=skeleton.on_cpu))
    parts = _process(skeleton) | {
        "base weights": skeleton.weight_bytes,
        "statistics": sums,
        "activations": kept,
        "logits": _logits(batches, skeleton),
    }
    return arithmetic.with_buffers(parts), total


def _training(
    settings: UnlearnSettings, start: Start, skeleton: Skeleton, batches: Sequence[BatchShape], reading: RunData
) -> tuple[dict[str, int], float]:
    """Memory by part and operations of the training stage; attaches the adapter to the skeleton."""
    chosen, layers, rank = settings.training, skeleton.held, settings.adapter.rank
    anchored = start.anchored
    adapted = _adapted(skeleton, rank, 2 if anchored else 1)
    largest = _largest(batches)
    kept, flops = footprint(adapted, largest.rows, largest.length)
    flops_a_token = flops / largest.tokens
    if chosen.gradient_checkpointing:
        config = skeleton.model.config.get_text_config()
        blocks, hidden = config.num_hidden_layers, config.hidden_size
        kept = arithmetic.checkpointed_bytes(kept, blocks, largest.tokens, hidden, skeleton.size)
        flops_a_token *= 1.5  # one more forward pass
    reads = Reads.of(reading.lesson.objective)
    # Of every batch the reference reads a share of the rows, forward only; or each forget example once.
    share = len(reads.compared) / len(reads.parts)
    once = "reference_log_probs" in reading.lesson.objective.forget_term.needs
    policy = sum(arithmetic.pass_flops(flops_a_token, skeleton.head, batch) for batch in batches)
    reference = policy * share / 2 + once * flops_a_token * _tokens(reading.sets.forget_tokens) / 2
    updated = arithmetic.updated_parameters(
        layers, rank, anchored=anchored, freeze_a=freezes_a(settings.adapter, start)
    )
    parts = _process(skeleton) | {
        "base weights": skeleton.weight_bytes,
        "adapter": FLOAT32 * (2 if anchored else 1) * rank * layers.width,
        "gradients and AdamW": arithmetic.BYTES_AN_UPDATED_PARAMETER * updated,
        "activations": kept,
        "logits": _logits(batches, skeleton),
    }
    if area := sum(experts_tensor(held[0]).numel() for held in whole_tensors(skeleton.targets).values()):
        # PEFT adds every expert's update to its weights, and autograd keeps the sum for the backward pass.
        parts["experts with their update"] = skeleton.size * area
    if share:
        parts["reference logits"] = max(
            arithmetic.reference_logit_bytes(batch, skeleton.vocabulary, skeleton.size, share) for batch in batches
        )
    return arithmetic.with_buffers(parts), policy + reference


def _adapted(skeleton: Skeleton, rank: int, halves: int) -> nn.Module:
    """The skeleton with what a backward pass through the adapter needs.

    PEFT adds the update of experts to their weights, in a block that knows no tensor without values: a gradient with
    respect to those weights keeps the same tensors and takes the same products.
    """
    layers = {name: one for name, one in skeleton.targets.items() if not isinstance(one, ExpertModule)}
    adapted: nn.Module = skeleton.model
    if layers:
        adapted = attach_plain_adapter(skeleton.model, layers, rank=rank, alpha=rank, halves=halves)
    for target in skeleton.targets.values():
        if isinstance(target, ExpertModule):
            experts_tensor(target).requires_grad_(True)
    return adapted


def _largest(batches: Iterable[BatchShape]) -> BatchShape:
    """The batch with most positions, made one longer where its length is even: see `footprint`."""
    largest = max(batches, key=lambda batch: batch.tokens)
    return largest._replace(length=largest.length + 1 - largest.length % 2)


def _logits(batches: Iterable[BatchShape], skeleton: Skeleton) -> int:
    return max(arithmetic.logit_bytes(batch, skeleton.vocabulary, skeleton.size) for batch in batches)


def _process(skeleton: Skeleton) -> dict[str, int]:
    """Python and its libraries, which share the memory on a CPU: as large as they are in this process."""
    return {"process": psutil.Process().memory_info().rss} if skeleton.on_cpu else {}


def _tokens(examples: Sequence[TokenisedExample]) -> int:
    return sum(len(example.input_ids) for example in examples)
