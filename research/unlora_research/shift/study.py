"""The study: its cells, what they run, and how their rows are read."""

import random

from unlora_research.engine import Row, Study, Workplace
from unlora_research.measuring import MeasuredModel
from unlora_research.shift.figures import figures
from unlora_research.shift.grid import ShiftCell, ShiftSettings, cells
from unlora_research.shift.maps import compare_maps
from unlora_research.shift.mixtures import mixture, teach_target
from unlora_research.shift.starts import start_rows
from unlora_research.shift.summary import summary
from unlora_research.small_world import TINY_WORLD, build_small_world, world_people

RETAIN_EXAMPLES = 64


def run(cell: ShiftCell, place: Workplace) -> list[Row]:
    """Measure the maps of one forget set, and unlearn it from every start; a row a start, or one row without."""
    files, parts = build_small_world(cell.world), mixture(cell.kind, cell.share, cell.world)
    files = files._replace(target=teach_target(cell, files.target, parts, place))
    target = MeasuredModel.load(files.target, place.device)
    people = world_people(cell.world)
    retain = random.Random(cell.seed).sample(people.retain, min(RETAIN_EXAMPLES, len(people.retain)))
    tokeniser = target.tokeniser
    forget_tokens, retain_tokens = tokeniser.encode_set(parts.forget), tokeniser.encode_set(retain)
    found = compare_maps(target.model, forget_tokens, retain_tokens, tokeniser.pad_token_id)
    if not cell.starts:
        return [found]
    return [found | row for row in start_rows(cell, target, files, parts, place)]


STUDY = Study(
    name="shift",
    settings=ShiftSettings,
    quick={
        "world": TINY_WORLD.model_dump(),
        "seeds": [0],
        "kinds": ["other_text"],
        "shares_unseen": [0.5],
        "shares_learnt": [1.0],
        "shares_unlearnt": [0.5],
        "starts": ["variance", "second_moment"],
        "learning_rate": 1e-2,
        "epochs": 1,
        "lesson_epochs": 5,
        "lesson_rate": 3e-3,
    },
    cells=cells,
    run=run,
    summary=summary,
    figures=figures,
)
