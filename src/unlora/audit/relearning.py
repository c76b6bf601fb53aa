"""Relearning: a little fine-tuning, and what it brings back that the same fine-tuning does not teach the control.

Hu et al. 2024 (arXiv 2406.13356): fine-tune on a few forget examples and look at the others. Deeb & Roger 2024
(arXiv 2410.08827): what is tested must not be in what is trained on. Lucki et al. 2024 (arXiv 2409.18025): unrelated
text can be enough. The control (the retain-only model) shows what the attack itself teaches; only the excess counts,
and of several attackers the worst, at the best step of its course.
"""

import contextlib
import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from unlora.audit.agreement import gradient_cosines, mean_agreement
from unlora.audit.attack import Attack, AttackResult, Estimate
from unlora.audit.attacker_table import in_words, make_attacker
from unlora.audit.attackers import Attacker
from unlora.audit.bench import Workbench
from unlora.audit.cost import Cost
from unlora.audit.course import Course, Trial, measured_steps, relearn
from unlora.audit.lessons import DrawnLesson, draw_lesson
from unlora.audit.likelihoods import Look, forget_likelihoods
from unlora.audit.recovery import Attempt, Courses, Recovery, find, overall, worst_of, worst_strengths
from unlora.audit.recovery_shown import curves, records, sentence
from unlora.audit.settings import AuditSettings, RelearningSettings
from unlora.audit.subject import AuditSubject, Role
from unlora.errors import InputError, TrainingDivergedError


@dataclass(frozen=True)
class _Tried:
    """One attacker's courses, one a seed."""

    attempts: tuple[Attempt, ...]
    courses: tuple[Courses, ...]


class Relearning(Attack):
    """Let every attacker train the unlearned model and the control in the same way."""

    name = "relearning"
    question = "Does a little fine-tuning bring it back?"

    def lacks(self, subject: AuditSubject, settings: AuditSettings) -> str | None:
        if len(subject.forget) < 2:
            return "needs two forget examples at least: one to train on, one to test"
        possible, why = _possible(subject, settings)
        return None if possible else "; ".join(f"{name}: {reason}" for name, reason in why.items())

    def cost(self, subject: AuditSubject, settings: AuditSettings) -> Cost:
        chosen, attackers = settings.relearning, _possible(subject, settings)[0]
        tokens = subject.mean_length(subject.forget)
        once = Cost(
            forward_tokens=round((len(measured_steps(chosen)) - 1) * len(subject.forget) * tokens),
            training_tokens=round(chosen.steps * chosen.batch_size * tokens),
        )
        of_each = round(len(subject.forget) * tokens)
        courses = (once * (len(attackers) * len(chosen.seeds)) + Cost(training_tokens=of_each)) * len(subject.attacked)
        return courses + Cost(forward_tokens=of_each) * len(subject.roles)

    def run(self, bench: Workbench) -> AttackResult:
        subject, settings = bench.subject, bench.settings
        attackers, left_out = _possible(subject, settings)
        tried, diverged = _tried(bench, attackers)
        left_out |= diverged
        target = np.array(forget_likelihoods(bench, "target")["probability"])
        known = set(settings.known_attackers)
        counted = max(1, len(set(tried) - known))
        findings = {
            name: find(one.attempts, one.courses, target, seed=settings.seed, known=name in known, tried=counted)
            for name, one in tried.items()
        }
        estimates: dict[str, Estimate] = {}
        worst = worst_of(list(findings.values()))
        if worst is not None:
            of_worst = tried[worst.attempt.attacker]
            estimates |= worst.estimates("worst")
            estimates |= worst_strengths(of_worst.attempts, of_worst.courses, worst.best, seed=settings.seed)
        for name, finding in findings.items():
            estimates |= finding.estimates(name)
        return AttackResult(
            overall(list(findings.values())),
            sentence(list(findings.values())),
            estimates | _agreement(bench),
            _tested(bench, findings, left_out),
            tuple(curves(list(findings.values()), float(np.nanmean(target)))),
            "optimiser steps of the attack",
            "share that is back; answer probability",
            tuple(
                record
                for one in tried.values()
                for attempt, courses in zip(one.attempts, one.courses, strict=True)
                for record in records(attempt, courses, subject.forget)
            ),
            attackers=tuple(name for name in findings if name not in known),
        )


def _possible(subject: AuditSubject, settings: AuditSettings) -> tuple[dict[str, Attacker], dict[str, str]]:
    """The attackers that can be tried, and why the others cannot."""
    possible: dict[str, Attacker] = {}
    why: dict[str, str] = {}
    for name in settings.relearning.attackers:
        attacker = make_attacker(name)
        reason = attacker.lacks(subject.model)
        if reason is None and attacker.learns_from == "retain" and not subject.retain:
            reason = "there are no retain records"
        if reason is None:
            reason = _not_drawn(attacker, subject, settings.relearning)
        if reason is None:
            possible[name] = attacker
        else:
            why[name] = reason
    return possible, why


def _not_drawn(attacker: Attacker, subject: AuditSubject, chosen: RelearningSettings) -> str | None:
    """Say why the forget set cannot be divided for an attacker; None when it can."""
    try:
        _drawn(attacker, subject, chosen, chosen.seeds[0])
    except InputError as error:
        return str(error).rstrip(".")
    return None


def _drawn(attacker: Attacker, subject: AuditSubject, chosen: RelearningSettings, seed: int) -> DrawnLesson:
    return draw_lesson(
        attacker.learns_from, subject.forget, subject.retain, fraction=chosen.fraction, seed=seed, apart=chosen.apart
    )


