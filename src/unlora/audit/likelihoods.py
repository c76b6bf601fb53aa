"""How probable each answer of the forget set is: what most attacks begin with."""

from unlora.audit.bench import Workbench
from unlora.audit.subject import Role
from unlora.data.records import ExampleSet
from unlora.metrics import extraction_strength
from unlora.models.score import CompletionScore, score_completions
from unlora.models.wrapping import CausalModel


def forget_likelihoods(bench: Workbench, role: Role) -> dict[str, list[float]]:
    """Answer probability and extraction strength of every forget example in one of the models."""

    def compute() -> dict[str, list[float]]:
        with bench.subject.acting_as(role) as model:
            return measure_forget_set(model, bench)

    return bench.once("forget-likelihoods", role, {}, compute)


def measure_forget_set(model: CausalModel, bench: Workbench) -> dict[str, list[float]]:
    """The same for a model as it is now, such as one under attack."""
    scores = score_set(model, bench, bench.subject.forget)
    return {
        "probability": [score.probability for score in scores],
        "extraction_strength": [extraction_strength(score.argmax_match) for score in scores],
    }


def score_set(model: CausalModel, bench: Workbench, examples: ExampleSet) -> list[CompletionScore]:
    """Score the answer of every example, in order."""
    tokeniser = bench.subject.tokeniser
    return score_completions(
        model,
        [(example.input_ids, example.prompt_length) for example in tokeniser.encode_set(examples)],
        pad_token_id=tokeniser.pad_token_id,
        batch_size=bench.settings.batch_size,
    )
