"""What each low-rank solver leaves of real layers, weighted by the whole importance ratio, and what it costs.

    python -m unlora_research.solvers [--layers 2 15 28] [--ranks 8 32] [--people 8] [--rounds 1] [--json FILE]

The ratio M is that of the variance of every weight's gradient (space full_weights) over half the questions about
fictitious people. Every solver gets what it uses of M: row sums, row and column sums, or M; every residual is
sqrt(sum_ij M_ij (W - X)_ij^2) under the whole M, so that they compare, and is given as a ratio to the row solver's
(smaller is better). Under "other questions" M is that of the other half about the same people, not seen by a solver.

"plain" ignores M. "alternation" is textbook alternating least squares from the elementwise solver's start for as many
steps as that took (smallest rank only). "restarts" is the elementwise solver's best with random starts besides. A start
keeps the share 1 - residual^2 / sum_ij M_ij W_ij^2 of the weighted layer. Overlap is the mean squared cosine between
the row spaces of two starts: 1 the same, rank / d_in for random ones. Seconds are the processor's, medians over rounds,
without forming M. Nothing is trained.
"""

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from unlora.artifacts import write_json
from unlora.cli.terminal import echo
from unlora.data.collate import collate, shortest_first
from unlora.data.people import generate_people
from unlora.data.tokenise import ExampleTokeniser
from unlora.importance import estimate_importance, module_ratio
from unlora.importance.ratio import ModuleRatio
from unlora.low_rank import ElementwiseSettings, LowRankSolution, WeightedLowRankProblem, solve, solve_elementwise
from unlora.low_rank.passes import Entries, FactorPair
from unlora.low_rank.separable import separable_factors
from unlora.models.load import load_model
from unlora.models.target_modules import TargetModule, find_target_modules
from unlora.runtime import resolve_dtype
from unlora.starts.initialise import weighted_problem

SOLVERS = ("row", "separable", "elementwise")
COLUMNS = ("plain", "row", "separable", "alternation", "elementwise", "restarts")
BATCH_SIZE = 8


class Layer(NamedTuple):
    """One target module and what importance weights it with."""

    target: TargetModule
    ratio: ModuleRatio
    other_ratio: ModuleRatio
    """Of other questions about the same people."""


def main() -> None:
    """Parse, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="embedded", help="hub id, folder, or embedded")
    parser.add_argument("--layers", type=int, nargs="+", default=[2, 15, 28], help="every projection of these layers")
    parser.add_argument("--ranks", type=int, nargs="+", default=[8, 32])
    parser.add_argument(
        "--people", type=int, default=8, help="fictitious people in each set, three questions each half"
    )
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--restarts", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    echo(f"{options.model}, {torch.get_num_threads()} threads; residual as a ratio to the row solver's")
    columns = "".join(f"{name:>13}" for name in COLUMNS)
    echo(f"{'module':<14}{'shape':>10}{'rank':>5}{columns}{'steps':>7}{'overlap':>9}{'other questions':>17}")
    rows = []
    for layer in measured_layers(options):
        for rank in options.ranks:
            rows.append(measure(layer, rank, options))
            print_row(rows[-1])
    summary = {rank: summarise([row for row in rows if row["rank"] == rank]) for rank in options.ranks}
    print_summary(summary)
    if options.json is not None:
        write_json(options.json, {"modules": rows, "summary": summary})


def measured_layers(options: argparse.Namespace) -> Iterator[Layer]:
    """Every projection of the chosen layers; both ratios are formed for one at a time."""
    device = torch.device("cpu")  # where training solves them
    loaded = load_model(options.model, dtype=resolve_dtype("auto", device), device=device)
    patterns = [f"layers.{layer}.*" for layer in options.layers]
    targets = find_target_modules(loaded.model, patterns)
    examples = ExampleTokeniser(loaded.tokenizer, template="plain", max_length=512).encode_set(
        generate_people(2 * options.people)
    )
    half = len(examples) // 2

    def batches(part) -> list[dict[str, Tensor]]:
        return [collate([part[row] for row in rows], 0) for rows in shortest_first(part, BATCH_SIZE)]

    maps = [
        estimate_importance(
            loaded.model,
            batches(examples[first:half:2]),
            batches(examples[half + first :: 2]),
            statistic="variance",
            space="full_weights",
            target_modules=patterns,
        )
        for first in (0, 1)
    ]
    for name, target in targets.items():
        yield Layer(target, *(module_ratio(importance[name], elementwise=True) for importance in maps))


def measure(layer: Layer, rank: int, options: argparse.Namespace) -> dict:
    """Residuals under both ratios, seconds, steps."""
    weight = layer.target.weight()
    problems = {solver: weighted_problem(weight, rank, layer.ratio, solver) for solver in SOLVERS}
    whole, other = problems["elementwise"], weighted_problem(weight, rank, layer.other_ratio, "elementwise")
    found, seconds = {}, {}
    for solver in SOLVERS:
        found[solver], seconds[solver] = timed(partial(solve, problems[solver]), options.rounds)
    status, steps = found["elementwise"].status, found["elementwise"].iterations
    found["plain"] = solve(WeightedLowRankProblem(weight, rank, row_weights=torch.ones(len(weight))))
    found["restarts"] = solve_elementwise(whole, settings=ElementwiseSettings(restarts=options.restarts))
    products = {name: solution.left @ solution.right for name, solution in found.items()}
    if rank == min(options.ranks):
        products["alternation"] = alternation(whole, steps)
    residuals = {name: residual(whole, product) for name, product in products.items()}
    others = {name: residual(other, product) for name, product in products.items()}
    zero = torch.zeros_like(weight)
    return {
        "module": layer.target.name,
        "shape": list(weight.shape),
        "rank": rank,
        "residuals": residuals,
        "ratios": {name: value / residuals["row"] for name, value in residuals.items()},
        "other_ratios": {name: value / others["row"] for name, value in others.items()},
        "kept": {name: 1 - (value / residual(whole, zero)) ** 2 for name, value in residuals.items()},
        "other_kept": {name: 1 - (value / residual(other, zero)) ** 2 for name, value in others.items()},
        "overlap_with_row": {name: overlap(found["row"].right, found[name].right) for name in found},
        "seconds": seconds,
        "steps": steps,
        "status": status,
    }


def timed(work: Callable[[], LowRankSolution], rounds: int) -> tuple[LowRankSolution, float]:
    """The result and the median of the processor's seconds."""
    seconds = []
    while True:
        start = time.process_time()
        solution = work()
        seconds.append(time.process_time() - start)
        if len(seconds) >= rounds:
            return solution, statistics.median(seconds)


