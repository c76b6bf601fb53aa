"""What a trial is chosen by and what it is reported with: every other question of the forget and of the retain set."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unlora.artifacts import read_json_object
from unlora.data.long_text import document_count
from unlora.errors import InputError
from unlora.run.settings import UnlearnSettings
from unlora.suites.scores import ModelScores
from unlora.suites.tofu.scores import TOFU_FILE, ExampleScore

PARTS = {"validation": 0, "held_out": 1}
"""Every other document of a set, from the first or from the second."""


class PartResult(NamedTuple):
    """One model on one part."""

    forget_probability: float
    """Mean over the part's forget examples of the geometric mean of an answer's token probabilities."""
    level: float
    """The same of a model that never knew."""
    distance: float
    """|forget_probability - level|."""
    retain_probability: float
    kept: float
    """retain_probability over the target's."""
    balance: float
    """Harmonic mean of the share of the way to the level, from the target's, and of what is kept; 1 is best."""


def measure_parts(run: Path, settings: UnlearnSettings) -> dict[str, PartResult]:
    """Read the scores of a finished run.

    Args:
        run: its folder.
        settings: of the run, whose retain-only model is the level where there is one; else it is what the run aimed at.

    Raises:
        InputError: there is no level, the scores of the retain-only model lack a question, or a part is empty.
    """
    scores = {role: TOFU_FILE.load(run / "scores" / f"{role}.jsonl") for role in ("target", "unlearned")}
    reference = _reference(run, settings)
    level = reference if reference is not None else _level_of(run)
    return {name: _measure(scores, level, which) for name, which in PARTS.items()}


def _reference(run: Path, settings: UnlearnSettings) -> dict[Any, float] | None:
    """Forget probability of the retain-only model by question; None without one."""
    name = settings.evaluation.retain_only
    if name is None:
        return None
    file = Path(name) if Path(name).suffix == ".jsonl" else run / "scores" / "retain_only.jsonl"
    return {one.identity: one.probability for one in TOFU_FILE.load(file).sets.get("forget", ())}


def _level_of(run: Path) -> float:
    level = read_json_object(run / "record.json").get("level")
    if level is None:
        raise InputError(
            "level.aim: found no level to measure the distance from; set evaluation.retain_only to a model that never "
            "saw the forget set, or level.aim to a probability."
        )
    return float(level["level"]["probability"])


def _measure(
    scores: Mapping[str, ModelScores[ExampleScore]], level: Mapping[Any, float] | float, which: int
) -> PartResult:
    forget = {role: part_of(one.sets["forget"], which) for role, one in scores.items()}
    retain = {role: part_of(one.sets["retain"], which) for role, one in scores.items()}
    if isinstance(level, Mapping):
        lacking = [one.source for one in forget["unlearned"] if one.identity not in level]
        if lacking:
            raise InputError(f"evaluation.retain_only: has no score of {lacking[0]}; score that model again.")
        aim = mean_scored([level[one.identity] for one in forget["unlearned"]])
    else:
        aim = level
    known = {role: mean_scored([one.probability for one in examples]) for role, examples in forget.items()}
    kept = {role: mean_scored([one.probability for one in examples]) for role, examples in retain.items()}
    distance, way, share = (
        abs(known["unlearned"] - aim),
        abs(known["target"] - aim),
        kept["unlearned"] / kept["target"] if kept["target"] > 0 else 0.0,
    )
    return PartResult(known["unlearned"], aim, distance, kept["unlearned"], share, balance(distance, way, share))


def balance(distance: float, way: float, kept: float) -> float:
    """Harmonic mean of 1 - distance / way and of `kept`, both cut off at 0 and 1."""
    reached = min(max(1 - distance / way, 0.0), 1.0) if way > 0 else float(distance == 0)
    kept = min(max(kept, 0.0), 1.0)
    return 2 * reached * kept / (reached + kept) if reached + kept > 0 else 0.0


def part_of(examples: Sequence[ExampleScore], which: int) -> list[ExampleScore]:
    """Every other document; the pieces of a long text stay together."""
    kept, documents = [], 0
    for one in examples:
        documents += document_count([one.source])
        if (documents - 1) % 2 == which:
            kept.append(one)
    return kept


def mean_scored(values: Sequence[float]) -> float:
    """Mean of what was scored.

    Raises:
        InputError: nothing was.
    """
    scored = [value for value in values if not math.isnan(value)]
    if not scored:
        raise InputError("evaluation: a part of the questions has no answer that can be scored; give more of them.")
    return sum(scored) / len(scored)