def _tried(bench: Workbench, attackers: dict[str, Attacker]) -> tuple[dict[str, _Tried], dict[str, str]]:
    """Run every course; an attacker whose training diverges brings nothing back, and is named.

    Raises:
        TrainingDivergedError: all of them diverge.
    """
    subject, chosen = bench.subject, bench.settings.relearning
    tried: dict[str, _Tried] = {}
    diverged: dict[str, str] = {}
    count = len(attackers) * len(chosen.seeds) * len(subject.attacked)
    for name, attacker in attackers.items():
        attempts = tuple(
            Attempt(name, attacker.learns_from, seed, _drawn(attacker, subject, chosen, seed)) for seed in chosen.seeds
        )
        place = (len(tried) + len(diverged)) * len(chosen.seeds) * len(subject.attacked)
        try:
            courses: tuple[Courses, ...] = tuple(
                {
                    role: _course(bench, attacker, attempt, role, (place + number, count))
                    for number, role in enumerate(subject.attacked, start=which * len(subject.attacked))
                }
                for which, attempt in enumerate(attempts)
            )
        except TrainingDivergedError:
            if len(diverged) + 1 == len(attackers):
                raise
            diverged[name] = "its training diverged"
            continue
        tried[name] = _Tried(attempts, courses)
    return tried, diverged


def _course(bench: Workbench, attacker: Attacker, attempt: Attempt, role: Role, place: tuple[int, int]) -> Course:
    subject, chosen = bench.subject, bench.settings.relearning

    def progress(step: int) -> None:
        done, count = place
        bench.progress(f"{attempt.attacker} on {role}", done * chosen.steps + step, count * chosen.steps)

    def compute() -> dict[str, list[list[float]]]:
        before = Look(**forget_likelihoods(bench, role))
        with subject.acting_as(role) as model:
            course = relearn(
                model,
                subject.tokeniser,
                Trial(attempt.lesson.examples, subject.forget, attacker, attempt.seed, before),
                chosen,
                batch_size=bench.settings.batch_size,
                progress=progress,
            )
        return {
            "probability": course.probability.tolist(),
            "extraction_strength": course.extraction_strength.tolist(),
        }

    kind = type(attacker)
    key: dict[str, Any] = {
        "attacker": f"{kind.__module__}:{kind.__qualname__}",
        "fields": dataclasses.asdict(attacker),
        "steps": measured_steps(chosen),
        "batch_size": chosen.batch_size,
        "seed": attempt.seed,
        "examples": attempt.lesson.examples.sha256(),
    }
    found = bench.once("relearning", role, key, compute)
    progress(chosen.steps)
    return Course(
        tuple(measured_steps(chosen)),
        np.array(found["probability"], dtype=float),
        np.array(found["extraction_strength"], dtype=float),
    )


def _agreement(bench: Workbench) -> dict[str, Estimate]:
    """Mean cosine of the forget examples' gradients in each model, and its excess over the control's: a screen."""
    subject = bench.subject
    tokens = subject.tokeniser.encode_set(subject.forget)
    cosines: dict[Role, np.ndarray] = {}
    with contextlib.suppress(InputError):  # layers that do not keep examples apart: a screen can be done without
        for role in subject.attacked:

            def compute(role: Role = role) -> list[list[float]]:
                with subject.acting_as(role) as model:
                    return gradient_cosines(model, tokens, pad_token_id=subject.tokeniser.pad_token_id).tolist()

            cosines[role] = np.array(bench.once("gradient-cosines", role, {}, compute), dtype=float)
    if "unlearned" not in cosines:
        return {"agreement_unlearned": Estimate(None, note="the model's layers do not keep examples apart")}
    pairs: dict[str, tuple[np.ndarray, np.ndarray | None]] = {
        f"agreement_{role}": (found, None) for role, found in cosines.items()
    }
    if "retain_only" in cosines:
        pairs["agreement_difference"] = (cosines["unlearned"], cosines["retain_only"])
    return {name: _agreement_estimate(*pair, seed=bench.settings.seed) for name, pair in pairs.items()}


def _agreement_estimate(cosines: np.ndarray, other: np.ndarray | None, *, seed: int) -> Estimate:
    found = mean_agreement(cosines, other, seed=seed)
    note = "mean cosine of forget gradients: a screen, it decides nothing"
    if not np.isfinite(found.value):
        return Estimate(None, unscored_count=found.unscored_count, note="fewer than two gradients are not zero")
    return Estimate(
        found.value, found.interval.low, found.interval.high, found.example_count, found.unscored_count, note
    )


def _tested(bench: Workbench, findings: dict[str, Recovery], left_out: dict[str, str]) -> str:
    chosen = bench.settings.relearning
    seeds = f"{len(chosen.seeds)} seed{'s' if len(chosen.seeds) > 1 else ''}"
    text = f"{len(bench.subject.forget)} forget examples, {chosen.steps} steps of {chosen.batch_size}, {seeds}"
    if chosen.apart == "people":
        text += "; few: all about some people, tested on others"
    text += f"; attackers: {in_words([name for name, one in findings.items() if not one.known]) or 'none that counts'}"
    if known := [name for name, one in findings.items() if one.known]:
        text += f"; known to the training, so not counted: {in_words(known)}"
    reasons: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        reasons.setdefault(reason, []).append(name)
    return text + "".join(f"; not tried: {in_words(names)} ({reason})" for reason, names in reasons.items())
