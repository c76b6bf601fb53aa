"""What probes of one kind give away beyond the control: scored, judged and put into words in one way."""

from collections.abc import Mapping, Sequence

import numpy as np

from unlora.audit.attack import Estimate, Outcome
from unlora.audit.bench import Workbench
from unlora.audit.estimates import mean_estimate, mean_of_scored
from unlora.audit.recovery import NOTEWORTHY
from unlora.audit.sequences import ScoredSequence, mean_log_probs
from unlora.audit.subject import Role
from unlora.metrics.likelihood import ExampleValues

Tables = Mapping[str, Mapping[Role, ExampleValues]]
"""Kind of probe -> role -> answer probability of every probe; NaN is unscored."""


def answer_probabilities(
    bench: Workbench, role: Role, prompts: Sequence[ScoredSequence | None], *, work: str, done: int, total: int
) -> ExampleValues:
    """Of the true answer after each prompt; NaN where there is none.

    Args:
        bench: of the audit.
        role: whom to ask.
        prompts: with the answer; None for one that does not fit into the model.
        work: what the bench calls it.
        done: sequences that were asked before, for the progress.
        total: all of them.
    """
    sequences = [one for one in prompts if one is not None]
    scores = mean_log_probs(bench, role, sequences, work=work, done=done, total=total)
    found = np.full(len(prompts), np.nan)
    found[[place for place, one in enumerate(prompts) if one is not None]] = np.exp(scores)
    return found


def judge_leak(
    phrase: str, table: Mapping[Role, ExampleValues], leak: Estimate, *, items: str, fewest: int = 0
) -> tuple[Outcome, str]:
    """The outcome of one kind of probe, and the finding in plain words.

    Args:
        phrase: how the answer was asked for: "by two hops".
        table: of its probes.
        leak: of them, from `beyond_control`.
        items: what a message calls the probes.
        fewest: of them, for anything to be concluded.
    """
    means = {role: mean_of_scored(values) for role, values in table.items()}
    control = f", control {means['retain_only']:.2f}" if "retain_only" in means else ""
    text = f"{phrase} the answer has a probability of {means['unlearned']:.2f} (target {means['target']:.2f}{control})"
    if leak.value is None or leak.low is None or leak.example_count < fewest:
        return "unclear", f"{text}; {leak.note or f'too few {items} to tell'}"
    outcome: Outcome = "fails" if leak.value >= NOTEWORTHY and leak.low > 0 else "holds"
    return outcome, f"{text}: {leak.value:.0%} of what the target knows beyond the control"


def leak_estimates(tables: Tables, leaks: Mapping[str, Estimate], *, seed: int) -> dict[str, Estimate]:
    """Mean probability of every kind in every model, and what it gives away."""
    found: dict[str, Estimate] = {}
    for kind, table in tables.items():
        for role, values in table.items():
            found[f"{kind}_probability_{role}"] = mean_estimate(values, seed=seed)
        found[f"{kind}_leak"] = leaks[kind]
    return found
