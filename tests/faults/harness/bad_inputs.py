"""Runs the inputs of some areas, one after another, and counts how they ended."""

import json
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.faults.harness.areas import AREAS, NEEDS, cases
from tests.faults.harness.child import finish, judge_result, make_world, prepare_server, run_case, start
from tests.faults.harness.verdict import KINDS, judge
from tests.faults.harness.world import World


@dataclass(frozen=True)
class Outcome:
    """What became of one input."""

    area: str
    name: str
    kind: str
    what: str
    """What is wrong; empty where nothing is."""
    code: int | None
    seconds: float


def chosen(areas: Sequence[str], only: Sequence[str], sample: int | None, seed: int) -> list[tuple[str, str]]:
    """Area and name of the inputs to run; of a sample, as many of every area as there are places."""
    found = {area: [name for name in cases(area) if matches(f"{area}/{name}", only)] for area in areas}
    if sample is None:
        return [(area, name) for area, names in found.items() for name in names]
    chance = random.Random(seed)
    queues = [[(area, name) for name in chance.sample(names, len(names))] for area, names in found.items()]
    ordered = [queue[turn] for turn in range(max(map(len, queues))) for queue in queues if turn < len(queue)]
    return ordered[:sample]


def matches(name: str, only: Sequence[str]) -> bool:
    """Whether one of the texts is in the name, or there is none."""
    return not only or any(text in name for text in only)


def run_inputs(
    chosen: Sequence[tuple[str, str]], tell: Callable[[Outcome], None], kept: Path | None = None
) -> list[Outcome]:
    """Run them in a folder that is removed at the end; the world is made there, or in `kept`, and used again."""
    prepare_server()
    with tempfile.TemporaryDirectory(prefix="unlora-inputs-", ignore_cleanup_errors=True) as folder:
        areas = dict(chosen)
        world = make_world(kept or Path(folder), dict.fromkeys(part for area in areas for part in NEEDS[area]))
        found: list[Outcome] = []
        for number, (area, name) in enumerate(chosen):
            place = Path(folder) / "cases" / str(number)
            place.mkdir(parents=True)
            try:
                found.append(run_one(area, name, place, world))
            except KeyboardInterrupt:
                break
            tell(found[-1])
            shutil.rmtree(place, ignore_errors=True)
    return found


def run_one(area: str, name: str, place: Path, world: World) -> Outcome:
    """Run an input, judge its end, and check the result if it worked."""
    case = cases(area)[name]
    ended = run_case(area, name, place, world, case.wall)
    kind, what = judge(case, ended)
    if kind == "ok" and ended.code == 0 and case.right.check is not None:
        code, error = finish(start(judge_result, area, name, place, world), place, 300)
        judged = place / "judged.json"
        wrong = json.loads(judged.read_text()) if judged.is_file() else f"the check failed ({code}): {error[-300:]}"
        kind, what = ("wrong", wrong) if wrong else (kind, what)
    return Outcome(area, name, kind, what, ended.code, round(ended.seconds, 2))


def result_table(outcomes: Sequence[Outcome]) -> str:
    """Areas with how many inputs ended how, as a table in Markdown."""
    rows = [["area", "tried", *KINDS], ["---"] * (len(KINDS) + 2)]
    for area, title in AREAS.items():
        kinds = Counter(one.kind for one in outcomes if one.area == area)
        if kinds:
            rows.append([title, str(kinds.total()), *(str(kinds[kind]) for kind in KINDS)])
    kinds = Counter(one.kind for one in outcomes)
    rows.append(["**all**", *(f"**{count}**" for count in (kinds.total(), *(kinds[kind] for kind in KINDS)))])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def write_outcomes(outcomes: Sequence[Outcome], file: Path) -> None:
    """All outcomes as JSON."""
    file.write_text(json.dumps([asdict(one) for one in outcomes], indent=1, ensure_ascii=False) + "\n")


def acceptable(outcomes: Sequence[Outcome]) -> bool:
    """No traceback, wrong result, hang or kill, and less than one in a hundred unclear."""
    kinds = Counter(one.kind for one in outcomes)
    return kinds["ok"] + kinds["unclear"] == len(outcomes) and kinds["unclear"] < max(1, len(outcomes) / 100)
