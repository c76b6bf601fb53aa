"""How well each estimate of importance ranks the rows of a layer, and what the released probe does to a model.

    python -m unlora_research.ranking [--model embedded] [--forget FILE --retain FILE] [--seeds 0 1 2] [--output FILE]

Truth: the row sums of the element-wise ratio of exact variances, over examples, of the gradient of every weight. A seed
draws the examples and the random factors. Figures are the median over layers of Spearman's correlation with the truth,
and the mean over layers of the share of the truth's top tenth of rows that the estimate has in its own; in brackets the
smallest and the largest over seeds. Everything that is measured on the intact model comes from one pass over the sets.
"""

import argparse
import math
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas
import torch
from torch import Tensor

from unlora.artifacts import write_json
from unlora.cli.terminal import echo
from unlora.data.collate import collate
from unlora.data.people import generate_people
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.importance.accumulate import accumulate
from unlora.importance.hooks import measuring
from unlora.importance.importance_map import MarginalImportance, ModuleImportance, set_importance
from unlora.importance.moments import StatisticName
from unlora.importance.published import estimate_published_importance, inserted, make_probes, token_mean_loss
from unlora.importance.ratio import RELATIVE_FLOOR, module_ratio
from unlora.importance.spaces import (
    FullWeightStatistics,
    LoraFactorStatistics,
    MarginalStatistics,
    SpaceName,
    virtual_factors,
)
from unlora.models.load import LoadedModel, load_model
from unlora.models.target_modules import TargetModule, find_target_modules
from unlora.runtime import resolve_device, resolve_dtype
from unlora.starts.published_factors import published_rows
from unlora_research.several import Several

BATCH_SIZE = 4
"""Examples of a batch whose gradient is what is squared, as in the released configurations."""
PASS_BATCH_SIZE = 8
"""Examples of a backward pass on the intact model, the presets' own: it decides which examples `marginal` pairs."""
RANK = 8
SCALING = 2.0
LOSS_STDS = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4)
PUBLISHED_STDS = (0.05, 0.1, 0.3)
TOP_SHARE = 0.1

Sets = dict[str, list[TokenisedExample]]
Rows = dict[str, dict[str, Tensor]]
"""Estimate -> layer -> weight of each row."""


def main() -> None:
    """Parse, measure every seed, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="hub id, folder, adapter folder, or embedded")
    parser.add_argument("--base", help="of an adapter folder")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--forget", help="default: the bundled fictitious people")
    parser.add_argument("--retain", help="default: other fictitious people")
    parser.add_argument("--template", default="plain")
    parser.add_argument("--examples", type=int, default=24, help="drawn from each set")
    parser.add_argument("--passes", type=int, default=2, help="of the released procedure, whose forget batches repeat")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--output", type=Path, help="JSON file for the figures of every seed")
    options = parser.parse_args()
    device = resolve_device(options.device)
    loaded = load_model(options.model, base=options.base, dtype=resolve_dtype("auto", device), device=device)
    whole = load_sets(loaded, options)
    found = []
    for seed in options.seeds:
        found.append(measure_seed(loaded, whole, seed, options))
        if options.output is not None:
            write_json(options.output, {"options": {**vars(options), "output": None}, "seeds": found})
    print_tables(found)


def tokeniser_of(loaded: LoadedModel, options: argparse.Namespace) -> ExampleTokeniser:
    """What makes tokens of the questions."""
    return ExampleTokeniser(loaded.tokenizer, template=options.template, max_length=512)


def load_sets(loaded: LoadedModel, options: argparse.Namespace) -> Sets:
    """Both whole sets as tokens."""
    tokeniser = tokeniser_of(loaded, options)
    if options.forget is None:
        people = tokeniser.encode_set(generate_people(20))
        half = len(people) // 2
        return {"forget": people[:half], "retain": people[half:]}
    return {name: tokeniser.encode_set(load_examples(getattr(options, name))) for name in ("forget", "retain")}


def measure_seed(loaded: LoadedModel, whole: Sets, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Draw examples and factors, take every estimate, compare with the truth."""
    start = time.perf_counter()
    draw = random.Random(seed)
    sets = {name: draw.sample(examples, min(options.examples, len(examples))) for name, examples in whole.items()}
    targets = find_target_modules(loaded.model)
    pad = tokeniser_of(loaded, options).pad_token_id
    truth, estimates = intact_rows(loaded, targets, sets, pad, seed)
    floored: dict[str, float] = {}
    for name, (rows, share) in published_estimates(loaded, sets, pad, seed, options.passes).items():
        estimates[name] = rows
        if share is not None:
            floored[name] = share
    return {
        "seed": seed,
        "module_count": len(targets),
        "seconds": time.perf_counter() - start,
        "ranking": {name: agreement(rows, truth) for name, rows in estimates.items()},
        "floored": floored,
        "losses": losses(loaded, targets, sets["forget"], pad, seed),
    }


