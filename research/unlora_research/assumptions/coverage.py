"""Unlearning from VILA's importance with an adapter in all layers, in the most important ones, or in any as many."""

import random
from pathlib import Path
from typing import Any

import torch

from unlora.importance import ImportanceMap, most_important_modules
from unlora.models.load import load_model
from unlora.models.target_modules import find_target_modules
from unlora_research.assumptions.grid import COVERAGE, RANK, SCALING, AssumptionsCell
from unlora_research.assumptions.layers import short_name
from unlora_research.engine import Row, Workplace
from unlora_research.small_world import build_small_world
from unlora_research.unlearning import small_world_run, unlearn_at_rates


def coverage_rows(cell: AssumptionsCell, place: Workplace) -> list[Row]:
    """Unlearn from vila's importance in the layers of the cell; a row a learning rate.

    Columns beside those of `unlearn_at_rates`: chosen (the layers, or "all"), trained_parameters.
    """
    files = build_small_world(cell.world)
    adapter: dict[str, Any] = {"rank": RANK, "alpha": SCALING * RANK}
    if cell.layers == "top":
        adapter["coverage"] = COVERAGE
    if cell.layers == "random":
        adapter["target_modules"] = _random_modules(files.target, cell.seed)
    base = small_world_run(files, place.device, epochs=cell.epochs or 1)
    rows = unlearn_at_rates(base, "vila", {"adapter": adapter}, cell.learning_rates, cell.seed, place)
    importance = ImportanceMap.load(min(place.folder.glob("lr*/importance.safetensors")))
    chosen = most_important_modules(importance, COVERAGE if cell.layers == "top" else 1.0)
    about: Row = {
        "chosen": "all" if cell.layers == "all" else " ".join(short_name(name) for name in chosen),
        "trained_parameters": RANK * sum(sum(importance.metadata.module_shapes[name]) for name in chosen),
    }
    return [row | about for row in rows]


def _random_modules(target: Path, seed: int) -> list[str]:
    names = list(find_target_modules(load_model(str(target), device=torch.device("cpu")).model))
    return random.Random(seed).sample(names, max(1, round(COVERAGE * len(names))))
