"""Deletion requests one after another in a ledger, beside the same people forgotten at once.

    python -m unlora_research.requests FOLDER [--seeds 0 1 2] [--quick]

The target of a small world knows everybody; twelve people ask to be forgotten, one request each. The third and the
seventh request are rolled back on the way, the third is added again at the end, so that eleven people are to be
forgotten and one is not any more. Everything aims at one level, an answer probability of 0.1. What came one after
another is then settled: made weaker as a whole, until the eleven are at that level together; and joined: forgotten
anew, all eleven in one request. Started again, it goes on where it stopped.
"""

import argparse
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unlora.adapters.export import load_trained_adapter
from unlora.artifacts import read_json, write_json
from unlora.cli.terminal import echo
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.ledger.book import Ledger
from unlora.models.wrapping import CausalModel
from unlora.recipes.ledger.add import add_request
from unlora.recipes.ledger.begin import begin_ledger
from unlora.recipes.ledger.roll_back import roll_back
from unlora.recipes.ledger.settle import settle_ledger
from unlora.recipes.ledger.verify import verify_ledger
from unlora.run.loading import load
from unlora.run.presets import laid_over
from unlora.run.settings import ModelSettings, UnlearnSettings
from unlora_research.recipe import recipe
from unlora_research.small_world import TINY_WORLD, SmallWorld, SmallWorldFiles, build_small_world, probabilities
from unlora_research.tables import markdown_table, spread
from unlora_research.unlearning import small_world_run

PEOPLE = 12
ROLLED_BACK = {2: 5, 6: 8}
"""Person whose request is taken back -> the person after whose request that is; both counted from 0."""
AGAIN = 2
"""The person whose request is added once more, after all others."""
KEPT_AFTER_ALL = 6
"""The person whose request stays rolled back."""
RATE, EPOCHS, LEVEL = 1e-3, 60, 0.1
"""Of every run; training stops at the level. A request of one person is one batch."""
WORLD = SmallWorld(forget_people=PEOPLE)
QUICK_WORLD = TINY_WORLD.model_copy(update={"people": 24, "forget_people": PEOPLE, "held_out_people": 4})


class Found(NamedTuple):
    """Mean answer probabilities of one model."""

    forgotten: float
    """Of the eleven whose requests are in force."""
    highest: float
    """Of the one among them that is known best."""
    taken_back: float
    """Of the one whose request was rolled back for good."""
    held_out: float
    """Of people whom every model knows and no run trains on."""
    rank: int
    """Of the adapter."""


def main(argv: Sequence[str] | None = None) -> None:
    """Parse, run what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the runs")
    parser.add_argument("--quick", action="store_true", help="on a tiny world")
    options = parser.parse_args(argv)
    world = QUICK_WORLD if options.quick else WORLD
    files = build_small_world(world)
    people = split_people(world, files, options.folder / "people")
    rows = {"target": [measure(None, files.target, files, people)]}
    rows["never saw the twelve"] = [measure(None, files.retain_only, files, people)]
    for name, make in ARMS.items():
        for seed in options.seeds:
            folder = options.folder / f"{_short(name)}-{seed}"
            rows.setdefault(name, []).append(found(make, folder, files, people, seed))
            echo(f"{name}, seed {seed}: {rows[name][-1]}", err=True)
    echo(table(rows))


def split_people(world: SmallWorld, files: SmallWorldFiles, folder: Path) -> list[Path]:
    """Write the records of each person who asks as a file of its own."""
    lines = files.forget.read_text(encoding="utf-8").splitlines(keepends=True)
    size = world.questions_per_person
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"person-{number}.jsonl" for number in range(PEOPLE)]
    for number, path in enumerate(paths):
        path.write_text("".join(lines[number * size : (number + 1) * size]), encoding="utf-8")
    return paths


def found(make: Any, folder: Path, files: SmallWorldFiles, people: list[Path], seed: int) -> Found:
    """Make a ledger or go on with it, and measure its model; what was measured stays."""
    result = folder / "found.json"
    if not result.is_file():
        book: Ledger = make(folder, files, people, seed)
        faults = verify_ledger(book.path).faults
        if faults:
            raise RuntimeError(f"{book.path}: {faults}")
        write_json(result, measure(book, files.target, files, people)._asdict())
    values: Any = read_json(result)
    return Found(**values)


def in_sequence(folder: Path, files: SmallWorldFiles, people: list[Path], seed: int) -> Ledger:
    """A request a person, with roll-backs on the way; each step is one entry, so that what is there is passed over."""
    book = _begun(folder / "requests", files)
    entries: dict[int, int] = {}
    for entry, (step, person) in enumerate(steps(), start=1):
        if entry >= book.next_number:
            if step == "add":
                add_request(book.path, settings(book, files, people[person], seed))
            else:
                roll_back(book.path, entries[person], _model(files))
            book = Ledger(book.path)
        if step == "add":
            entries[person] = entry
    return book


def steps() -> list[tuple[str, int]]:
    """What is done, and for whom."""
    done: list[tuple[str, int]] = []
    for person in range(PEOPLE):
        done.append(("add", person))
        done += [("take back", other) for other, after in ROLLED_BACK.items() if after == person]
    return [*done, ("add", AGAIN)]


def everybody(folder: Path, people: list[Path]) -> Path:
    """One file of the eleven who are to be forgotten in the end."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "everybody.jsonl"
    asking = [path for number, path in enumerate(people) if number != KEPT_AFTER_ALL]
    path.write_text("".join(path.read_text(encoding="utf-8") for path in asking), encoding="utf-8")
    return path


