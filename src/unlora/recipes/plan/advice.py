"""Whether a run fits where it is to go, how long it may take there, and which settings would change that."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from unlora.recipes.plan.batches import RunData
from unlora.recipes.plan.cost import RunPlan, make_plan
from unlora.run.input_settings import ModelSettings
from unlora.run.number_format import number_format
from unlora.run.presets import laid_over
from unlora.run.settings import UnlearnSettings
from unlora.run.starting import chosen_start
from unlora.runtime import free_memory, resolve_device

WORTH_SAYING = 0.97
"""A change that leaves more of the peak than this is not advised."""
SECTIONS = {"importance": "start", "training": "training"}
"""Stage -> section of its settings."""
REACHED_SHARE = 0.2
"""Of the rate of matrix products, what training reaches at least."""


@dataclass(frozen=True)
class Advice:
    """Settings, each on top of those before, and the peak that they lead to."""

    changes: tuple[str, ...]
    """As after --set."""
    peak: int


@dataclass(frozen=True)
class PlanVerdict:
    """A plan against a machine."""

    needed: int
    """Bytes of one device; on a CPU of all processes together."""
    available: int
    seconds: tuple[float, float]
    """Bounds of the time on these devices."""
    advice: tuple[Advice, ...]
    """Empty where it fits, or where no setting helps."""

    @property
    def fits(self) -> bool:
        """Whether it does."""
        return self.needed <= self.available


def judge_plan(
    settings: UnlearnSettings, reading: RunData, plan: RunPlan, *, available: int | None, flops_a_second: float
) -> PlanVerdict:
    """Compare a plan with a device.

    Args:
        settings: of the plan.
        reading: of the plan.
        plan: what is to be judged.
        available: bytes of one device; None takes what is free on this one.
        flops_a_second: of one device.
    """
    device = resolve_device(settings.model.device)
    available = available if available is not None else free_memory(device)
    # Processes on a CPU share its memory.
    share = plan.devices if device.type == "cpu" else 1
    fastest = (plan.importance_flops + plan.training_flops) / flops_a_second / plan.devices
    return PlanVerdict(
        needed=share * plan.peak,
        available=available,
        seconds=(fastest, fastest / REACHED_SHARE),
        advice=_advise(settings, reading, plan, enough=available // share),
    )


def _advise(settings: UnlearnSettings, reading: RunData, plan: RunPlan, *, enough: int) -> tuple[Advice, ...]:
    """Changes in the order of what they cost, only those that lower the stage that needs most, until it fits."""
    values, remaining, found, said = settings.model_dump(mode="json"), _changes(settings), list[Advice](), ()
    while plan.peak > enough:
        stage = plan.peak_stage
        for change in remaining:
            ((section, entries),) = change.items()
            if section not in (SECTIONS[stage], "model"):
                continue
            changed = laid_over(values, change)
            lower = make_plan(UnlearnSettings.from_mapping(changed, where="plan"), reading, devices=plan.devices)
            if sum(lower.memory[stage].values()) <= WORTH_SAYING * plan.peak:
                break
        else:
            break
        remaining = [one for one in remaining if one is not change]
        if "kind" in entries:  # Another start: what was set for the one before goes with it.
            said = tuple(one for one in said if not one.startswith(f"{section}."))
        said = (*said, *(f"{section}.{key}={str(value).lower()}" for key, value in entries.items()))
        values, plan = changed, lower
        found.append(Advice(said, plan.peak))
    return tuple(found)


def _changes(settings: UnlearnSettings) -> list[dict[str, dict[str, Any]]]:
    """What can lower a peak: what costs time alone, then what rounds weights, then another statistic."""
    training, start = settings.training, chosen_start(settings)
    cheaper = start.cheaper()
    together = training.batch_size * training.gradient_accumulation_steps
    changes: list[dict[str, dict[str, Any]]] = [{"training": {"gradient_checkpointing": True}}]
    changes += [{"start": one} for one in cheaper if "kind" not in one]
    changes.append({"training": {"batch_size": 1, "gradient_accumulation_steps": together}})
    changes.append({"model": {"dtype": "bfloat16"}})
    if start.reads_rounded:
        changes.append({"model": {"quantisation": "4bit"}})
    changes += [{"start": one} for one in cheaper if "kind" in one]
    return changes


def measured_rate(settings: ModelSettings, *, seconds: float = 0.5) -> float:
    """Floating-point operations a second of square matrix products on this device, in the run's number format."""
    device = resolve_device(settings.device)
    dtype = number_format(settings, device)
    width = 512 if device.type == "cpu" else 4096
    left = torch.randn(width, width, device=device, dtype=dtype)
    float((left @ left)[0, 0])  # warms up, and waits for the device
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        product = left @ left
        float(product[0, 0])
        count += 1
    return count * 2 * width**3 / (time.perf_counter() - start)
