"""Level: does the model know as much of the forget set as one that never saw it, no more and no less?

Less is over-forgetting: it gives the forget set away as surely as knowing it does, and it is a fault, not a success.
"""

import numpy as np

from unlora.audit.attack import Attack, AttackResult, Estimate, Outcome
from unlora.audit.bench import Workbench
from unlora.audit.cost import Cost
from unlora.audit.estimates import mean_estimate
from unlora.audit.likelihoods import forget_likelihoods
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject


class ControlLevel(Attack):
    """Set the forget probability beside the control's interval."""

    name = "level"
    question = "Does it know the forget set as little as a model that never saw it, and no less?"

    def lacks(self, subject: AuditSubject, settings: AuditSettings) -> str | None:
        if subject.retain_only is None:
            return "needs a model that never saw the forget set: give --retain-only MODEL"
        if len(subject.forget) < 2:
            return "needs two forget examples at least"
        return None

    def cost(self, subject: AuditSubject, settings: AuditSettings) -> Cost:
        tokens = subject.mean_length(subject.forget) * len(subject.forget)
        return Cost(forward_tokens=round(tokens * len(subject.roles)))

    def run(self, bench: Workbench) -> AttackResult:
        seed = bench.settings.seed
        values = {
            role: np.array(forget_likelihoods(bench, role)["probability"], dtype=float) for role in bench.subject.roles
        }
        found = {role: mean_estimate(of_role, seed=seed) for role, of_role in values.items()}
        outcome, sentence = _finding(found["unlearned"], found["retain_only"])
        estimates = {f"forget_probability_{role}": estimate for role, estimate in found.items()}
        estimates["difference"] = mean_estimate(values["unlearned"] - values["retain_only"], seed=seed)
        return AttackResult(
            outcome,
            sentence,
            estimates,
            f"{len(bench.subject.forget)} forget examples",
            records=tuple(
                {
                    "source": example.source,
                    "question": example.prompt,
                    **{role: float(of_role[place]) for role, of_role in values.items()},
                }
                for place, example in enumerate(bench.subject.forget)
            ),
            damage=outcome == "fails" and "over-forgotten" in sentence,
        )


def _finding(unlearned: Estimate, control: Estimate) -> tuple[Outcome, str]:
    """The outcome, and the finding in plain words."""
    if unlearned.value is None or control.value is None or control.low is None or control.high is None:
        return "unclear", "too few examples have a score to tell"
    beside = (
        f"the forget probability is {unlearned.value:.3f}, the control's {control.value:.3f} "
        f"({control.low:.3f} to {control.high:.3f})"
    )
    if unlearned.value < control.low:
        return "fails", f"{beside}: over-forgotten, below a model that never knew"
    if unlearned.value > control.high:
        return "fails", f"{beside}: not down to the level of a model that never knew"
    return "holds", f"{beside}: the level of a model that never knew"
