"""RWKU's utility sets (Jin et al. 2024, arXiv 2406.10890): what must still be possible afterwards.

    FOLDER/retain_mmlu.json    [{"question", "choices": [4], "answer": 0-3, "task", "examples": [the same], "subject"}]
    FOLDER/retain_bbh.json     [{"question", "answer", "cot", "task", "subject"}]; "cot" is worked examples
    FOLDER/truthful.json       [{"question", "mc1_targets": {"choices", "labels"}, "mc2_targets": the same, "subject"}]
    FOLDER/triviaqa.json       [{"question", "answers": [1 or more], "subject"}]
    FOLDER/fluency.json        [{"instruction", "subject"}]

The files are those that RWKU's data_process.py writes; "subject" says whose forget set an entry stands beside.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeGuard

from unlora.errors import InputError

Ability = Literal["general", "reasoning", "truthfulness", "factuality", "fluency"]
LETTERS = "ABCD"


class Choices(NamedTuple):
    """The answers that one metric of TruthfulQA weighs against each other."""

    true: tuple[str, ...]
    false: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class UtilityProbe:
    """One question or instruction."""

    ability: Ability
    query: str
    """As it is asked; a question of MMLU with its options."""
    answers: tuple[str, ...]
    """Those that are right; of MMLU the letter, none for an instruction."""
    subject: str
    """Whose forget set it stands beside."""
    source: str
    """Where it came from: "triviaqa.json, entry 3"."""
    kind: str = ""
    """Of MMLU and BBH, the task."""
    worked: str = ""
    """Worked examples before the question: those that the entry brings, or that the user gives."""
    one_true: Choices | None = None
    """Of TruthfulQA, what MC1 weighs."""
    many_true: Choices | None = None
    """Of TruthfulQA, what MC2 weighs."""

    @property
    def told(self) -> list[Any]:
        """What is asked, for the hash of all."""
        return [self.ability, self.query, self.answers, self.worked, self.one_true, self.many_true]


class UtilityFile(NamedTuple):
    """Where the questions of one ability are."""

    ability: Ability
    name: str
    """On disk, without ".json"."""
    configuration: str
    """On the hub."""
    parse: Callable[[Mapping[str, Any], str], UtilityProbe]
    """From an entry and its place.

    Raises:
        InputError: something in it is missing or of another kind.
    """


def _general(row: Mapping[str, Any], where: str) -> UtilityProbe:
    """MMLU: the right one is the letter of an option."""
    asked, letter = _with_options(row, where)
    examples = row.get("examples")
    if not isinstance(examples, list):
        raise InputError(f"{where}: must have a list of questions with answers under 'examples'.")
    shown = [_with_options(one, f"{where}, example {number}") for number, one in enumerate(examples, start=1)]
    worked = "".join(f"{text}\nAnswer: {answer}\n\n" for text, answer in shown)
    task = text_under(row, "task", where)
    return UtilityProbe("general", asked, (letter,), text_under(row, "subject", where), where, task, worked)


def _with_options(row: Any, where: str) -> tuple[str, str]:
    """The question with its options, and the letter of the right one."""
    row = row if isinstance(row, dict) else {}
    question, choices, answer = text_under(row, "question", where), row.get("choices"), row.get("answer")
    if not _are_texts(choices) or len(choices) != len(LETTERS):
        raise InputError(f"{where}: must have a list of {len(LETTERS)} texts under 'choices'.")
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(LETTERS):
        raise InputError(f"{where}: must have the number of the right choice, 0 to {len(LETTERS) - 1}, under 'answer'.")
    options = "".join(f"\n{letter}. {choice}" for letter, choice in zip(LETTERS, choices, strict=True))
    return f"Question: {question}{options}", LETTERS[answer]


def _reasoning(row: Mapping[str, Any], where: str) -> UtilityProbe:
    question, answer, worked, task, subject = (
        text_under(row, key, where) for key in ("question", "answer", "cot", "task", "subject")
    )
    return UtilityProbe("reasoning", question, (answer,), subject, where, task, worked.strip())


def _truthfulness(row: Mapping[str, Any], where: str) -> UtilityProbe:
    one, many = (_choices(row.get(key), key, where) for key in ("mc1_targets", "mc2_targets"))
    return UtilityProbe(
        "truthfulness",
        text_under(row, "question", where),
        many.true,
        text_under(row, "subject", where),
        where,
        one_true=one,
        many_true=many,
    )


def _choices(value: Any, key: str, where: str) -> Choices:
    found = value if isinstance(value, dict) else {}
    choices, labels = found.get("choices"), found.get("labels")
    if not (_are_texts(choices) and isinstance(labels, list) and len(labels) == len(choices)):
        raise InputError(f"{where}: must have texts and as many labels, 1 for a true one, under '{key}'.")
    true, false = (
        tuple(choice for choice, label in zip(choices, labels, strict=True) if (label == 1) is wanted)
        for wanted in (True, False)
    )
    if not true or not false:
        raise InputError(f"{where}: must have a true and a false choice at least under '{key}'.")
    return Choices(true, false)


def _factuality(row: Mapping[str, Any], where: str) -> UtilityProbe:
    answers = row.get("answers")
    if not _are_texts(answers):
        raise InputError(f"{where}: must have a list of texts, one at least, under 'answers'.")
    return UtilityProbe(
        "factuality", text_under(row, "question", where), tuple(answers), text_under(row, "subject", where), where
    )


def _fluency(row: Mapping[str, Any], where: str) -> UtilityProbe:
    return UtilityProbe("fluency", text_under(row, "instruction", where), (), text_under(row, "subject", where), where)


def _are_texts(value: Any) -> TypeGuard[list[str]]:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) and one.strip() for one in value)


def text_under(row: Mapping[str, Any], key: str, where: str) -> str:
    """The text of one field.

    Raises:
        InputError: there is none.
    """
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise InputError(f"{where}: must be an object with text under '{key}'.")
    return value


UTILITY: dict[Ability, UtilityFile] = {
    "general": UtilityFile("general", "retain_mmlu", "utility_general", _general),
    "reasoning": UtilityFile("reasoning", "retain_bbh", "utility_reason", _reasoning),
    "truthfulness": UtilityFile("truthfulness", "truthful", "utility_truthfulness", _truthfulness),
    "factuality": UtilityFile("factuality", "triviaqa", "utility_factuality", _factuality),
    "fluency": UtilityFile("fluency", "fluency", "utility_fluency", _fluency),
}
"""MMLU, BIG-bench hard, TruthfulQA, TriviaQA and AlpacaEval's instructions, as RWKU picked them."""


FILES = {file.name: file for file in UTILITY.values()}
"""The same by the names of their files, which are the names of the sets."""
