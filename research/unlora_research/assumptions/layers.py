"""The layers of one model as two sets see them, and what estimates make of each layer's variances."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor
from transformers import PreTrainedModel

from unlora.data.collate import collate
from unlora.data.records import Example
from unlora.importance.accumulate import Batch, accumulate
from unlora.importance.diagnostics import rank_correlation
from unlora.importance.hooks import measuring
from unlora.importance.published import Probe, inserted
from unlora.models.target_modules import TargetModule, find_target_modules
from unlora.shapes import Weight
from unlora_research.assumptions.accuracy import errors, row_weights
from unlora_research.assumptions.factors import Factors
from unlora_research.assumptions.grid import RANK, SCALING
from unlora_research.assumptions.theorem import Gradients, Truth, best_product, factor_parts, truth_of
from unlora_research.measuring import MeasuredModel


class Layer(NamedTuple):
    """One layer in one model: both sets and their truths."""

    forget: Gradients
    retain: Gradients
    forget_truth: Truth
    retain_truth: Truth

    @property
    def shape(self) -> tuple[int, int]:
        """(d_out, d_in)."""
        return self.forget.outputs.shape[2], self.forget.inputs.shape[2]

    def errors(self, forget: Weight, retain: Weight, limit: Weight) -> dict[str, float]:
        """Of an estimate for either set; `sampling` is its distance from the limit at infinite rank."""
        truth = self.forget_truth.weight.variance
        true_weights = row_weights(truth, self.retain_truth.weight.variance)
        return {
            **errors(forget, truth),
            "ratio_rows": rank_correlation(row_weights(forget, retain), true_weights),
            "sampling": errors(forget, limit)["frobenius"],
        }

    def of_factors(
        self, factors: Factors, forms: Iterable[str], ranks: Iterable[int], seen: Sequence[Gradients] | None = None
    ) -> dict[tuple[str, int], dict[str, float]]:
        """Of every form and rank; the gradients that the factors meet may be those of another network, `seen`."""
        forget, retain = (factor_parts(one, factors) for one in seen or (self.forget, self.retain))
        return {
            (form, rank): self.errors(
                forget.estimate(form, rank), retain.estimate(form, rank), self.forget_truth.limits[form]
            )
            for form in forms
            for rank in ranks
        }

    def in_use(self, factors: Factors, seen: Sequence[Gradients] | None = None) -> dict[str, float]:
        """Of the product of variances at the rank in use."""
        return self.of_factors(factors, ["variances"], [RANK], seen)["variances", RANK]

    def of_limit(self, form: str) -> dict[str, float]:
        """Of the product of exact marginals."""
        limit = self.forget_truth.limits[form]
        return self.errors(limit, self.retain_truth.limits[form], limit)

    def of_best(self) -> dict[str, float]:
        """Of the best product there is."""
        best = best_product(self.forget_truth.weight.variance)
        return self.errors(best, best_product(self.retain_truth.weight.variance), best)


class Network(NamedTuple):
    """A model and the two sets, in one batch each."""

    model: PreTrainedModel
    targets: Mapping[str, TargetModule]
    forget: Batch
    retain: Batch

    @classmethod
    def load(cls, folder: Path, forget: Sequence[Example], retain: Sequence[Example], device: str) -> "Network":
        """Load the model and tokenise both sets for it."""
        model, tokeniser = MeasuredModel.load(folder, device)
        batches = (collate(tokeniser.encode_set(one), tokeniser.pad_token_id) for one in (forget, retain))
        return cls(model, find_target_modules(model), *batches)

    def seen(self, factors: Mapping[str, Factors] | None = None) -> dict[str, tuple[Gradients, Gradients]]:
        """Forget and retain gradients of every layer; with factors, in the network that they make."""
        forget, retain = (self._gradients(one, factors) for one in (self.forget, self.retain))
        return {name: (forget[name], retain[name]) for name in self.targets}

    def _gradients(self, batch: Batch, factors: Mapping[str, Factors] | None) -> dict[str, Gradients]:
        kept = {name: _Kept() for name in self.targets}
        device = self.model.device
        probes = {name: Probe(one.lora_b.to(device), one.lora_a.to(device)) for name, one in (factors or {}).items()}
        with measuring(self.model), inserted(self.targets, probes, SCALING):
            accumulate(self.model, self.targets, [batch], kept, set_name="measured")
        return {name: one.parts[0] for name, one in kept.items()}

    def layers(self) -> dict[str, Layer]:
        """Every layer with its truths."""
        return {name: Layer(*both, *map(truth_of, both)) for name, both in self.seen().items()}


class _Kept:
    """An accumulator that keeps what it is given."""

    def __init__(self) -> None:
        self.parts: list[Gradients] = []

    def update(self, inputs: Tensor, output_gradients: Tensor) -> None:
        self.parts.append(Gradients(inputs.float().cpu(), output_gradients.float().cpu()))

    def skip(self, sample_count: int) -> None:
        raise NotImplementedError("a study's cell is one process")

    def combine(self) -> None:
        raise NotImplementedError("a study's cell is one process")


def short_name(module: str) -> str:
    """Block and kind of a layer, such as 3.down."""
    parts = module.split(".")
    return f"{parts[2]}.{parts[-1].removesuffix('_proj')}"
