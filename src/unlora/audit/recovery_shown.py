"""What relearning brought back, for a reader: curves, sentences and the record of every example."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unlora.audit.attack import Curve
from unlora.audit.recovery import Attempt, Courses, Recovery
from unlora.data.records import ExampleSet


def records(attempt: Attempt, courses: Courses, forget: ExampleSet) -> list[dict[str, Any]]:
    """Every forget example in every model, at every measured step."""
    return [
        {
            "attacker": attempt.attacker,
            "learns_from": attempt.learns_from,
            "seed": attempt.seed,
            "model": role,
            "source": example.source,
            "question": example.prompt,
            "tested": index in attempt.lesson.tested,
            "steps": list(course.steps),
            "probability": course.probability[:, index].tolist(),
            "extraction_strength": course.extraction_strength[:, index].tolist(),
        }
        for role, course in courses.items()
        for index, example in enumerate(forget)
    ]


def curves(findings: Sequence[Recovery], target: float) -> list[Curve]:
    """The worst attacker's course of every lesson, and the probability that any attacker has reached by each step.

    The last is read across: what a model that never knew needs so many steps for, the unlearned one may need few for.
    """
    shown = [curve for finding in _worst_of_lessons(findings) for curve in finding.curves()]
    steps = tuple(sorted({float(step) for finding in findings for step in finding.steps}))
    panel = "answer probability, highest of any attacker"
    reached = [Curve(panel, "unlearned", steps, _reached([finding.probability for finding in findings]))]
    controls = [finding.control_probability for finding in findings if finding.control_probability is not None]
    if controls:
        reached.append(Curve(panel, "control", steps, _reached(controls)))
    return [*shown, *reached, Curve(panel, "target", steps, (target,) * len(steps))]


def _reached(courses: Sequence[tuple[float, ...]]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.fmax.accumulate(np.fmax.reduce(np.array(courses), axis=0)))


def _worst_of_lessons(findings: Sequence[Recovery]) -> list[Recovery]:
    """The worst attacker of each lesson, those that count first, then by how much they found."""
    lessons: dict[str, Recovery] = {}
    for finding in sorted(findings, key=lambda one: (one.known, -one.order)):
        lessons.setdefault(finding.attempt.learns_from, finding)
    return list(lessons.values())


def sentence(findings: Sequence[Recovery]) -> str:
    """The findings in plain words: one clause a lesson, its worst attacker, those that succeed first."""
    return "; ".join(_clause(finding) for finding in _worst_of_lessons(findings))


def _clause(found: Recovery) -> str:
    attempt = found.attempt
    if found.excess.value is None:
        return f"{attempt.attacker}: {found.excess.note}"
    count = len(attempt.lesson.examples)
    what, of_what = {
        "few": (f"{count} forget example{'s bring' if count > 1 else ' brings'} back", " of the others"),
        "unrelated": (f"{count} unrelated examples bring back", ""),
        "retain": (f"{count} retain examples bring back", ""),
        "full": ("the whole forget set brings back", ""),
    }[attempt.learns_from]
    shares = found.of_seeds
    spread = (
        f" ({_percent(min(shares))} to {_percent(max(shares))} over {len(shares)} seeds)" if len(shares) > 1 else ""
    )
    steps = found.steps[found.best]
    text = f"{what} {_percent(found.recovery[found.best])}{of_what} in {steps} step{'s' if steps > 1 else ''}{spread}"
    known = "; known to the training" if found.known else ""
    if found.control is None:
        return f"{text} ({attempt.attacker}{known}; no control: how much the attack teaches by itself is not known)"
    return f"{text} ({attempt.attacker}{known}; control {_percent(found.control[found.best])})"


def _percent(share: float) -> str:
    return "nothing" if share < 0.005 else f"{share:.0%}"