def overlap(right: Tensor, other: Tensor) -> float:
    """Mean squared cosine of the angles between two row spaces of the same rank."""
    bases = [torch.linalg.qr(factor.double().T).Q for factor in (right, other)]
    return float((bases[0].T @ bases[1]).square().sum()) / len(right)


def residual(problem: WeightedLowRankProblem, product: Tensor) -> float:
    """The weighted error of any approximation."""
    return problem.weighted_norm(problem.matrix - product.to(problem.matrix))


def alternation(problem: WeightedLowRankProblem, steps: int) -> Tensor:
    """Solve all rows given R, then all columns given L, `steps` times."""
    entries, start = Entries(problem), separable_factors(problem, seed=0)
    at = FactorPair(start.left, start.right)
    for _ in range(steps):
        at = at._replace(left=at.plus(entries.alternating_solves(at).change(entries.descent(at).force)).left)
        at = at._replace(right=at.plus(entries.alternating_solves(at).change(entries.descent(at).force)).right)
    return at.left @ at.right


def print_row(row: dict) -> None:
    """One module at one rank."""
    parts = row["module"].split(".")
    name, shape = f"{parts[-3]}.{parts[-1]}", "x".join(map(str, row["shape"]))
    ratios = "".join(f"{row['ratios'].get(column, float('nan')):>13.4f}" for column in COLUMNS)
    near, other = row["overlap_with_row"]["elementwise"], row["other_ratios"]["elementwise"]
    echo(f"{name:<14}{shape:>10}{row['rank']:>5}{ratios}{row['steps']:>7}{near:>9.2f}{other:>17.4f}")


def summarise(rows: list[dict]) -> dict:
    """Geometric means of the ratios, means of the shares, sums of the seconds, and the most steps."""
    names = [name for name in COLUMNS if name in rows[0]["ratios"]]
    means = {
        key: {name: mean(row[key][name] for row in rows) for name in names}
        for key, mean in (
            ("ratios", statistics.geometric_mean),
            ("other_ratios", statistics.geometric_mean),
            ("kept", statistics.mean),
            ("other_kept", statistics.mean),
        )
    }
    overlaps = {name: statistics.mean(row["overlap_with_row"][name] for row in rows) for name in SOLVERS}
    seconds = {solver: sum(row["seconds"][solver] for row in rows) for solver in SOLVERS}
    return {
        **means,
        "overlap_with_row": overlaps,
        "seconds": seconds,
        "modules": len(rows),
        "converged": sum(row["status"] == "converged" for row in rows),
        "median_steps": statistics.median(row["steps"] for row in rows),
        "most_steps": max(row["steps"] for row in rows),
    }


def print_summary(summary: dict[int, dict]) -> None:
    """Over all modules, by rank."""
    for rank, figures in summary.items():
        converged = f"{figures['converged']} of {figures['modules']} modules converged"
        steps = f"median {figures['median_steps']:.0f} steps, at most {figures['most_steps']}"
        echo(f"\nrank {rank}: {converged}, {steps}")
        echo(f"{'':<12}{'ratio':>8}{'kept':>8}{'other: ratio':>14}{'kept':>8}{'overlap':>9}{'seconds':>9}")
        for name in figures["ratios"]:
            line = f"{name:<12}{figures['ratios'][name]:>8.4f}{figures['kept'][name]:>8.1%}"
            line += f"{figures['other_ratios'][name]:>14.4f}{figures['other_kept'][name]:>8.1%}"
            if name in SOLVERS:
                line += f"{figures['overlap_with_row'][name]:>9.2f}{figures['seconds'][name]:>9.2f}"
            echo(line)


if __name__ == "__main__":
    main()
