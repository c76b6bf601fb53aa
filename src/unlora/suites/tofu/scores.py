"""What a model was asked and what it answered, example by example: everything TOFU's metrics are made of."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict

from unlora.errors import InputError
from unlora.suites.scores import REMEDY, AskedItem, AskedSets, ScoreFile

UNKNOWN_QUESTION = ""
CAME_LATER = {"known_truth_ratio": None}
"""Of an example, what files of version 0.1.0 do not have."""
HOW_ASKED = ("name", "max_new_tokens", "total_generation_length", "end_token_in_memorisation", "answer_tag")
"""What of a protocol two models must share; how many examples and how long is seen on the examples."""


@dataclass(frozen=True, slots=True)
class ExampleScore:
    """One example of one set. NaN means unscored; log-probabilities are means over an answer's tokens, in nats."""

    source: str
    """Where the example came from: "forget.jsonl, line 12"."""
    question: str
    """The question or prompt; empty for plain text."""
    answer: str
    """The answer it is compared with."""
    question_sha256: str
    """Hash of the question and of every answer that is scored; equal for the same example from another file.
    `UNKNOWN_QUESTION` where another program's log does not say what was asked."""
    token_count: int
    """Scored tokens of the answer."""
    mean_log_prob: float
    """Of the answer."""
    probability: float
    """exp(mean_log_prob)."""
    exact_memorisation: float
    """Of the answer, teacher forced."""
    extraction_strength: float
    """Of the answer, teacher forced."""
    generated: str | None
    """The model's own greedy answer; None where there is no prompt to answer."""
    rouge_l_recall: float
    """Of `generated` against `answer`."""
    paraphrased_log_prob: float
    """Of the answer in other words, or of the answer itself where there are perturbed answers but no paraphrase."""
    perturbed_log_probs: tuple[float, ...]
    """Of each wrong answer."""
    known_truth_ratio: float = math.nan
    """Wrong over right, geometric, where another program's log holds it without the log-probabilities; else NaN."""

    @property
    def identity(self) -> tuple[str, int]:
        """What was asked; the token count tells apart answers that were cut at different lengths."""
        return self.question_sha256, self.token_count


class _Set(BaseModel):
    model_config = ConfigDict(strict=True)
    example_count: int
    truncated_count: int


class _Protocol(BaseModel):
    """What is read of a protocol again; another program's log says neither."""

    model_config = ConfigDict(strict=True)
    template: dict[str, Any] = {}
    sets: dict[str, _Set] = {}


def check_asked_alike(scores: AskedSets, reference: AskedSets) -> None:
    """Refuse to set two models side by side that were not asked the same thing in the same way.

    Of scores read from another program's log only what it says is compared: where it does not hold the questions, their
    number.

    Raises:
        InputError: another protocol, another template, another length of generated answers, another length limit that
            cut an answer, or other questions in a set both have.
    """
    both = (scores.protocol, reference.protocol)
    if all("template" in protocol for protocol in both):
        template, reference_template = (protocol["template"] for protocol in both)
        if any(template.get(key) != reference_template.get(key) for key in ("rendered_probe_sha256", "eos_appended")):
            raise InputError(f"scores: the two models were asked with different templates; {REMEDY}.")
        limits = [template.get("max_length"), reference_template.get("max_length")]
        if limits[0] != limits[1] and any(map(_truncated_count, both)):
            raise InputError(f"scores: answers were cut at {limits[0]} and {limits[1]} tokens; {REMEDY}.")
    for key in HOW_ASKED:
        found = [protocol[key] for protocol in both if key in protocol]
        if len(found) == 2 and found[0] != found[1]:
            name = "protocol" if key == "name" else key
            raise InputError(f"scores: {name} was {found[0]} for one model, {found[1]} for another; {REMEDY}.")
    for name in scores.sets.keys() & reference.sets.keys():
        if not _same_questions(scores.sets[name], reference.sets[name]):
            counts = f"{len(scores.sets[name])} and {len(reference.sets[name])} examples"
            raise InputError(f"scores: the two models were asked different {name} questions ({counts}); {REMEDY}.")


def _truncated_count(protocol: Mapping[str, Any]) -> int:
    return sum(described["truncated_count"] for described in protocol.get("sets", {}).values())


def _same_questions(examples: Sequence[AskedItem], others: Sequence[AskedItem]) -> bool:
    asked, asked_others = ([one.identity for one in both] for both in (examples, others))
    if any(question == UNKNOWN_QUESTION for question, _ in (*asked, *asked_others)):
        return len(asked) == len(asked_others)
    return sorted(asked) == sorted(asked_others)  # The order does not matter.


TOFU_FILE = ScoreFile("example scores", 1, "set", ExampleScore, CAME_LATER, _Protocol)
