"""How long the starting factors of all layers take, from maps that are measured before on a few examples.

    python -m benchmarks.initialisation [--shape smollm2|llama2-7b|tiny] [--layers N] [--rounds 3] [--json FILE]

    marginal, vila     rows weighted by the importance ratio (VILA's is formed for one layer at a time)
    uniform            rows alike
    contrast_inputs    directions of the map, lengths of the uniform solution
    released           what the released code does with marginal's row weights: `torch.svd_lowrank` at its defaults
    in turn            marginal's problems solved one after the other where the weights are
    stacked            the same, all layers of one shape in one batch, without the residual that a solution comes with

The first four are what `unlora` runs: one layer after the other, on the CPU whatever the device. All blocks have the
same layers, so for a cut model the seconds of all blocks are counted from those that were timed. Ratios are to
`released`. `lost` is the mean over layers of the share of the row-weighted norm of W that B A leaves out, over that of
an exact decomposition (marginal's weights).
"""

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks import measuring, shapes
from benchmarks.measuring import Timed, timed
from benchmarks.shapes import Subject
from unlora.importance import estimate_importance
from unlora.importance.contrast_map import estimate_contrast
from unlora.importance.ratio import module_ratio
from unlora.low_rank import WeightedLowRankProblem, solve
from unlora.low_rank.subspace import OVERSAMPLING, POWER_ITERATIONS
from unlora.models.target_modules import find_target_modules
from unlora.starts.contrast_factors import contrast_factors
from unlora.starts.initialise import initial_factors, weighted_problem

RELEASED, IN_TURN, STACKED = "released", "in turn", "stacked"
OURS = ("marginal", "vila", "uniform", "contrast_inputs")
RANK, SCALING, BATCH_SIZE = 8, 2.0, 8

Products = dict[str, tuple[Tensor, Tensor]]
"""Module -> left (d_out, rank), right (rank, d_in)."""


class Setting(NamedTuple):
    """What all methods start from."""

    targets: dict[str, Any]
    maps: dict[str, Any]
    problems: dict[str, WeightedLowRankProblem]
    """Marginal's, on the model's device."""


def main(argv: Sequence[str]) -> None:
    """Parse, measure, print, write."""
    options = _parse(argv)
    subject = shapes.subject(options)
    setting = _prepare(subject)
    names = [*OURS, RELEASED, IN_TURN, STACKED]
    seconds, products = measuring.in_turn({name: partial(_measure, name, setting) for name in names}, options.rounds)
    layers = subject.model.config.num_hidden_layers
    depth = shapes.DEPTHS[options.shape]
    best = best_losses(setting.problems) if options.exact else None
    methods = {}
    for name in names:
        figures = measuring.compare(seconds[name], seconds[RELEASED])
        methods[name] = {
            **figures,
            "whole_model_seconds": figures["seconds"] * depth / layers,
            "lost_over_exact": lost(setting.problems, products[name], best) if best and products[name] else None,
        }
    facts = {"shape": options.shape, "whole_depth": depth, "modules": len(setting.targets), "rank": RANK}
    facts |= {"dtype": str(subject.model.dtype).removeprefix("torch."), **subject.facts()}
    results = measuring.report("initialisation", argv, options, subject.model.device, setting=facts, methods=methods)
    measuring.finish(results, lines, options.json)


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = measuring.parser("initialisation", __doc__)
    shapes.add_options(parser)
    parser.set_defaults(examples=2)
    parser.add_argument("--exact", action="store_true", help="compare with the exact decomposition, which is slow")
    return parser.parse_args(argv)


def _prepare(subject: Subject) -> Setting:
    sets = subject.batches(BATCH_SIZE)
    targets = find_target_modules(subject.model)
    maps: dict[str, Any] = {
        preset: estimate_importance(subject.model, *sets, preset=preset, rank=RANK) for preset in ("marginal", "vila")
    }
    maps["contrast_inputs"] = estimate_contrast(subject.model, *sets, rank=RANK, inputs_only=True)
    problems = {}
    for name, target in targets.items():
        ratio = module_ratio(maps["marginal"][name])
        problem = weighted_problem(target.weight(), RANK, ratio, "row")
        rows = ratio.row_weights.to(target.weight().device)
        problems[name] = WeightedLowRankProblem(problem.matrix, RANK, row_weights=rows)
    return Setting(targets, maps, problems)


