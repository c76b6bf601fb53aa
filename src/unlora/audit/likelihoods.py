"""How probable each answer of the forget set is: what most attacks begin with."""

from collections.abc import Sequence
from typing import NamedTuple

from unlora.audit.bench import Workbench
from unlora.audit.subject import Role
from unlora.data.records import ExampleSet
from unlora.metrics import extraction_strength
from unlora.models.score import CompletionScore, score_completions
from unlora.models.wrapping import CausalModel


class Look(NamedTuple):
    """How every example that is looked at stands, in their order."""

    probability: list[float]
    extraction_strength: list[float]

    @classmethod
    def at(cls, scores: Sequence[CompletionScore]) -> "Look":
        """What the scores of their answers say."""
        return cls([one.probability for one in scores], [extraction_strength(one.argmax_match) for one in scores])


def forget_likelihoods(bench: Workbench, role: Role) -> dict[str, list[float]]:
    """Answer probability and extraction strength of every forget example in one of the models."""

    def compute() -> dict[str, list[float]]:
        with bench.subject.acting_as(role) as model:
            return measure_forget_set(model, bench)

    return bench.once("forget-likelihoods", role, {}, compute)


def measure_forget_set(model: CausalModel, bench: Workbench) -> dict[str, list[float]]:
    """The same for a model as it is now, such as one under attack."""
    return Look.at(score_set(model, bench, bench.subject.forget))._asdict()


def score_set(model: CausalModel, bench: Workbench, examples: ExampleSet) -> list[CompletionScore]:
    """Score the answer of every example, in order."""
    tokeniser = bench.subject.tokeniser
    return score_completions(
        model,
        [(example.input_ids, example.prompt_length) for example in tokeniser.encode_set(examples)],
        pad_token_id=tokeniser.pad_token_id,
        batch_size=bench.settings.batch_size,
    )
