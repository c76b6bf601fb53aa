"""What a model was asked and what it answered, example by example: everything the metrics are made of."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from unlora.artifacts import parse_json_object, write_text
from unlora.errors import InputError

FILE_KIND = {"kind": "unlora example scores", "schema": 1}


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
    """Hash of the question and of every answer that is scored; equal for the same example from another file."""
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


@dataclass(frozen=True)
class ModelScores:
    """One model's scores on every set it was asked about."""

    sets: Mapping[str, tuple[ExampleScore, ...]]
    """By role: forget, retain, real_authors, world_facts; those that were given."""
    protocol: Mapping[str, Any]
    """How they were made."""


def check_comparable(scores: ModelScores, reference: ModelScores) -> None:
    """Refuse to set two models side by side that were not asked the same thing in the same way.

    Raises:
        InputError: another template, another length of generated answers, or other questions in a set both have.
    """
    remedy = "score both models with the same data and settings"
    template, reference_template = (one.protocol.get("template", {}) for one in (scores, reference))
    for key in ("rendered_probe_sha256", "eos_appended"):
        if template.get(key) != reference_template.get(key):
            raise InputError(f"scores: the two models were asked with different templates; {remedy}.")
    limit, reference_limit = (one.protocol.get("max_new_tokens") for one in (scores, reference))
    if limit != reference_limit:
        raise InputError(f"scores: max_new_tokens was {limit} for one model, {reference_limit} for another; {remedy}.")
    for name in scores.sets.keys() & reference.sets.keys():
        asked, reference_asked = (_what_was_asked(one.sets[name]) for one in (scores, reference))
        if asked != reference_asked:
            counts = f"{len(asked)} and {len(reference_asked)} examples"
            raise InputError(f"scores: the two models were asked different {name} questions ({counts}); {remedy}.")


def _what_was_asked(examples: Sequence[ExampleScore]) -> list[tuple[str, int]]:
    # The token count tells apart answers that were cut at different lengths; the order does not matter.
    return sorted((example.question_sha256, example.token_count) for example in examples)


def save_scores(path: Path, scores: ModelScores) -> None:
    """Write JSON lines atomically: a header with the protocol, then one line an example; unscored becomes null."""
    records: list[dict[str, Any]] = [{**FILE_KIND, "protocol": dict(scores.protocol)}]
    for name, examples in scores.sets.items():
        records += [{"set": name} | _nan_to_null(asdict(example)) for example in examples]
    write_text(path, "".join(json.dumps(one, ensure_ascii=False, allow_nan=False) + "\n" for one in records))


def load_scores(path: Path) -> ModelScores:
    """Read what `save_scores` wrote.

    Raises:
        InputError: missing, or a line that `save_scores` did not write.
    """
    try:
        lines = path.read_text(encoding="utf-8").removesuffix("\n").split("\n")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not a file of scores that unlora wrote.") from None
    header = parse_json_object(lines[0], f"{path}, line 1")
    if {key: header.get(key) for key in FILE_KIND} != FILE_KIND or not isinstance(header.get("protocol"), dict):
        raise InputError(f"{path}, line 1: not the header of a file of scores that this version of unlora wrote.")
    sets: dict[str, list[ExampleScore]] = {}
    for number, line in enumerate(lines[1:], start=2):
        where = f"{path}, line {number}"
        record = parse_json_object(line, where)
        try:
            sets.setdefault(record.pop("set"), []).append(_to_score(record))
        except (KeyError, TypeError, ValueError):
            raise InputError(f"{where}: not an example's scores as unlora writes them.") from None
    return ModelScores({name: tuple(examples) for name, examples in sets.items()}, header["protocol"])


def _nan_to_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _nan_to_null(item) for key, item in value.items()}
    if isinstance(value, tuple):
        return [_nan_to_null(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _to_score(record: dict[str, Any]) -> ExampleScore:
    numbers = {field.name: _number(record[field.name]) for field in fields(ExampleScore) if field.type is float}
    perturbed = tuple(map(_number, record["perturbed_log_probs"]))
    return ExampleScore(**{**record, **numbers, "perturbed_log_probs": perturbed})


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)