def _measure(name: str, setting: Setting) -> Timed:
    """One method; the result is what it found for marginal's problems, where it solves those."""
    targets, maps, problems = setting
    if name == "contrast_inputs":
        return Timed(
            timed(lambda: contrast_factors(targets, maps[name], rank=RANK, scaling=SCALING, inputs_only=True)).seconds
        )
    if name in OURS:
        done = timed(lambda: initial_factors(targets, maps.get(name), rank=RANK, scaling=SCALING))
        if name != "marginal":
            return Timed(done.seconds)
        return Timed(
            done.seconds,
            {module: (SCALING * start.lora_b, start.lora_a) for module, start in done.result.items()},
        )
    ways: dict[str, Callable[[dict[str, WeightedLowRankProblem]], Products]] = {
        RELEASED: solve_as_released,
        IN_TURN: solve_in_turn,
        STACKED: solve_stacked,
    }
    return timed(lambda: ways[name](problems))


def solve_in_turn(problems: dict[str, WeightedLowRankProblem]) -> Products:
    """Our solver, one layer after the other, where the weights are."""
    solutions = ((name, solve(problem)) for name, problem in problems.items())
    return {name: (solution.left.cpu(), solution.right.cpu()) for name, solution in solutions}


@torch.no_grad()
def solve_as_released(problems: dict[str, WeightedLowRankProblem]) -> Products:
    """B A = D^-1 (D W by a randomised decomposition with two power iterations and no spare column)."""
    found = {}
    for name, problem in problems.items():
        scales = _scales(problem)[:, None]
        left, values, right = torch.svd_lowrank(scales * problem.matrix, q=problem.rank)
        found[name] = ((left * values / scales.clamp_min(torch.finfo(scales.dtype).tiny)).cpu(), right.T.cpu())
    return found


@torch.no_grad()
def solve_stacked(problems: dict[str, WeightedLowRankProblem]) -> Products:
    """`solve_row_weighted`'s sketch for all layers of one shape together."""
    groups: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, problem in problems.items():
        groups[tuple(problem.matrix.shape)].append(name)
    found = {}
    for shape, names in groups.items():
        rank = problems[names[0]].rank
        matrices = torch.stack([problems[name].matrix for name in names])
        weighted = torch.stack([_scales(problems[name]) for name in names])[:, :, None] * matrices
        size = min(rank + OVERSAMPLING, *shape)
        start = torch.randn(size, shape[1], generator=torch.Generator().manual_seed(0)).to(matrices)
        basis = torch.linalg.qr(weighted @ start.T).Q
        for _ in range(POWER_ITERATIONS):
            basis = torch.linalg.qr(weighted @ torch.linalg.qr(weighted.mT @ basis).Q).Q
        right = torch.linalg.svd(basis.mT @ weighted, full_matrices=False).Vh[:, :rank]
        left = (matrices @ right.mT).cpu()
        found |= {name: (left[place], right[place].cpu()) for place, name in enumerate(names)}
    return found


def _scales(problem: WeightedLowRankProblem) -> Tensor:
    """Roots of the row weights over their mean."""
    if problem.row_weights is None:
        raise ValueError("a problem of rows has their weights")
    weights = problem.row_weights.double()
    return (weights / weights.mean()).sqrt().to(problem.matrix)


def best_losses(problems: dict[str, WeightedLowRankProblem]) -> dict[str, float]:
    """The smallest possible weighted error of every layer, from all its singular values."""
    losses = {}
    for name, problem in problems.items():
        values = torch.linalg.svdvals(_scales(problem)[:, None] * problem.matrix.float())
        losses[name] = math.sqrt(float(values[problem.rank :].double().square().sum()))
    return losses


def lost(problems: dict[str, WeightedLowRankProblem], products: Products, best: dict[str, float]) -> float:
    """Mean over layers of the weighted error over the smallest possible one."""
    shares = []
    for name, problem in problems.items():
        left, right = (factor.to(problem.matrix) for factor in products[name])
        error = _scales(problem)[:, None] * (problem.matrix - left @ right)
        shares.append(float(torch.linalg.vector_norm(error.double())) / best[name])
    return sum(shares) / len(shares)


def lines(results: dict[str, Any]) -> list[str]:
    """The figures, with what they were measured on."""
    setting = results["setting"]
    rows = [
        [
            name,
            f"{figures['seconds']:.2f}",
            measuring.ratio_cell(figures),
            f"{figures['whole_model_seconds']:.1f}",
            f"{figures['lost_over_exact']:.4f}" if figures["lost_over_exact"] is not None else "-",
        ]
        for name, figures in results["methods"].items()
    ]
    whole = f"seconds, all {setting['whole_depth']} blocks"
    return [
        *measuring.heading(results),
        f"{setting['shape']}, {setting['layers']} layers, {setting['modules']} modules in {setting['dtype']}, "
        f"rank {setting['rank']}",
        *measuring.table(["start", "seconds", "ratio to released", whole, "lost / exact"], rows),
    ]


if __name__ == "__main__":
    measuring.run(main)
