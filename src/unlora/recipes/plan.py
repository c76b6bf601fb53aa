"""What a run will take, before anything is loaded: parameters, tokens, steps, memory by part, time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import psutil
import torch

from unlora.adapters.anchored import attach_plain_adapter
from unlora.config import merge
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.importance.contrast_map import SKETCH_COLUMNS
from unlora.models.load import load_tokenizer
from unlora.models.skeleton import Footprint, footprint, load_skeleton
from unlora.models.target_modules import TargetModule, find_target_modules
from unlora.recipes.sets import load_sets
from unlora.recipes.settings import CONTRAST, WEIGHTED, UnlearnSettings
from unlora.recipes.training import make_objective
from unlora.runtime import resolve_device, resolve_dtype

BYTES_A_QUANTISED_WEIGHT = {"4bit": 0.5 + 4 / 64, "8bit": 1.0}
"""Codes, and for nf4 a float32 scale for each block of 64."""
BYTES_A_LOGIT = 16
"""The logit, its log-probability and the gradients of both, in float32."""
MARGIN = 1.3
"""A run of SmolLM2 on a CPU peaked at 1.3 times the sum of the parts: buffers that are freed at once are not in it."""
NO_ANCHOR = ("plain", "contrast_inputs", "eva")
"""Starts with B = 0: the adapter has rank r, not 2r."""


@dataclass(frozen=True)
class Plan:
    """One run; bytes and floating-point operations."""

    parameters: int
    module_count: int
    trained_parameters: int
    adapter_parameters: int
    forget_examples: int
    retain_examples: int
    forget_tokens: int
    retain_tokens: int
    longest: int
    steps: int
    importance_flops: float
    training_flops: float
    importance_memory: dict[str, int] = field(default_factory=dict)
    """Part -> bytes; empty where nothing is measured."""
    training_memory: dict[str, int] = field(default_factory=dict)

    @property
    def peak(self) -> int:
        """Bytes of the stage that needs more."""
        return max(sum(self.importance_memory.values()), sum(self.training_memory.values()))


def make_plan(settings: UnlearnSettings) -> Plan:
    """Read config, tokenizer and data of a run, and add up; no weight is read.

    Raises:
        InputError: as `unlearn` would, as far as settings, data, tokenizer and the model's config are concerned.
    """
    model_settings, rank = settings.model, settings.adapter.rank
    objective = make_objective(settings.objective)
    forget_set, retain_set = load_sets(settings.data)
    trust = model_settings.trust_remote_code
    tokenizer = load_tokenizer(model_settings.name, base=model_settings.base, trust_remote_code=trust)
    data = settings.data
    tokeniser = ExampleTokeniser(tokenizer, template=data.template, max_length=data.max_length, on_long=data.on_long)
    forget = tokeniser.encode_set(forget_set)
    retain = tokeniser.encode_set(retain_set) if retain_set is not None else []
    dtype = resolve_dtype(model_settings.dtype, resolve_device(model_settings.device))
    model = load_skeleton(model_settings.name, base=model_settings.base, dtype=dtype, trust_remote_code=trust)
    targets = find_target_modules(model, settings.adapter.target_modules)
    weights = _weight_bytes(model, targets, model_settings.quantisation)
    parameters = sum(parameter.numel() for parameter in model.parameters())

    halves = 1 if settings.importance.initialisation in NO_ANCHOR else 2
    adapted = attach_plain_adapter(model, targets, rank=rank, alpha=settings.adapter.alpha)
    half = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    trained = sum(rank * target.d_out for target in targets.values()) if settings.adapter.freeze_a else half
    longest = max(len(example.input_ids) for example in (*forget, *retain))
    training, sides = settings.training, 2 if objective.retain is not None else 1
    step = footprint(adapted, sides * training.batch_size, longest)
    measured = min(len(retain), settings.importance.max_retain_examples)
    flops_a_token = step.flops / (sides * training.batch_size * longest)
    vocabulary = int(model.config.vocab_size)
    return Plan(
        parameters=parameters,
        module_count=len(targets),
        trained_parameters=trained,
        adapter_parameters=halves * half,
        forget_examples=len(forget),
        retain_examples=len(retain),
        forget_tokens=_tokens(forget),
        retain_tokens=_tokens(retain),
        longest=longest,
        steps=-(-len(forget) * training.epochs // (training.batch_size * training.gradient_accumulation_steps)),
        importance_flops=flops_a_token * (_tokens(forget) + _mean_tokens(retain) * measured),
        training_flops=flops_a_token
        * training.epochs
        * (_tokens(forget) + (sides - 1) * _mean_tokens(retain) * len(forget)),
        importance_memory=_importance_memory(settings, targets, weights, step, sides),
        training_memory=_process(model_settings.device)
        | {
            "base weights": weights,
            "adapter": 4 * halves * half,
            "gradients and AdamW": 12 * trained,
            "activations": _activations(settings, step, model, sides * training.batch_size * longest),
            "logits": BYTES_A_LOGIT
            * vocabulary
            * sides
            * training.batch_size
            * max(map(_completion, (*forget, *retain))),
        },
    )


def alternatives(settings: UnlearnSettings) -> list[tuple[list[str], int]]:
    """What lowers the peak, each on top of the one before: the --set texts and the peak in bytes."""
    batch = settings.training.batch_size * settings.training.gradient_accumulation_steps
    changes: list[dict[str, Any]] = [
        {"training": {"gradient_checkpointing": True}},
        {"training": {"batch_size": 1, "gradient_accumulation_steps": batch}},
        {"importance": {"batch_size": 1}},
        {"model": {"quantisation": "4bit"}},
    ]
    values, texts, found = settings.model_dump(mode="json"), [], []
    for change in changes:
        values = merge(values, change)
        ((section, entries),) = change.items()
        texts = [*texts, *(f"{section}.{key}={str(value).lower()}" for key, value in entries.items())]
        found.append((texts, make_plan(UnlearnSettings.from_mapping(values, where="plan")).peak))
    return found


def free_memory(device: torch.device) -> int:
    """Bytes that nobody uses on the device."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def matmul_rate(device: torch.device, dtype: torch.dtype, *, seconds: float = 0.5) -> float:
    """Floating-point operations a second of square matrix products, the most that training could reach."""
    width = 512 if device.type == "cpu" else 4096
    left = torch.randn(width, width, device=device, dtype=dtype)
    product = left @ left
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        product = left @ left
        count += 1
    float(product[0, 0])  # waits for the device
    return count * 2 * width**3 / (time.perf_counter() - start)


