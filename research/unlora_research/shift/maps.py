"""How large the mean gradient of a set is, and what it does to a map."""

from collections.abc import Mapping, Sequence
from statistics import fmean, median
from typing import NamedTuple

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.importance import module_ratio
from unlora.importance.accumulate import accumulate
from unlora.importance.diagnostics import rank_correlation
from unlora.importance.hooks import measuring
from unlora.importance.importance_map import MarginalImportance, ModuleImportance
from unlora.importance.moments import StatisticName
from unlora.importance.spaces import MarginalStatistics
from unlora.models.score import score_completions
from unlora.models.target_modules import find_target_modules
from unlora_research.engine import Row

STATISTICS: tuple[StatisticName, ...] = ("variance", "second_moment")


class SetRows(NamedTuple):
    """What one set says about one module: either statistic of its gradients."""

    statistics: Mapping[StatisticName, MarginalImportance]
    energy: float
    """Mean squared norm of an example's gradient."""
    squared_mean: float
    """Share of it in the squared norm of the mean, unbiased."""


def compare_maps(
    model: PreTrainedModel, forget: Sequence[TokenisedExample], retain: Sequence[TokenisedExample], pad: int
) -> Row:
    """The size of the mean, and what it does to the weights of the rows.

    Columns: squared_mean, its share in the second moment over the whole model, unbiased; squared_mean_plug_in, the
    same of the plain average, about 1/n more; squared_mean_median over modules, unbiased; rank_difference, 1 minus the
    rank correlation of the row weights from variances with those from second moments, in the median module;
    {statistic}_agreement, the rank correlation of the row weights from every other example of both sets with those
    from the rest.
    """
    whole = measure_set(model, forget, pad), measure_set(model, retain, pad)
    halves = [(measure_set(model, forget[at::2], pad), measure_set(model, retain[at::2], pad)) for at in (0, 1)]
    of_forget = whole[0].values()
    unbiased = sum(one.squared_mean * one.energy for one in of_forget) / sum(one.energy for one in of_forget)
    row: Row = {
        "examples": len(forget),
        "forget_loss": mean_loss(model, forget, pad),
        "squared_mean": unbiased,
        "squared_mean_plug_in": plug_in(unbiased, len(forget)),
        "squared_mean_median": median(one.squared_mean for one in of_forget),
        "rank_difference": 1 - correlation(*(row_weights(*whole, statistic) for statistic in STATISTICS)),
    }
    for statistic in STATISTICS:
        row[f"{statistic}_agreement"] = correlation(*(row_weights(*half, statistic) for half in halves))
    return row


def measure_set(model: PreTrainedModel, examples: Sequence[TokenisedExample], pad: int) -> dict[str, SetRows]:
    """Read both statistics of one pass; one batch, so that every pair of examples is compared."""
    targets = find_target_modules(model)
    statistics = {name: MarginalStatistics() for name in targets}
    with measuring(model):
        accumulate(model, targets, [collate(examples, pad)], statistics, set_name="measured")
    return {
        name: SetRows(
            {statistic: MarginalImportance(**one.read(statistic)) for statistic in STATISTICS},
            float(one.read("second_moment")["rows"].sum()),
            float(one.evidence().squared_mean_share),
        )
        for name, one in statistics.items()
    }


def plug_in(unbiased: float, count: int) -> float:
    """Share of ||mean g||^2 in mean ||g||^2, from its unbiased estimate: the mean over all pairs, each with itself."""
    return 1 / count + (1 - 1 / count) * unbiased


def row_weights(
    forget: Mapping[str, SetRows], retain: Mapping[str, SetRows], statistic: StatisticName
) -> dict[str, Float[Tensor, " d_out"]]:
    """What a start would weight the rows with."""
    return {
        name: module_ratio(ModuleImportance(one.statistics[statistic], retain[name].statistics[statistic])).row_weights
        for name, one in forget.items()
    }


def correlation(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Spearman of the rows of the median module."""
    return median(rank_correlation(first[name], second[name]) for name in first)


def mean_loss(model: PreTrainedModel, examples: Sequence[TokenisedExample], pad: int) -> float:
    """Mean over examples of the negative log-likelihood per completion token."""
    sequences = [(one.input_ids, one.prompt_length) for one in examples]
    return -fmean(one.mean_log_prob for one in score_completions(model, sequences, pad_token_id=pad, batch_size=64))
