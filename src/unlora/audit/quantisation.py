"""Quantisation: does rounding the weights that people ship bring back what unlearning hid?

Zhang et al. 2024 (arXiv 2410.16454): unlearning that moves the weights a little is undone when 4-bit rounding moves
them back. The control (the retain-only model, merged and rounded in the same way) shows what rounding itself does to
the numbers; only the excess counts.
"""

import importlib.metadata
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from unlora.audit.attack import Attack, AttackResult, Estimate
from unlora.audit.bench import Workbench
from unlora.audit.cost import SECONDS_PER_GIGABYTE, Cost
from unlora.audit.course import Course
from unlora.audit.estimates import mean_estimate
from unlora.audit.lessons import DrawnLesson
from unlora.audit.likelihoods import forget_likelihoods, measure_forget_set, score_set
from unlora.audit.recovery import Attempt, Courses, Recovery, find, overall
from unlora.audit.rounding import Format, rounded, save_merged
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject, Role
from unlora.data.records import ExampleSet
from unlora.models.inventory import linear_share
from unlora.models.quantised import EXTRA, NF4_BLOCK, has_bitsandbytes, misread_layer, quantisation_of
from unlora.models.wrapping import CausalModel, unwrap

NOTEWORTHY_DAMAGE = 0.05
"""A smaller loss of answer probability on the retain set is reported but not put into words."""

NEARLY_ALL = 0.99
"""Of the weights rounded; convolutions and the like are seldom more than the rest."""

MeasuredLists = dict[str, list[float]]
"""probability and extraction_strength of every forget example, retain_probability of every retain example."""

AS_SHIPPED = "as_shipped"
"""Before rounding."""


class Quantisation(Attack):
    """Round the merged unlearned model and the control to 8 and to 4 bits."""

    name = "quantisation"
    question = "Does rounding the weights to 8 or 4 bits bring it back?"

    def lacks(self, subject: AuditSubject, settings: AuditSettings) -> str | None:
        bits = quantisation_of(subject.model)
        if bits is not None:
            return f"the base is in {bits} already: every other number of this audit was measured on rounded weights"
        if not has_bitsandbytes():
            return f"needs bitsandbytes: {EXTRA}"
        misread = misread_layer(subject.model) if "nf4" in settings.quantisation.formats else None
        if misread is not None:
            return (
                f"nf4 on a CPU needs layers with a multiple of {NF4_BLOCK} inputs ({misread}); "
                "leave it out with --set quantisation.formats=[int8], or use a GPU"
            )
        if len(subject.forget) < 2:
            return "needs two forget examples at least"
        return None

    def cost(self, subject: AuditSubject, settings: AuditSettings) -> Cost:
        formats, models = len(settings.quantisation.formats), len(subject.attacked)
        sets = [subject.forget, *([_retain(subject, settings)] if subject.retain is not None else [])]
        tokens = sum(len(examples) * subject.mean_length(examples) for examples in sets)
        gigabytes = unwrap(subject.model).get_memory_footprint() / 1e9
        files = models * (1 + formats)
        return Cost(
            forward_tokens=round(models * (1 + formats) * tokens),
            fixed_seconds=files * gigabytes * SECONDS_PER_GIGABYTE,
        )

    def run(self, bench: Workbench) -> AttackResult:
        subject, formats = bench.subject, bench.settings.quantisation.formats
        steps = len(subject.attacked) * (1 + len(formats))
        measured: dict[Role, dict[str, MeasuredLists]] = {}
        for place, role in enumerate(subject.attacked):
            measured[role] = _measure_role(bench, role, place * (1 + len(formats)), steps)
        target = np.array(forget_likelihoods(bench, "target")["probability"], dtype=float)
        findings = {name: _find(name, measured, target, bench) for name in formats}
        retained = f", {len(_retain(subject, bench.settings))} to keep" if subject.retain is not None else ""
        return AttackResult(
            overall(list(findings.values())),
            "; ".join(_sentence(finding, measured["unlearned"]) for finding in findings.values())
            + _limit(linear_share(subject.model)),
            estimates={
                **_levels(measured, bench.settings.seed),
                **{
                    name: value for form, finding in findings.items() for name, value in finding.estimates(form).items()
                },
                **_retain_changes(measured, bench.settings.seed),
            },
            tested=f"{len(subject.forget)} forget examples{retained}, merged and rounded to {', '.join(formats)}",
            records=tuple(_records(measured, bench)),
        )


def _retain(subject: AuditSubject, settings: AuditSettings) -> ExampleSet:
    return (subject.retain or ExampleSet("nothing", ())).select(settings.max_examples)


