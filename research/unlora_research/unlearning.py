"""Cells that unlearn: one run of `unlora unlearn` for each learning rate, measured on two halves of the questions."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas

from unlora.artifacts import read_json
from unlora.errors import TrainingDivergedError
from unlora.recipes.unlearn import unlearn
from unlora.run.presets import laid_over
from unlora.run.settings import UnlearnSettings
from unlora.suites.tofu.scores import TOFU_FILE
from unlora.training.callbacks import read_train_log
from unlora_research.engine import Row, Workplace
from unlora_research.halves import HalfResult, balance, half_result
from unlora_research.recipe import recipe
from unlora_research.small_world import SmallWorldFiles

MODELS = ("target", "unlearned", "retain_only")
HALVES = {"validation": 0, "test": 1}


def small_world_run(world: SmallWorldFiles, device: str, *, epochs: int | None) -> dict[str, Any]:
    """Settings of a run in a small world: forget, evaluated on people whom no run trains on; no epochs as below."""
    return {
        "model": {"name": str(world.target), "device": device, "dtype": "float32"},
        "data": {"forget": str(world.forget), "retain": str(world.retain), "template": "plain"},
        "training": {"save_steps": 1000, **({"epochs": epochs} if epochs is not None else {})},
        "evaluation": {
            "forget": str(world.forget),
            "retain": str(world.held_out),
            "retain_only": str(world.retain_only),
            "max_new_tokens": 1,
        },
    }


def tofu_mini_run(folder: Path, device: str, *, epochs: int | None) -> dict[str, Any]:
    """Settings of a run on SmolLM2.

    Args:
        folder: holds target/ and retain_only/ (adapters on the embedded model), forget_perturbed.jsonl, retain.jsonl,
            and held_out.jsonl, questions that the target knows and no run trains on.
        device: cpu or a GPU.
        epochs: of training; None is what the preset says.
    """
    return {
        "model": {"name": str(folder / "target"), "base": "embedded", "device": device, "dtype": "float32"},
        "data": {
            "forget": str(folder / "forget_perturbed.jsonl"),
            "retain": str(folder / "retain.jsonl"),
            "template": "plain",
        },
        "training": {"save_steps": 1000, **({"epochs": epochs} if epochs is not None else {})},
        "evaluation": {
            "forget": str(folder / "forget_perturbed.jsonl"),
            "retain": str(folder / "held_out.jsonl"),
            "retain_only": str(folder / "retain_only"),
            "retain_only_base": "embedded",
            "max_new_tokens": 1,
        },
    }


def unlearn_at_rates(
    base: Mapping[str, Any],
    preset_name: str,
    changes: Mapping[str, Any],
    rates: Sequence[float],
    seed: int,
    place: Workplace,
) -> list[Row]:
    """Unlearn once for each learning rate from one start; a row each.

    Args:
        base: settings of the run: model, data, evaluation, training.
        preset_name: what it starts from.
        changes: laid over preset and base.
        rates: learning rates.
        seed: of the runs.
        place: the cell's folder; runs lie in it under their rates.

    Returns:
        Columns learning_rate, diverged, what `training_row` reads, {validation, test}_{metric of HalfResult, kept,
        balance}, and forget_probability of target and retain-only model on the test half. A run that diverged has
        no results.
    """
    rows: list[Row] = []
    measured: Path | None = None
    for rate in rates:
        run = place.folder / f"lr{rate:g}"
        searched: dict[str, Any] = {"training": {"learning_rate": rate}, "seed": seed}
        if measured is not None:
            searched["start"] = {"file": str(measured)}  # The start is the same: it is measured once.
        diverged = not unlearn_from(preset_name, run, base, changes, searched)
        row: Row = {"learning_rate": rate, "diverged": diverged}
        if not diverged:
            row |= training_row(run) | halves_row(run)
        rows.append(row)
        if measured is None and (run / "importance.safetensors").is_file():
            measured = run / "importance.safetensors"
    return rows


def unlearn_from(preset_name: str, run: Path, *changes: Mapping[str, Any]) -> bool:
    """Unlearn into the folder `run`, with changes laid over the preset one after the other; False if it diverged."""
    values = recipe(preset_name)
    for more in changes:
        values = laid_over(values, dict(more))
    try:
        unlearn(UnlearnSettings.from_mapping(values, where=preset_name), run)
    except TrainingDivergedError:
        return False
    return True


def training_row(run: Path) -> Row:
    """How training went: the gradient's norm before clipping, and where both terms ended."""
    log = read_train_log(run / "train_log.jsonl")
    norms = [step["grad_norm"] for step in log]
    last = log[-max(len(log) // 10, 1) :]
    stages = read_json(run / "record.json")["stages"]
    return {
        "steps": len(log),
        "first_gradient_norm": norms[0],
        "largest_gradient_norm": max(norms),
        "final_forget_term": sum(step["forget_term"] for step in last) / len(last),
        "final_retain_term": sum(step["retain_term"] for step in last) / len(last),
        "importance_seconds": stages.get("importance", {}).get("seconds"),
        "training_seconds": stages["training"]["seconds"],
    }


def halves_row(run: Path) -> Row:
    """The unlearned model on both halves of the questions."""
    scores = {name: TOFU_FILE.load(run / "scores" / f"{name}.jsonl") for name in MODELS}
    row: Row = {}
    for half, which in HALVES.items():
        found = {name: half_result(one, scores["retain_only"], which) for name, one in scores.items()}
        row |= {f"{half}_{name}": value for name, value in found["unlearned"]._asdict().items()}
        row[f"{half}_kept"] = found["unlearned"].retain_probability / found["target"].retain_probability
        row[f"{half}_balance"] = balance(found["unlearned"], found["target"], found["retain_only"])
        if half == "test":
            row |= _known("target", found["target"]) | _known("retain_only", found["retain_only"])
    return row


def _known(name: str, result: HalfResult) -> Row:
    return {f"{name}_{metric}": value for metric, value in result._asdict().items()}


def best_rates(table: pandas.DataFrame, by: Sequence[str]) -> pandas.DataFrame:
    """The rows at the learning rate that did best on the validation half, averaged over seeds, for each group `by`.

    A rate at which a run diverged counts as a balance of nought there: a rate that fails on one seed of three is no
    choice to make.
    """
    scored = table.assign(validation_balance=table["validation_balance"].fillna(0.0))
    means = scored.groupby([*by, "learning_rate"], sort=False)["validation_balance"].mean().reset_index()
    chosen = means.loc[means.groupby(list(by), sort=False)["validation_balance"].idxmax(), [*by, "learning_rate"]]
    return table.merge(chosen, on=[*by, "learning_rate"])