def intact_rows(
    loaded: LoadedModel, targets: Mapping[str, TargetModule], sets: Sets, pad: int, seed: int
) -> tuple[dict[str, Tensor], Rows]:
    """The truth and every estimate on the intact model, from one pass over either set."""

    def factors(target: TargetModule, probe_std: float) -> LoraFactorStatistics:
        pair = virtual_factors(target.name, target.d_out, target.d_in, rank=RANK, probe_std=probe_std, seed=seed)
        return LoraFactorStatistics(*(factor.to(loaded.model.device) for factor in pair))

    def new(target: TargetModule) -> Several:
        of_examples = {
            "full": FullWeightStatistics(),
            "marginal": MarginalStatistics(),
            "vila 0.05": factors(target, 0.05),
            "vila 0.3": factors(target, 0.3),
        }
        return Several(of_examples, {"vila batch": factors(target, 0.05)}, BATCH_SIZE)

    statistics = {name: {key: new(target) for key, target in targets.items()} for name in sets}
    with measuring(loaded.model):
        for name, examples in sets.items():
            accumulate(loaded.model, targets, batches(examples, pad, PASS_BATCH_SIZE), statistics[name], set_name=name)

    def readings(key: str, estimate: str, statistic: StatisticName) -> list[dict[str, Tensor]]:
        several = (statistics[name][key] for name in ("forget", "retain"))
        return [(one.of_examples | one.of_batches)[estimate].read(statistic) for one in several]

    def rows(key: str, estimate: str, statistic: StatisticName, space: SpaceName) -> Tensor:
        forget, retain = (set_importance(space, reading) for reading in readings(key, estimate, statistic))
        return module_ratio(ModuleImportance(forget, retain)).row_weights

    def exact_marginals(key: str) -> Tensor:
        forget, retain = (
            MarginalImportance(reading["values"].sum(dim=1).cpu(), reading["values"].sum(dim=0).cpu())
            for reading in readings(key, "full", "variance")
        )
        return module_ratio(ModuleImportance(forget, retain)).row_weights

    truth = {key: rows(key, "full", "variance", "full_weights") for key in targets}
    estimates = {
        "`fila`": {key: rows(key, "full", "second_moment", "full_weights") for key in targets},
        "`marginal`": {key: rows(key, "marginal", "variance", "marginals") for key in targets},
        "`marginal`, exact squared mean": {key: exact_marginals(key) for key in targets},
        "`marginal`, second moment": {key: rows(key, "marginal", "second_moment", "marginals") for key in targets},
        "`vila`, sigma 0.05": {key: rows(key, "vila 0.05", "variance", "lora_factors") for key in targets},
        "`vila`, sigma 0.3": {key: rows(key, "vila 0.3", "variance", "lora_factors") for key in targets},
        "`vila`, gradients of batches of 4": {
            key: rows(key, "vila batch", "variance", "lora_factors") for key in targets
        },
    }
    return truth, estimates


def batches(examples: Sequence[TokenisedExample], pad: int, size: int = BATCH_SIZE) -> Iterable[dict[str, Tensor]]:
    """Consecutive batches, in the order of the draw."""
    return (collate(examples[at : at + size], pad) for at in range(0, len(examples), size))


