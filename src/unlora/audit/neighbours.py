"""Over-forgetting: what else was lost, band by band from the same people to general knowledge.

Benchmarks can look fine while what lies next to the forget set is broken (Ko et al. 2025, Knowledge Holes, arXiv
2511.00030), and damage fades with distance without reaching zero (PreUnlearn, arXiv 2606.18473), so the mean over a
retain set hides it. A run that trained on its retain set has polished just these answers: look at the bands it did not
train on, `far_knowledge` and a `same_person` set of its own, with more trust.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unlora.audit.attack import Attack, AttackResult, Estimate, Outcome
from unlora.audit.bands import BANDS, Neighbour, neighbours
from unlora.audit.bench import Workbench
from unlora.audit.cost import Cost
from unlora.audit.estimates import mean_estimate, ratio_estimate
from unlora.audit.sequences import mean_log_probs
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject, Role
from unlora.metrics.likelihood import ExampleValues

LEAST_KEPT = 0.9
"""A band is damaged when the whole interval of what is kept lies below this share of the target's probability."""
FEWEST = 5
"""A band with fewer examples is reported, not judged: an interval over two or three records is no evidence."""
LEAST_TO_LOSE = 0.05
"""Where the target's mean answer probability is lower, there is nothing to lose: the band is reported, not judged."""


class Neighbours(Attack):
    """Ask what must stay."""

    name = "neighbours"
    question = "Was more forgotten than should be?"

    def lacks(self, subject: AuditSubject, settings: AuditSettings) -> str | None:
        return None  # general knowledge is always at hand

    def cost(self, subject: AuditSubject, settings: AuditSettings) -> Cost:
        chosen = neighbours(subject, limit=settings.max_examples)
        tokens = sum(len(example.input_ids) for example in subject.tokeniser.encode_set(one.example for one in chosen))
        return Cost(forward_tokens=tokens) * len(subject.roles)

    def run(self, bench: Workbench) -> AttackResult:
        chosen = neighbours(bench.subject, limit=bench.settings.max_examples)
        tokens = bench.subject.tokeniser.encode_set(one.example for one in chosen)
        sequences = [(example.input_ids, example.prompt_length) for example in tokens]
        roles = bench.subject.roles
        probability: dict[Role, ExampleValues] = {
            role: np.exp(
                mean_log_probs(
                    bench,
                    role,
                    sequences,
                    work="neighbours",
                    done=place * len(sequences),
                    total=len(roles) * len(sequences),
                )
            )
            for place, role in enumerate(roles)
        }
        found = {band: _in_band(band, chosen, probability, bench.settings.seed) for band in BANDS}
        found = {band: estimates for band, estimates in found.items() if estimates}
        outcome, sentence = judge_neighbours(found)
        return AttackResult(
            outcome,
            sentence,
            damage=True,
            estimates={f"{band}_{name}": value for band, numbers in found.items() for name, value in numbers.items()},
            tested=", ".join(f"{sum(one.band == band for one in chosen)} {_plain(band)}" for band in found),
            records=tuple(_records(chosen, probability)),
        )


def _in_band(
    band: str, chosen: Sequence[Neighbour], probability: Mapping[Role, ExampleValues], seed: int
) -> dict[str, Estimate]:
    """What is kept, and the answer probability of every role; empty for a band without records."""
    members = np.array([one.band == band for one in chosen])
    if not members.any():
        return {}
    kept = ratio_estimate(probability["unlearned"][members], probability["target"][members], seed=seed)
    means = {f"probability_{role}": mean_estimate(values[members], seed=seed) for role, values in probability.items()}
    return {"kept": kept, **means}


def judge_neighbours(found: Mapping[str, Mapping[str, Estimate]]) -> tuple[Outcome, str]:
    """Outcome and finding in plain words, from the estimates of every band.

    Fails when the interval of some band's `kept` (mean answer probability of the unlearned model over the target's: 1
    is all of it) lies wholly below `LEAST_KEPT`. A band is judged when it has examples enough (`FEWEST`) and the target
    knows them (`LEAST_TO_LOSE`).
    """
    judged = {band: numbers["kept"] for band, numbers in found.items() if _can_judge(numbers)}
    if not judged:
        return "unclear", "the target knows too little of what must stay, or there are too few examples to tell"
    damaged = [band for band, kept in judged.items() if kept.high is not None and kept.high < LEAST_KEPT]
    least = min(judged, key=lambda band: judged[band].value or 0)
    kept = judged[least]
    text = (
        f"least is kept of {_plain(least)}: {kept.value:.0%} of the target's answer probability "
        f"({kept.low:.0%} to {kept.high:.0%}, {kept.example_count} examples)"
    )
    others = [f"{_plain(band)} {other.value:.0%}" for band, other in judged.items() if band != least]
    return "fails" if damaged else "holds", f"{text}{'; ' if others else ''}{', '.join(others)}"


def _can_judge(numbers: Mapping[str, Estimate]) -> bool:
    known = numbers["probability_target"].value
    return numbers["kept"].example_count >= FEWEST and known is not None and known >= LEAST_TO_LOSE


def _plain(band: str) -> str:
    return {
        "same_person": "the same people",
        "near": "near neighbours",
        "middle": "middle neighbours",
        "far": "far neighbours",
        "far_knowledge": "general knowledge",
    }[band]


def _records(chosen: Sequence[Neighbour], probability: Mapping[Role, ExampleValues]) -> list[dict[str, Any]]:
    return [
        {
            "model": role,
            "band": one.band,
            "similarity": one.similarity,
            "source": one.example.source,
            "question": one.example.prompt,
            "answer": one.example.completion,
            "probability": float(value),
        }
        for role, values in probability.items()
        for one, value in zip(chosen, values, strict=True)
    ]
