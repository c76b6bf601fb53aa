"""A target that is an adapter on a known base: erased in its own factors and healed, from light to retrained.

    python -m unlora_research.delta FOLDER --world SEED ... [--stop NAME ...] [--quick]
    python -m unlora_research.delta FOLDER --data DIR [--dtype D] [--stop NAME ...] [--dial K L A STEPS]
    python -m unlora_research.delta FOLDER --table

A stop of the dial is (k, l, a, steps): `unlora_research.delta_edit` says what they are. `retrained` is a = 1, which is
`unlora finetune --exclude` on the base. A world's base is a small model that knows other people; the people of the
world are an adapter on it. DIR is laid out as `tofu_mini_run` says. Seconds are the process's own, so that what else
the machine does is not in them. Started again it goes on where it stopped.
"""

import argparse
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from peft import PeftModel

from unlora.adapters.export import load_trained_adapter, save_trained_adapter
from unlora.audit.settings import RelearningSettings
from unlora.cli.terminal import echo
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.errors import InputError
from unlora.recipes.fine_tune import fine_tune
from unlora.run.loading import load
from unlora.run.settings import FineTuneSettings, ModelSettings
from unlora_research.attackers import RATE_SCALE, attack_model, probabilities_of, scaled
from unlora_research.delta_edit import Dial, SecondMoment, erase, heal, input_moments
from unlora_research.delta_table import print_table
from unlora_research.delta_world import build_adapter_world

STOPS: dict[str, Dial] = {
    "target": Dial(0.0, 1.0, 0.0, 0),
    "light": Dial(1.0, 3.0, 0.0, 0),
    "even": Dial(1.0, 1.0, 0.0, 0),
    "strong": Dial(1.0, 0.3, 0.0, 0),
    "even_healed": Dial(1.0, 1.0, 0.0, 20),
    "strong_healed": Dial(1.0, 0.3, 0.0, 20),
    "strong_healed_long": Dial(1.0, 0.3, 0.0, 60),
    "hardest_healed_long": Dial(1.0, 0.03, 0.0, 60),
    "halved_healed_long": Dial(1.0, 0.3, 0.5, 60),
    "retrained": Dial(0.0, 1.0, 1.0, 0),
}
"""From nothing to everything; l is the inverse of the page's: 3 here keeps the retain inputs three times as dear."""

SETS = ("forget", "retain", "held_out")
ATTACKERS = ("lora_2e-4_few", "full_1e-4_full")


class Measured(NamedTuple):
    """Second moments of every layer's inputs, and the seconds that they took."""

    forget: dict[str, SecondMoment]
    retain: dict[str, SecondMoment]
    seconds: float


class DeltaPlace(NamedTuple):
    """A target adapter with its base, control and data, and how it is taught and attacked."""

    model: ModelSettings
    """Of the base, in the number format of the weights."""
    folder: Path
    """Holds target/, retain_only/, forget.jsonl, retain.jsonl and held_out.jsonl."""
    taught: FineTuneSettings
    """How target and control were made, of the base and everything but the forget set."""
    attack_scale: float
    """Of the attackers' learning rates over SmolLM2's."""
    course: RelearningSettings

    def file(self, name: str) -> Path:
        """One of the sets."""
        return self.folder / f"{name}.jsonl"

    def adapted(self, adapter: Path) -> PeftModel:
        """A fresh copy of the base with an adapter on it."""
        return load_trained_adapter(load(self.model).model, adapter).eval()


