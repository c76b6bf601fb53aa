"""Unlearning the whole of a mixture from several starts; what is asked is the part that the target knew."""

import json
from typing import Any

from unlora.adapters.export import load_trained_adapter
from unlora.artifacts import write_text
from unlora.config import merge
from unlora_research.engine import Row, Workplace
from unlora_research.halves import balance
from unlora_research.measuring import MeasuredModel, Questions
from unlora_research.shift.grid import STARTS, ShiftCell
from unlora_research.shift.mixtures import Mixture
from unlora_research.small_world import SmallWorldFiles, world_people
from unlora_research.unlearning import small_world_run, unlearn_from


def start_rows(
    cell: ShiftCell, target: MeasuredModel, files: SmallWorldFiles, parts: Mixture, place: Workplace
) -> list[Row]:
    """Unlearn from every start of the cell; a row each.

    Args:
        cell: starts, and how to train.
        target: the model that is to forget.
        files: where it lies, beside the retain set and the retain-only model.
        parts: the forget set; `kept` alone is asked where the target never saw the rest.
        place: the cell's folder; runs lie in it under their starts.

    Returns:
        Columns target_forget_probability, retain_only_forget_probability, start, diverged, and of a run that did not
        diverge forget_probability, kept and balance.
    """
    tokeniser = target.tokeniser
    questions = Questions(
        tokeniser.encode_set(parts.forget if cell.learnt else parts.kept),
        tokeniser.encode_set(world_people(cell.world).held_out),
        tokeniser.pad_token_id,
    )
    before = questions.ask(target.model)
    retain_only = questions.ask(MeasuredModel.load(files.retain_only, place.device).model)
    about: Row = {
        "target_forget_probability": before.forget_probability,
        "retain_only_forget_probability": retain_only.forget_probability,
    }
    base = _run_settings(cell, files, parts, place)
    rows: list[Row] = []
    for start in cell.starts:
        run = place.folder / start
        diverged = not unlearn_from("marginal", run, base, {"start": STARTS[start]})
        row = about | {"start": start, "diverged": diverged}
        if not diverged:
            plain = MeasuredModel.load(files.target, place.device).model
            unlearned = questions.ask(load_trained_adapter(plain, run / "adapter"))
            row |= {
                "forget_probability": unlearned.forget_probability,
                "kept": unlearned.retain_probability / before.retain_probability,
                "balance": balance(unlearned, before, retain_only),
            }
        rows.append(row)
    return rows


def _run_settings(cell: ShiftCell, files: SmallWorldFiles, parts: Mixture, place: Workplace) -> dict[str, Any]:
    """What every start shares; writes the mixture for it."""
    forget = place.folder / "forget.jsonl"
    lines = [json.dumps({"question": one.prompt, "answer": one.completion}) + "\n" for one in parts.forget]
    write_text(forget, "".join(lines))
    base = small_world_run(files._replace(forget=forget), place.device, epochs=cell.epochs)
    changes = {"training": {"learning_rate": cell.learning_rate}, "seed": cell.seed}
    return merge(base, changes) | {"evaluation": {"skip": True}}