def at_once(folder: Path, files: SmallWorldFiles, people: list[Path], seed: int) -> Ledger:
    """One request of the eleven."""
    everybody_file = everybody(folder, people)
    book = _begun(folder / "requests", files)
    if not book.in_force:
        add_request(book.path, settings(book, files, everybody_file, seed))
    return Ledger(book.path)


def settled(folder: Path, files: SmallWorldFiles, people: list[Path], seed: int) -> Ledger:
    """The ledger of all requests one after another, made weaker until the eleven are at the level together."""
    _, is_new = _copied(folder, files, people, seed)
    if is_new:
        asking = [str(path) for number, path in enumerate(people) if number != KEPT_AFTER_ALL]
        settle_ledger(folder / "requests", asking, _model(files))
    return Ledger(folder / "requests")


def joined(folder: Path, files: SmallWorldFiles, people: list[Path], seed: int) -> Ledger:
    """The ledger of all requests one after another, joined into one: forgotten anew, all eleven at once."""
    book, _ = _copied(folder, files, people, seed)
    if not book.joined:
        add_request(book.path, settings(book, files, everybody(folder, people), seed), join=True)
    return Ledger(book.path)


def _copied(folder: Path, files: SmallWorldFiles, people: list[Path], seed: int) -> tuple[Ledger, bool]:
    """A copy of the ledger of all requests one after another, and whether it was made just now."""
    done = in_sequence(folder.parent / f"{_short(SEQUENCE)}-{seed}", files, people, seed)
    copy = folder / "requests"
    is_new = not copy.is_dir()
    if is_new:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copytree(done.path, copy)
    return Ledger(copy), is_new


SEQUENCE = "one after another"
ARMS = {
    "at once": at_once,
    SEQUENCE: in_sequence,
    f"{SEQUENCE}, then settled": settled,
    f"{SEQUENCE}, then joined": joined,
}


def _short(name: str) -> str:
    return name.replace(",", "").replace(" ", "-")


def _begun(folder: Path, files: SmallWorldFiles) -> Ledger:
    return Ledger(folder) if (folder / "ledger.jsonl").is_file() else begin_ledger(folder, _model(files))


def _model(files: SmallWorldFiles) -> ModelSettings:
    return ModelSettings(name=str(files.target), device="cpu", dtype="float32")


def settings(book: Ledger, files: SmallWorldFiles, forget: Path, seed: int) -> UnlearnSettings:
    """The default preset, aiming at the level."""
    own: Mapping[str, Any] = {
        **small_world_run(files._replace(forget=forget), "cpu", epochs=None),
        "training": {"learning_rate": RATE, "epochs": EPOCHS, "save_steps": 1000},
        "level": {"aim": LEVEL, "stop": True},
        "evaluation": {"skip": True},
        "seed": seed,
    }
    values = laid_over(recipe("default"), dict(own))
    values["model"] = book.model_settings() | {"device": "cpu"}
    return UnlearnSettings.from_mapping(values, where="requests")


def measure(book: Ledger | None, model: Path, files: SmallWorldFiles, people: list[Path]) -> Found:
    """Ask the model of a ledger, or one without any, about everybody."""
    loaded = load(ModelSettings(name=str(model), device="cpu", dtype="float32"))
    composed = book.composed if book is not None else None
    asked: CausalModel = loaded.model
    if book is not None and composed is not None:
        asked = load_trained_adapter(loaded.model, book.path / composed.folder / "adapter")
    tokeniser = ExampleTokeniser(loaded.tokenizer, template="plain", max_length=128)

    def mean(path: Path) -> float:
        values = probabilities(asked, tokeniser.encode_set(load_examples(str(path))), tokeniser.pad_token_id)
        return sum(values) / len(values)

    each = [mean(path) for path in people]
    forgotten = [value for number, value in enumerate(each) if number != KEPT_AFTER_ALL]
    rank = composed.rank if composed is not None else 0
    return Found(sum(forgotten) / len(forgotten), max(forgotten), each[KEPT_AFTER_ALL], mean(files.held_out), rank)


def table(rows: Mapping[str, list[Found]]) -> str:
    """Means over seeds, the smallest and the largest in brackets."""
    headings = ("", "eleven in force", "best known of them", "rolled back for good", "others, held out", "rank")
    lines = []
    for name, values in rows.items():
        columns = zip(*(one[:4] for one in values), strict=True)
        lines.append((name, *(spread(column, 3) for column in columns), str(values[0].rank or "")))
    return markdown_table(headings, lines)


if __name__ == "__main__":
    main()