def main() -> None:
    """Parse, run what is missing, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--world", type=int, nargs="+", default=[], metavar="SEED")
    parser.add_argument("--data", type=Path, metavar="DIR")
    parser.add_argument("--dtype", default="float32", help="of the base's weights, with --data; auto as in a run")
    parser.add_argument("--stop", nargs="+", default=list(STOPS), choices=list(STOPS), metavar="NAME")
    parser.add_argument("--dial", nargs=4, type=float, action="append", default=[], metavar=("K", "L", "A", "STEPS"))
    parser.add_argument("--attacker", nargs="*", default=list(ATTACKERS), metavar="NAME")
    parser.add_argument("--quick", action="store_true", help="a tiny world and one step, to see that it works")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    options = parser.parse_args()
    try:
        if not options.table:
            run_all(options)
        echo(print_table(options.folder))
    except InputError as error:
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def run_all(options: argparse.Namespace) -> None:
    """Every place that was asked for."""
    dials = {name: STOPS[name] for name in options.stop}
    for k, l, a, steps in options.dial:  # noqa: E741
        dials[f"{k:g}-{l:g}-{a:g}-{steps:g}"] = Dial(k, l, a, int(steps)).checked()
    for seed in options.world:
        folder = options.folder / f"world-{seed}"
        run_place(folder, _world(folder / "models", seed, quick=options.quick), dials, options.attacker)
    if options.data is not None:
        run_place(options.folder / options.data.name, _data(options.data, options.dtype), dials, options.attacker)


def _world(folder: Path, seed: int, *, quick: bool) -> DeltaPlace:
    taught = build_adapter_world(folder, seed, quick=quick)
    course = RelearningSettings(steps=2 if quick else 24, measure_every=2 if quick else 6)
    return DeltaPlace(taught.model, folder, taught, RATE_SCALE, course)


def _data(folder: Path, dtype: str) -> DeltaPlace:
    model = ModelSettings(name="embedded", device="cpu", dtype=dtype)  # pyright: ignore[reportArgumentType]  checked there
    sets = [str(folder / f"{name}.jsonl") for name in SETS]
    taught = FineTuneSettings(model=model, data=sets, exclude=sets[:1], template="plain", max_length=256)
    return DeltaPlace(model, folder, taught, 1.0, RelearningSettings(steps=20, measure_every=10))


def run_place(folder: Path, place: DeltaPlace, dials: Mapping[str, Dial], attackers: Sequence[str]) -> None:
    """Turn the dial to every stop of one place, and attack what comes out and the control; a JSON file each."""
    forget, retain, held_out = (load_examples(str(place.file(name))) for name in SETS)
    tried, sets = scaled(attackers, place.attack_scale), (forget, retain)
    target = place.adapted(place.folder / "target")
    tokeniser = ExampleTokeniser(load(place.model).tokenizer, template="plain", max_length=256)
    known, knew = (probabilities_of(target, tokeniser, one) for one in (forget, held_out))
    del target
    control = place.adapted(place.folder / "retain_only")
    kept = float(np.mean(probabilities_of(control, tokeniser, held_out)) / np.mean(knew))
    attack_model(folder / "control.json", control, tokeniser, sets, tried, place.course, target=known, kept=kept)
    turner = Turner(place, tokeniser)
    for name, dial in dials.items():
        file, adapter = folder / f"{name}.json", folder / "adapters" / name
        if file.is_file():
            continue
        about = {"dial": dial._asdict(), "seconds": turner.turn(dial, adapter), "target": known}
        model = place.adapted(adapter)
        kept = float(np.mean(probabilities_of(model, tokeniser, held_out)) / np.mean(knew))
        attack_model(file, model, tokeniser, sets, tried, place.course, kept=kept, **about)


class Turner:
    """Turns the dial of one place; the inputs are measured once for all stops."""

    def __init__(self, place: DeltaPlace, tokeniser: ExampleTokeniser) -> None:
        """Measure nothing yet."""
        self._place, self._pad = place, tokeniser.pad_token_id
        self._forget, self._retain = (
            tokeniser.encode_set(load_examples(str(place.file(name)))) for name in ("forget", "retain")
        )

    def turn(self, dial: Dial, adapter: Path) -> float:
        """Erase and heal, or retrain, into an adapter folder; the seconds of the process, each stop's as if alone."""
        shutil.rmtree(adapter, ignore_errors=True)  # of a run that was stopped in the middle
        place, lesson = self._place, self._place.taught
        if dial.a == 1:
            started = time.process_time()
            fine_tune(lesson, adapter)
            return time.process_time() - started
        of_forget, of_retain, before = self._moments if dial.k else self._nothing
        started = time.process_time()
        model = place.adapted(place.folder / "target")
        erase(model, of_forget, of_retain, dial)
        heal(model, self._retain, dial, rate=lesson.learning_rate / 2, pad_token_id=self._pad, seed=lesson.seed)
        card = f"The delta of a target, erased and healed at the dial {dial._asdict()}.\n"
        save_trained_adapter(model, adapter, base_model=place.model.name, card=card)
        return before + time.process_time() - started

    @cached_property
    def _moments(self) -> Measured:
        return self._measure(self._forget, self._retain)

    @cached_property
    def _nothing(self) -> Measured:
        return self._measure([], [])

    def _measure(self, forget: Sequence[TokenisedExample], retain: Sequence[TokenisedExample]) -> Measured:
        started = time.process_time()
        model = self._place.adapted(self._place.folder / "target")
        both = [input_moments(model, examples, pad_token_id=self._pad) for examples in (forget, retain)]
        return Measured(both[0], both[1], time.process_time() - started)


if __name__ == "__main__":
    main()
