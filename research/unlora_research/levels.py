"""Which probability is nearest to that of a model that never knew, where there is no such model to ask?

    python -m unlora_research.levels DIR --rename "OLD NAME=NEW NAME" ...

DIR is laid out as `tofu_mini_run` says. Prints the forget probability of the retain-only model, of the model before
fine-tuning, and what the target gives to the answers in other words, to a wrong answer, and to the same questions and
answers about made-up people: means with 95 % intervals over the questions.
"""

import argparse
import dataclasses
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from unlora.cli.terminal import echo
from unlora.data.records import Example, ExampleSet
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError
from unlora.metrics.intervals import mean_interval
from unlora.run.loading import load
from unlora.run.settings import ModelSettings
from unlora_research.attackers import probabilities_of
from unlora_research.tables import markdown_table
from unlora_research.unlearning import tofu_mini_run


def main() -> None:
    """Parse, ask, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rename", nargs="*", default=[], metavar="OLD=NEW")
    options = parser.parse_args()
    try:
        rows = [[asked, found] for asked, found in estimates(options.data, read_renames(options.rename))]
        echo(markdown_table(["asked", "probability"], rows))
    except InputError as error:
        echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)


def read_renames(given: Sequence[str]) -> dict[str, str]:
    """OLD -> NEW.

    Raises:
        InputError: one that is not OLD=NEW.
    """
    pairs = [one.partition("=") for one in given]
    if wrong := [one for one, (old, equals, new) in zip(given, pairs, strict=True) if not (old and equals and new)]:
        raise InputError(f"--rename: '{wrong[0]}' is not OLD=NEW.")
    return {old: new for old, _, new in pairs}


def estimates(data: Path, renames: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What is asked -> its probability."""
    run = tofu_mini_run(data, "cpu", epochs=1)
    evaluation = run["evaluation"]
    control = {"name": evaluation["retain_only"], "base": evaluation["retain_only_base"]}
    examples = load_examples(run["data"]["forget"])
    yield "retain-only model, the answers (the control)", _mean({**run["model"], **control}, examples)
    before = {**run["model"], "name": run["model"]["base"], "base": None}
    yield "model before fine-tuning, the answers", _mean(before, examples)
    asked = {
        "target, the answers in other words": lambda one: one.paraphrased_answer,
        "target, a wrong answer (the first perturbed one)": lambda one: (one.perturbed_answers or (None,))[0],
    }
    for name, answer in asked.items():
        yield name, _mean(run["model"], _answered(examples, answer))
    if renames:
        yield "target, the same about made-up names", _mean(run["model"], renamed(examples, renames))


def _mean(settings: dict[str, object], examples: ExampleSet) -> str:
    loaded = load(ModelSettings.from_mapping(settings))
    tokeniser = ExampleTokeniser(loaded.tokenizer, template="plain", max_length=512)
    values = np.array(probabilities_of(loaded.model, tokeniser, examples))
    low, high = mean_interval(values)
    return f"{values.mean():.3f} [{low:.3f}, {high:.3f}]"


def _answered(examples: ExampleSet, answer: Callable[[Example], str | None]) -> ExampleSet:
    """The same questions with other answers.

    Raises:
        InputError: an example that has none.
    """
    found = [(one, answer(one)) for one in examples]
    if lacking := [one for one, text in found if text is None]:
        raise InputError(f"{lacking[0].source}: has no paraphrased or perturbed answer, as TOFU's files have.")
    return ExampleSet(examples.name, tuple(dataclasses.replace(one, completion=text or "") for one, text in found))


def renamed(examples: ExampleSet, renames: Mapping[str, str]) -> ExampleSet:
    """The same questions and answers about others: whole names, then last names and first names by themselves."""
    swaps = dict(renames)
    for at in (-1, 0):
        swaps |= {old.split()[at]: new.split()[at] for old, new in renames.items()}

    def about_others(text: str) -> str:
        for old, new in swaps.items():
            text = re.sub(rf"\b{re.escape(old)}\b", new, text)
        return text

    changed = (
        dataclasses.replace(one, prompt=about_others(one.prompt), completion=about_others(one.completion))
        for one in examples
    )
    return ExampleSet(examples.name, tuple(changed))


if __name__ == "__main__":
    main()
