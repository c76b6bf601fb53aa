"""Relearning: a little fine-tuning, and what it brings back that the same fine-tuning does not teach the control.

Hu et al. 2024 (arXiv 2406.13356): fine-tune on a few forget examples and look at the others. Deeb & Roger 2024
(arXiv 2410.08827): what is tested must not be in what is trained on. Lucki et al. 2024 (arXiv 2409.18025): unrelated
text can be enough. The control (the retain-only model) shows what the attack itself teaches; only the excess counts.
"""

import random
from typing import Any

import numpy as np

from unlora.audit.attack import Attack, AttackResult, Estimate
from unlora.audit.attackers import LoraAttacker
from unlora.audit.bench import Workbench
from unlora.audit.cost import Cost
from unlora.audit.course import Course, measured_steps, relearn
from unlora.audit.likelihoods import forget_likelihoods
from unlora.audit.recovery import Recovery, RelearningVariant, find, overall, records, sentence, strengths
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject, Role
from unlora.data.people import generate_people
from unlora.data.records import ExampleSet

UNRELATED_PEOPLE = 2
"""Fictitious people of variant "unrelated", six questions each: about what an attacker writes in ten minutes."""


class Relearning(Attack):
    """Fine-tune the unlearned model and the control in the same way."""

    name = "relearning"
    question = "Does a little fine-tuning bring it back?"

    def lacks(self, subject: AuditSubject, settings: AuditSettings) -> str | None:
        if len(subject.forget) < 2:
            return "needs two forget examples at least: one to train on, one to test"
        return None

    def cost(self, subject: AuditSubject, settings: AuditSettings) -> Cost:
        chosen = settings.relearning
        tokens = subject.mean_length(subject.forget)
        once = Cost(
            forward_tokens=round((len(measured_steps(chosen)) - 1) * len(subject.forget) * tokens),
            training_tokens=round(chosen.steps * chosen.batch_size * tokens),
        )
        return once * (len(subject.attacked) * len(chosen.variants) * len(chosen.seeds))

    def run(self, bench: Workbench) -> AttackResult:
        subject, chosen = bench.subject, bench.settings.relearning
        plans = [plan for variant in chosen.variants for seed in chosen.seeds for plan in [_plan(variant, seed, bench)]]
        roles = subject.attacked
        target = np.array(forget_likelihoods(bench, "target")["probability"])
        findings: list[Recovery] = []
        estimates: dict[str, Estimate] = {}
        kept: list[dict[str, Any]] = []
        for place, plan in enumerate(plans):
            courses: dict[Role, Course] = {
                role: _course(bench, plan, role, place * len(roles) + number, len(plans) * len(roles))
                for number, role in enumerate(roles)
            }
            findings.append(
                find(plan, courses["unlearned"], courses.get("retain_only"), target, seed=bench.settings.seed)
            )
            estimates |= findings[-1].estimates() | strengths(plan, courses, seed=bench.settings.seed)
            kept += records(plan, courses, subject.forget)
        seeds = f"{len(chosen.seeds)} seed{'s' if len(chosen.seeds) > 1 else ''}"
        return AttackResult(
            overall(findings),
            sentence(findings),
            estimates,
            f"{len(subject.forget)} forget examples, {chosen.steps} steps of {chosen.batch_size}, {seeds}",
            tuple(curve for finding in findings for curve in finding.curves()),
            "optimiser steps of the attack",
            "share that is back",
            tuple(kept),
        )


def _plan(variant: str, seed: int, bench: Workbench) -> RelearningVariant:
    forget = bench.subject.forget
    everything = tuple(range(len(forget)))
    if variant == "unrelated":
        return RelearningVariant(variant, seed, generate_people(UNRELATED_PEOPLE, seed=1000 + seed), everything)
    if variant == "full":
        return RelearningVariant(variant, seed, forget, everything)
    count = min(len(forget) - 1, max(1, round(bench.settings.relearning.fraction * len(forget))))
    taught = sorted(random.Random(seed).sample(everything, count))
    examples = ExampleSet("few", tuple(forget.examples[index] for index in taught))
    return RelearningVariant(variant, seed, examples, tuple(index for index in everything if index not in taught))


def _course(bench: Workbench, plan: RelearningVariant, role: Role, place: int, count: int) -> Course:
    subject, chosen = bench.subject, bench.settings.relearning

    def progress(step: int) -> None:
        bench.progress(f"{plan.label} on {role}", place * chosen.steps + step, count * chosen.steps)

    def compute() -> dict[str, list[list[float]]]:
        attacker = LoraAttacker(chosen.learning_rate, rank=chosen.rank)
        with subject.acting_as(role) as model:
            course = relearn(
                model,
                subject.tokeniser,
                plan.examples,
                subject.forget,
                attacker,
                chosen,
                seed=plan.seed,
                batch_size=bench.settings.batch_size,
                progress=progress,
            )
        return {
            "probability": course.probability.tolist(),
            "extraction_strength": course.extraction_strength.tolist(),
        }

    key = chosen.model_dump(exclude={"variants", "seeds", "fraction"}) | {
        "variant": plan.variant,
        "seed": plan.seed,
        "examples": plan.examples.sha256(),
    }
    found = bench.once("relearning", role, key, compute)
    progress(chosen.steps)
    return Course(
        tuple(measured_steps(chosen)),
        np.array(found["probability"], dtype=float),
        np.array(found["extraction_strength"], dtype=float),
    )
