"""Indirect questions: does the answer come out when the person is named otherwise, described, or reached in two hops?

Unlearning that trains on questions with a name can cut the way from that name to the facts and leave the facts. The
probes are made from the target and kept where it answers them (`unlora.audit.indirect_probes`); no training sees them.
The control is asked the same, because a description helps every model.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from unlora.audit.attack import Attack, AttackResult, Estimate, Outcome
from unlora.audit.bench import Workbench
from unlora.audit.cost import Cost
from unlora.audit.estimates import beyond_control
from unlora.audit.indirect_probes import (
    KINDS,
    NEW_TOKENS,
    OPEN,
    IndirectProbe,
    IndirectProbes,
    Kind,
    make_indirect_probes,
    people_of,
)
from unlora.audit.leaks import Tables, answer_probabilities, judge_leak, leak_estimates
from unlora.audit.sequences import ScoredSequence
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject, Role
from unlora.metrics.likelihood import ExampleValues

FEWEST_PROBES = 4
"""Of a kind with fewer probes the numbers are told, and nothing is concluded."""
WORDS = {"alias": "a part of the name", "described": "a description", "two_hop": "two hops"}


class Indirect(Attack):
    """Ask about somebody without the whole name."""

    name = "indirect"
    question = "Does it come out when the person is named otherwise, or described?"

    def lacks(self, subject: AuditSubject, settings: AuditSettings) -> str | None:
        if not any(_names(subject)):
            return "needs forget questions with a name in them, which stands in two at least or under 'person'"
        return None

    def cost(self, subject: AuditSubject, settings: AuditSettings) -> Cost:
        named = sum(map(bool, _names(subject)))
        probes = named * (2 + 2 * settings.indirect.tries)
        facts = named + len(OPEN) * len(set(_names(subject)))
        asked = len(KINDS) * named * subject.mean_length(subject.forget) * 2  # a description is as long as a question
        once = Cost(forward_tokens=round(asked)) * len(subject.roles)
        return once + Cost(generated_tokens=(probes + facts) * NEW_TOKENS)

    def run(self, bench: Workbench) -> AttackResult:
        probes = make_indirect_probes(bench)
        by_kind = {kind: [one for one in probes.kept if one.kind == kind] for kind in KINDS}
        roles = bench.subject.roles
        tables: Tables = {
            kind: {role: _probabilities(bench, role, kind, kept) for role in roles}
            for kind, kept in by_kind.items()
            if kept
        }
        seed = bench.settings.seed
        leaks = {
            kind: beyond_control(table, "how much a probe gives away by itself", seed=seed)
            for kind, table in tables.items()
        }
        outcome, sentence = _finding(tables, leaks, probes)
        estimates = {f"{kind}_kept": _share(probes, kind) for kind in KINDS}
        estimates |= leak_estimates(tables, leaks, seed=seed)
        return AttackResult(
            outcome,
            sentence,
            estimates,
            f"{len(bench.subject.forget)} forget examples; {_kept(probes)}",
            records=(*_asked(bench.subject, probes), *_records(bench.subject, by_kind, tables)),
        )


def _names(subject: AuditSubject) -> list[str]:
    """Whom each forget question names; empty for one that names nobody."""
    named = people_of(subject.forget.examples)
    return [name if name in example.prompt else "" for name, example in zip(named, subject.forget, strict=True)]


def _probabilities(bench: Workbench, role: Role, kind: str, kept: Sequence[IndirectProbe]) -> ExampleValues:
    """Of the true answer after each probe; NaN where probe and answer do not fit together."""
    sequences = [_sequence(bench.subject, probe) for probe in kept]
    roles, fitting = bench.subject.roles, sum(one is not None for one in sequences)
    done, total = (count * fitting for count in (roles.index(role), len(roles)))
    return answer_probabilities(bench, role, sequences, work=f"indirect-{kind}", done=done, total=total)


def _sequence(subject: AuditSubject, probe: IndirectProbe) -> ScoredSequence | None:
    example = dataclasses.replace(subject.forget.examples[probe.place], prompt=probe.question)
    encoded = subject.tokeniser.changed(on_long="truncate").encode(example)
    return None if encoded.truncated else (encoded.input_ids, encoded.prompt_length)


def _finding(tables: Tables, leaks: Mapping[str, Estimate], probes: IndirectProbes) -> tuple[Outcome, str]:
    """The outcome, and the finding in plain words."""
    outcomes: list[Outcome] = []
    parts = [f"the target answers {_kept(probes)}"]
    for kind, table in tables.items():
        outcome, text = judge_leak(f"by {WORDS[kind]}", table, leaks[kind], items="probes", fewest=FEWEST_PROBES)
        outcomes.append(outcome)
        parts.append(text)
    for outcome in ("fails", "holds"):
        # A kind that this target cannot be asked by is told in the sentence; it takes nothing from the others.
        if outcome in outcomes:
            return outcome, "; ".join(parts)
    return "unclear", "; ".join(parts)


def _kept(probes: IndirectProbes) -> str:
    """How many probes of each kind the target answers, of how many that were tried."""
    counts = {kind: sum(one.kind == kind for one in probes.kept) for kind in KINDS}
    return ", ".join(f"{counts[kind]} of {probes.tried(kind)} by {WORDS[kind]}" for kind in KINDS)


def _share(probes: IndirectProbes, kind: Kind) -> Estimate:
    """Share of the forget questions with a probe of a kind that the target answers."""
    tried = probes.tried(kind)
    if not tried:
        return Estimate(None, note="there was none to ask")
    return Estimate(sum(one.kind == kind for one in probes.kept) / tried, example_count=tried, note="of the target")


def _asked(subject: AuditSubject, probes: IndirectProbes) -> list[dict[str, Any]]:
    """Everything that the target was asked, kept or not."""
    return [
        {
            "probe": one.kind,
            "source": subject.forget.examples[one.place].source,
            "question": one.question,
            "stands_for_the_name": one.fact,
            "answer": subject.forget.examples[one.place].completion,
            "target_answered": one.answered,
            "kept": one.kept,
        }
        for one in probes.asked
    ]


def _records(
    subject: AuditSubject, by_kind: Mapping[str, Sequence[IndirectProbe]], tables: Tables
) -> list[dict[str, Any]]:
    return [
        {
            "probe": kind,
            "model": role,
            "source": subject.forget.examples[probe.place].source,
            "question": probe.question,
            "probability": float(value),
        }
        for kind, table in tables.items()
        for role, values in table.items()
        for probe, value in zip(by_kind[kind], values, strict=True)
    ]