def published_estimates(
    loaded: LoadedModel, sets: Sets, pad: int, seed: int, passes: int
) -> dict[str, tuple[dict[str, Tensor], float | None]]:
    """Rows by the released procedure, with the share of its denominators that the absolute 1e-5 rules.

    The same measurement is also read with our ratio, whose floor is relative: what then is still wrong comes from the
    measurement.
    """
    found = {}
    for probe_std in (*PUBLISHED_STDS, None):
        importance = estimate_published_importance(
            loaded.model,
            sets["forget"],
            sets["retain"],
            space="lora_factors" if probe_std is not None else "full_weights",
            pad_token_id=pad,
            rank=RANK,
            scaling=SCALING,
            probe_std=probe_std or 1.0,
            passes=passes,
            batch_size=BATCH_SIZE,
            seed=seed,
        )
        name = f"`vila_published`, sigma {probe_std}" if probe_std is not None else "`fila_published`"
        rows = {key: published_rows(importance, key) for key in importance}
        share = sum(one.floored_fraction for one in rows.values()) / len(rows)
        found[name] = ({key: one.scales for key, one in rows.items()}, share)
        relative = {key: module_ratio(importance[key]).row_weights for key in importance}
        found[f"{name}, relative floor"] = (relative, None)
    return found


def agreement(rows: Mapping[str, Tensor], truth: Mapping[str, Tensor]) -> dict[str, float | int]:
    """Median correlation (upper of the middle two) and mean overlap over layers.

    A layer whose rows all weigh the same has no correlation and is counted instead.
    """
    correlations, overlaps = [], []
    for key, wanted in truth.items():
        found = rows[key]
        if float(found.max()) > float(found.min()):
            both = [pandas.Series(values.double().numpy()) for values in (found, wanted)]
            correlations.append(both[0].corr(both[1], method="spearman"))
        count = max(1, round(TOP_SHARE * len(wanted)))
        top = [set(values.topk(count).indices.tolist()) for values in (found, wanted)]
        overlaps.append(len(top[0] & top[1]) / count)
    return {
        "spearman": sorted(correlations)[len(correlations) // 2] if correlations else math.nan,
        "overlap": sum(overlaps) / len(overlaps),
        "unranked": len(truth) - len(correlations),
    }


@torch.no_grad()
def losses(
    loaded: LoadedModel, targets: Mapping[str, TargetModule], examples: Sequence[TokenisedExample], pad: int, seed: int
) -> dict[str, float]:
    """Mean loss per token of the forget examples, intact and with the released probe inserted."""

    def mean_loss() -> float:
        total = count = 0.0
        for batch in batches(examples, pad):
            labels = int((batch["labels"] != -100).sum())
            moved = {key: value.to(loaded.model.device) for key, value in batch.items()}
            total += float(token_mean_loss(loaded.model, moved)) * labels
            count += labels
        return total / count

    found = {"intact": mean_loss()}
    for probe_std in LOSS_STDS:
        with inserted(targets, make_probes(targets, rank=RANK, probe_std=probe_std, seed=seed), SCALING):
            found[f"{probe_std:g}"] = mean_loss()
    return found


def print_tables(found: Sequence[dict[str, Any]]) -> None:
    """Both tables as Markdown."""
    echo(f"{found[0]['module_count']} layers, {len(found)} seeds, relative floor {RELATIVE_FLOOR}\n")
    echo("| estimate | Spearman | top-10 % overlap | denominators ruled by 1e-5 |\n|---|---|---|---|")
    for name in found[0]["ranking"]:
        ranking = [one["ranking"][name] for one in found]
        cells = [spread([one[key] for one in ranking]) for key in ("spearman", "overlap")]
        floored = [100 * one["floored"][name] for one in found if name in one["floored"]]
        unranked = sum(one["unranked"] for one in ranking)
        note = f" ({unranked} layers without a ranking)" if unranked else ""
        echo(f"| {name}{note} | {' | '.join(cells)} | {spread(floored, 1) + ' %' if floored else ''} |")
    echo("\n| sigma | loss with the probe inserted |\n|---|---|")
    for name in found[0]["losses"]:
        echo(f"| {name} | {spread([one['losses'][name] for one in found])} |")


def spread(values: Sequence[float], digits: int = 3) -> str:
    """Mean over seeds, and the smallest and the largest."""
    mean, low, high = (f"{value:.{digits}f}" for value in (sum(values) / len(values), min(values), max(values)))
    return f"{mean} [{low}, {high}]"


if __name__ == "__main__":
    main()