def _weight_bytes(model: torch.nn.Module, targets: dict[str, TargetModule], quantisation: str | None) -> int:
    linear = sum(target.d_out * target.d_in for target in targets.values())
    rest = sum(int(parameter.nbytes) for parameter in model.parameters())
    if quantisation is None:
        return rest
    size = next(iter(model.parameters())).element_size()
    return round(rest - linear * size + linear * BYTES_A_QUANTISED_WEIGHT[quantisation])


def _activations(settings: UnlearnSettings, step: Footprint, model: Any, tokens: int) -> int:
    if not settings.training.gradient_checkpointing:
        return step.activation_bytes
    layers = model.config.num_hidden_layers
    size = next(iter(model.parameters())).element_size()
    return step.activation_bytes // layers + layers * tokens * model.config.hidden_size * size


def _importance_memory(
    settings: UnlearnSettings, targets: dict[str, TargetModule], weights: int, step: Footprint, sides: int
) -> dict[str, int]:
    chosen = settings.importance
    if chosen.initialisation not in WEIGHTED + CONTRAST:
        return {}
    share = chosen.batch_size / (sides * settings.training.batch_size)
    width = sum(target.d_out + target.d_in for target in targets.values())
    area = sum(target.d_out * target.d_in for target in targets.values())
    if chosen.initialisation in CONTRAST:
        # A sum and a probe of either set; with the inputs alone, the sums of one side and the probes of the other.
        sums = 2 * SKETCH_COLUMNS * width * (1 if chosen.initialisation == "contrast_inputs" else 2)
    else:
        moments = 2 if chosen.statistic == "variance" else 1
        sizes = {"marginals": 2 * width, "lora_factors": settings.adapter.rank * width, "full_weights": area}
        sums = 2 * moments * sizes[chosen.space]
        if chosen.offload != "none":
            sums = 0
    return _process(settings.model.device) | {
        "base weights": weights,
        "statistics": 4 * sums,
        "activations": round(step.activation_bytes * share),
    }


def _process(device: str) -> dict[str, int]:
    """Python and its libraries, which share the memory on a CPU: as large as they are in this process."""
    return {"process": psutil.Process().memory_info().rss} if resolve_device(device).type == "cpu" else {}


def _tokens(examples: Sequence[TokenisedExample]) -> int:
    return sum(len(example.input_ids) for example in examples)


def _mean_tokens(examples: Sequence[TokenisedExample]) -> float:
    return _tokens(examples) / len(examples) if examples else 0.0


def _completion(example: TokenisedExample) -> int:
    return len(example.input_ids) - example.prompt_length
