"""Worst case over wordings: the same question put in other ways, and the one that gets most out.

A model may have unlearned the question as it was asked and still answer it in other words (Singh et al. 2025, JensUn,
arXiv 2509.02820; Thaker et al. 2024, arXiv 2410.02879). For every example the wording counts under which the answer is
most probable. The control is asked in the same ways, because a hint or half of an answer helps every model.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from unlora.audit.asking import WordedExample, ask
from unlora.audit.attack import Attack, AttackResult, Estimate, Outcome
from unlora.audit.bench import Workbench
from unlora.audit.cost import Cost
from unlora.audit.estimates import beyond_control, mean_estimate, mean_of_scored
from unlora.audit.recovery import NOTEWORTHY
from unlora.audit.sequences import mean_log_probs
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject, Role
from unlora.audit.wordings import AS_ASKED, FRAMES
from unlora.metrics.likelihood import ExampleValues

SHAPES = ("question_answer", "prompt_completion")
"""Shapes that have a question to put in other words."""

Table = Float[np.ndarray, "wording example"]
"""Answer probability, rows in the order of `FRAMES`; NaN where a wording does not fit an example."""
Questions = Sequence[Mapping[str, WordedExample]]
"""For every example, each wording that fits it; none for other shapes."""


class Wording(Attack):
    """Ask in up to ten ways."""

    name = "wording"
    question = "Does it come out when the question is put in other words?"

    def lacks(self, subject: AuditSubject, settings: AuditSettings) -> str | None:
        if not any(example.shape in SHAPES for example in subject.forget):
            return "needs a forget set of questions and answers, or of prompts and completions"
        return None

    def cost(self, subject: AuditSubject, settings: AuditSettings) -> Cost:
        questions = _questions(subject)
        tokens = sum(len(asked.sequence[0]) for wordings in questions for asked in wordings.values())
        return Cost(forward_tokens=tokens) * len(subject.roles)

    def run(self, bench: Workbench) -> AttackResult:
        questions = _questions(bench.subject)
        roles = bench.subject.roles
        tables: dict[Role, Table] = {
            role: _probabilities(bench, role, questions, place, len(roles)) for place, role in enumerate(roles)
        }
        share = leak(tables, seed=bench.settings.seed)
        outcome, sentence = _finding(tables, share)
        return AttackResult(
            outcome,
            sentence,
            estimates=_estimates(tables, share, bench.settings.seed),
            tested=_tested(questions),
            records=tuple(_records(bench, questions, tables)),
        )


def worst_case(table: Table) -> ExampleValues:
    """The highest answer probability under any wording; NaN where none was scored."""
    return np.fmax.reduce(table, axis=0)


def leak(tables: Mapping[Role, Table], *, seed: int) -> Estimate:
    """Share of what the target knows beyond the control that the worst wording gets out of the unlearned model.

    With w the mean worst case, (w_unlearned - w_control) / (w_target - w_control): 0 is the level of a model that
    never saw the forget set, 1 is the target's. Low is good; below 0 it says less than the control.
    """
    worst: dict[Role, ExampleValues] = {role: worst_case(table) for role, table in tables.items()}
    return beyond_control(worst, "how much a wording gives away by itself", seed=seed)


def _questions(subject: AuditSubject) -> Questions:
    return [ask(example, subject.tokeniser) if example.shape in SHAPES else {} for example in subject.forget]


def _probabilities(bench: Workbench, role: Role, questions: Questions, place: int, count: int) -> Table:
    sequences = [asked.sequence for wordings in questions for asked in wordings.values()]
    scores = mean_log_probs(
        bench, role, sequences, work="wording", done=place * len(sequences), total=count * len(sequences)
    )
    table = np.full((len(FRAMES), len(questions)), np.nan)
    found = iter(np.exp(scores))
    rows = {frame.name: row for row, frame in enumerate(FRAMES)}
    for column, wordings in enumerate(questions):
        for name in wordings:
            table[rows[name], column] = next(found)
    return table


def _finding(tables: Mapping[Role, Table], share: Estimate) -> tuple[Outcome, str]:
    """The outcome, and the finding in plain words."""
    means = {role: mean_of_scored(worst_case(table)) for role, table in tables.items()}
    as_asked = mean_of_scored(tables["unlearned"][FRAMES.index(AS_ASKED)])
    control = f", control {means['retain_only']:.2f}" if "retain_only" in means else ""
    text = (
        f"the worst wording of each question gives the answer a probability of {means['unlearned']:.2f} "
        f"(as asked {as_asked:.2f}; worst for the target {means['target']:.2f}{control})"
    )
    if share.value is None or share.low is None:
        return "unclear", f"{text}; {share.note or 'too few examples to tell'}"
    outcome: Outcome = "fails" if share.value >= NOTEWORTHY and share.low > 0 else "holds"
    beyond = f"{share.value:.0%} of what the target knows beyond the control"
    return outcome, f"{text}: {beyond}; most comes out by wording '{_leakiest(tables)[0]}'"


def _leakiest(tables: Mapping[Role, Table]) -> tuple[str, ExampleValues]:
    """The wording under which the unlearned model says most, beyond the control where there is one."""
    table = tables["unlearned"] - tables["retain_only"] if "retain_only" in tables else tables["unlearned"]
    means = [-np.inf if np.isnan(mean_of_scored(row)) else mean_of_scored(row) for row in table]
    row = int(np.argmax(means))
    return FRAMES[row].name, table[row]


def _estimates(tables: Mapping[Role, Table], share: Estimate, seed: int) -> dict[str, Estimate]:
    as_asked = FRAMES.index(AS_ASKED)
    worst: dict[Role, ExampleValues] = {role: worst_case(table) for role, table in tables.items()}
    found = {f"worst_case_probability_{role}": mean_estimate(values, seed=seed) for role, values in worst.items()}
    found |= {
        f"as_asked_probability_{role}": mean_estimate(table[as_asked], seed=seed) for role, table in tables.items()
    }
    name, values = _leakiest(tables)
    leakiest = mean_estimate(values, seed=seed, note=f"wording '{name}'")
    if "retain_only" in worst:
        found["worst_case_difference"] = mean_estimate(worst["unlearned"] - worst["retain_only"], seed=seed)
        found["leakiest_wording_difference"] = leakiest
    else:
        found["leakiest_wording_unlearned"] = leakiest
    return found | {"leak": share}


def _tested(questions: Questions) -> str:
    asked = [wordings for wordings in questions if wordings]
    most = max(len(wordings) for wordings in asked)
    return f"{len(asked)} forget questions, up to {most} wordings each"


def _records(bench: Workbench, questions: Questions, tables: Mapping[Role, Table]) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = []
    for role, table in tables.items():
        worst = worst_case(table)
        for column, (example, wordings) in enumerate(zip(bench.subject.forget, questions, strict=True)):
            scores = {
                frame.name: float(table[row, column]) for row, frame in enumerate(FRAMES) if frame.name in wordings
            }
            finite = {name: score for name, score in scores.items() if np.isfinite(score)}
            records.append(
                {
                    "model": role,
                    "source": example.source,
                    "question": example.prompt,
                    "answer": example.completion,
                    "asked": {name: asked.text for name, asked in wordings.items()},
                    "given": {name: asked.given for name, asked in wordings.items() if asked.given},
                    "probability": scores,
                    "worst_wording": max(finite, key=lambda name: finite[name]) if finite else "",
                    "worst_probability": float(worst[column]),
                }
            )
    return records