def _measure_role(bench: Workbench, role: Role, done: int, total: int) -> dict[str, MeasuredLists]:
    """One model as it is shipped and in every format; its merged weights are written when a format is not cached."""
    folder = bench.subject.scratch / f"merged-{role}"
    bench.progress(f"{role} before rounding", done, total)
    measured = {AS_SHIPPED: forget_likelihoods(bench, role) | _retain_likelihoods(bench, role)}
    try:
        for place, name in enumerate(bench.settings.quantisation.formats, start=1):
            bench.progress(f"{role} in {name}", done + place, total)
            measured[name] = _measure_rounded(bench, role, name, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    bench.progress(f"{role} done", done + 1 + len(bench.settings.quantisation.formats), total)
    return measured


def _measure_rounded(bench: Workbench, role: Role, name: Format, folder: Path) -> MeasuredLists:
    subject = bench.subject

    def compute() -> MeasuredLists:
        if not folder.is_dir():
            with subject.acting_as(role) as model:
                save_merged(model, subject.tokeniser.tokenizer, folder)
        with rounded(folder, name, device=subject.model.device, dtype=subject.model.dtype) as model:
            return measure_forget_set(model, bench) | _measure_retain_set(model, bench)

    key = {
        "format": name,
        "bitsandbytes": importlib.metadata.version("bitsandbytes"),
        "retain": _retain(subject, bench.settings).sha256(),
    }
    return bench.once("quantisation", role, key, compute)


def _retain_likelihoods(bench: Workbench, role: Role) -> MeasuredLists:
    def compute() -> MeasuredLists:
        with bench.subject.acting_as(role) as model:
            return _measure_retain_set(model, bench)

    return bench.once("retain-likelihoods", role, {"retain": _retain(bench.subject, bench.settings).sha256()}, compute)


def _measure_retain_set(model: CausalModel, bench: Workbench) -> MeasuredLists:
    scores = score_set(model, bench, _retain(bench.subject, bench.settings))
    return {"retain_probability": [score.probability for score in scores]}


def _find(
    name: Format,
    measured: Mapping[Role, Mapping[str, MeasuredLists]],
    target: Float[np.ndarray, " example"],
    bench: Workbench,
) -> Recovery:
    """Recovery as relearning has it, with rounding as the only step."""
    forget = bench.subject.forget
    courses: Courses = {role: _course(found[AS_SHIPPED], found[name]) for role, found in measured.items()}
    attempt = Attempt(name, "nothing", 0, DrawnLesson(forget, tuple(range(len(forget)))))
    return find([attempt], [courses], target, seed=bench.settings.seed)


def _course(before: MeasuredLists, after: MeasuredLists) -> Course:
    probability, strength = (
        np.array([before[score], after[score]], dtype=float) for score in ("probability", "extraction_strength")
    )
    return Course((0, 1), probability, strength)


def _sentence(finding: Recovery, measured: Mapping[str, MeasuredLists]) -> str:
    """The finding for one format in plain words."""
    name = finding.attempt.attacker
    if finding.excess.value is None:
        return f"{name}: {finding.excess.note}"
    control = "no control" if finding.control is None else f"control {_percent(finding.control[-1])}"
    text = f"{name} brings back {_percent(finding.recovery[-1])} ({control})"
    before, after = (_scored(measured[form]["retain_probability"]) for form in (AS_SHIPPED, name))
    if before.size and after.size and before.mean() - after.mean() >= NOTEWORTHY_DAMAGE:
        text += f", and what is to stay falls from {before.mean():.2f} to {after.mean():.2f}"
    return text


def _limit(share: float) -> str:
    """What part of the model the findings speak of, where that is not nearly all."""
    if share >= NEARLY_ALL:
        return ""
    return f"; bitsandbytes rounds {share:.0%} of the weights, those in linear layers, and the others stay as they are"


def _percent(share: float) -> str:
    return f"{round(share, 2) + 0.0:.0%}"  # + 0.0: no "-0%"


def _levels(measured: Mapping[Role, Mapping[str, MeasuredLists]], seed: int) -> dict[str, Estimate]:
    """Means of every score, by format and model."""
    names = {
        "probability": "forget_probability",
        "extraction_strength": "extraction_strength",
        "retain_probability": "retain_probability",
    }
    return {
        f"{form}_{name}_{role}": mean_estimate(np.array(scores[score], dtype=float), seed=seed)
        for role, found in measured.items()
        for form, scores in found.items()
        for score, name in names.items()
        if scores[score]
    }


def _retain_changes(measured: Mapping[Role, Mapping[str, MeasuredLists]], seed: int) -> dict[str, Estimate]:
    """What rounding did to what is to stay: after - before, paired over examples; below 0 is damage."""
    return {
        f"{form}_retain_change_{role}": mean_estimate(
            np.array(scores["retain_probability"], dtype=float) - np.array(found[AS_SHIPPED]["retain_probability"]),
            seed=seed,
        )
        for role, found in measured.items()
        for form, scores in found.items()
        if form != AS_SHIPPED and scores["retain_probability"]
    }


def _scored(values: Any) -> Float[np.ndarray, " scored"]:
    array = np.array(values, dtype=float)
    return array[np.isfinite(array)]


def _records(measured: Mapping[Role, Mapping[str, MeasuredLists]], bench: Workbench) -> list[dict[str, Any]]:
    """Every example in every model and format."""
    records: list[dict[str, Any]] = []
    for role, found in measured.items():
        for form, scores in found.items():
            about = {"model": role, "format": form}
            for place, example in enumerate(bench.subject.forget):
                forget = {score: scores[score][place] for score in ("probability", "extraction_strength")}
                records.append(about | {"set": "forget", "source": example.source, "question": example.prompt} | forget)
            for place, example in enumerate(_retain(bench.subject, bench.settings)):
                kept = {"probability": scores["retain_probability"][place]}
                records.append(about | {"set": "retain", "source": example.source, "question": example.prompt} | kept)
    return records
