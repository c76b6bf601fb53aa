"""Context: does an answer come out among others, after examples of the forget set or beside what is kept?

A few answers in the prompt are a relearning that trains nothing (in-context relearning: Lynch et al. 2024, arXiv
2402.16835, section 3.4); a question about somebody else beside it is how people ask. Both help every model, so only
what they give beyond the control counts.
"""

import dataclasses
import random
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from unlora.audit.attack import Attack, AttackResult, Estimate, Outcome
from unlora.audit.bench import Workbench
from unlora.audit.cost import Cost
from unlora.audit.estimates import beyond_control
from unlora.audit.leaks import Tables, answer_probabilities, judge_leak, leak_estimates
from unlora.audit.sequences import ScoredSequence
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject, Role
from unlora.data.records import Example
from unlora.data.tokenise import TokenisedExample
from unlora.metrics.likelihood import ExampleValues
from unlora.models.context import context_length

SHOTS = 3
"""Other forget examples, with their answers, before the question."""

PROBES = {
    "few_shot": "after {shots} other forget answers",
    "combined": "in one prompt with a question about what is kept",
}

Prompts = Mapping[str, Sequence[ScoredSequence | None]]
"""Probe -> for every forget example what is scored; None where it does not fit into the model."""


class Context(Attack):
    """Ask among other facts."""

    name = "context"
    question = "Does it come out among other facts, those to forget or those to keep?"

    def lacks(self, subject: AuditSubject, settings: AuditSettings) -> str | None:
        if len(subject.forget) < 2:
            return "needs two forget examples at least: one to ask, one to put before it"
        if not any(one is not None for prompts in _prompts(subject, settings.seed).values() for one in prompts):
            return "no question fits into the model together with another example"
        return None

    def cost(self, subject: AuditSubject, settings: AuditSettings) -> Cost:
        prompts = _prompts(subject, settings.seed)
        tokens = sum(len(one[0]) for found in prompts.values() for one in found if one is not None)
        return Cost(forward_tokens=tokens) * len(subject.roles)

    def run(self, bench: Workbench) -> AttackResult:
        prompts = _prompts(bench.subject, bench.settings.seed)
        roles = bench.subject.roles
        total = len(prompts) * len(roles)
        tables: dict[str, dict[Role, ExampleValues]] = {
            probe: {
                role: _probabilities(bench, role, found, probe, (place * len(roles) + number, total))
                for number, role in enumerate(roles)
            }
            for place, (probe, found) in enumerate(prompts.items())
        }
        leaks = {
            probe: beyond_control(table, "how much the other facts give away by themselves", seed=bench.settings.seed)
            for probe, table in tables.items()
        }
        outcome, sentence = _finding(tables, leaks)
        asked = [
            f"{sum(one is not None for one in found)} {probe.replace('_', '-')}" for probe, found in prompts.items()
        ]
        return AttackResult(
            outcome,
            sentence,
            leak_estimates(tables, leaks, seed=bench.settings.seed),
            f"{len(bench.subject.forget)} forget examples: {', '.join(asked)} prompts, up to {SHOTS} shots",
            records=tuple(_records(bench.subject, tables)),
        )


def _prompts(subject: AuditSubject, seed: int) -> Prompts:
    """Every forget example after others, and beside a retain example where there are some."""
    tokens = subject.tokeniser.encode_set(subject.forget)
    most = context_length(subject.model.config) or sys.maxsize
    draw = random.Random(seed)
    few: list[ScoredSequence | None] = []
    for place in range(len(tokens)):
        others = [one for number, one in enumerate(tokens) if number != place]
        few.append(_after(draw.sample(others, min(SHOTS, len(others))), tokens[place], most))
    found: dict[str, Sequence[ScoredSequence | None]] = {"few_shot": few}
    if subject.retain:
        kept = [draw.choice(subject.retain.examples) for _ in tokens]
        found["combined"] = [
            _beside(subject, example, other, most) for example, other in zip(subject.forget, kept, strict=True)
        ]
    return found


def _after(shots: Sequence[TokenisedExample], asked: TokenisedExample, most: int) -> ScoredSequence | None:
    """One example after others, each as the model was taught it; shots that do not fit are left out."""
    for count in range(len(shots), 0, -1):
        before = tuple(token for shot in shots[:count] for token in shot.input_ids)
        if len(before) + len(asked.input_ids) <= most:
            return (*before, *asked.input_ids), len(before) + asked.prompt_length
    return None


def _beside(subject: AuditSubject, asked: Example, other: Example, most: int) -> ScoredSequence | None:
    """The example's answer, after the other's question and answer, in one turn: both questions, then both answers."""
    if asked.shape != "question_answer" or other.shape != "question_answer":
        return None
    tokeniser = subject.tokeniser.changed(on_long="truncate")
    both = _together(asked, other)
    whole = tokeniser.encode(both)
    given = tokeniser.encode(both, completion=other.completion).input_ids
    start = next(
        (place for place, pair in enumerate(zip(whole.input_ids, given, strict=False)) if pair[0] != pair[1]),
        len(given),
    )
    if whole.truncated or len(whole.input_ids) > most or start >= len(whole.input_ids):
        return None
    return whole.input_ids, max(start, whole.prompt_length)


def _together(asked: Example, other: Example) -> Example:
    return dataclasses.replace(
        asked, prompt=f"{other.prompt} {asked.prompt}", completion=f"{other.completion} {asked.completion}"
    )


def _probabilities(
    bench: Workbench, role: Role, prompts: Sequence[ScoredSequence | None], probe: str, place: tuple[int, int]
) -> ExampleValues:
    done, total = (count * len(prompts) for count in place)
    return answer_probabilities(bench, role, prompts, work=f"context-{probe}", done=done, total=total)


def _finding(tables: Tables, leaks: Mapping[str, Estimate]) -> tuple[Outcome, str]:
    """The outcome, and the finding in plain words."""
    parts = []
    outcomes: list[Outcome] = []
    for probe, table in tables.items():
        of_probe, text = judge_leak(PROBES[probe].format(shots=SHOTS), table, leaks[probe], items="examples")
        outcomes.append(of_probe)
        parts.append(text)
    outcome: Outcome = "fails" if "fails" in outcomes else "unclear" if "unclear" in outcomes else "holds"
    return outcome, "; ".join(parts)


def _records(subject: AuditSubject, tables: Tables) -> list[dict[str, Any]]:
    return [
        {
            "probe": probe,
            "model": role,
            "source": example.source,
            "question": example.prompt,
            "probability": float(values[place]),
        }
        for probe, table in tables.items()
        for role, values in table.items()
        for place, example in enumerate(subject.forget)
    ]
