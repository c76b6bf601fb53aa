"""How wrong is Theorem 1 of VILA, Var[dW] ~ Var[B] Var[A], and does it matter which layers get an adapter?

The gradient of a layer's weight is G = D^T X for every example; those of random LoRA factors are dB = G A^T and
dA = B^T G. Over independent factors of unit variance, r columns each, the product of their variances is r R C^T in
expectation, with R and C the row and column sums of Var[G] (docs/studies/assumptions.md). So its error has two parts:
what a product of marginals cannot say, at any rank, and the sampling of the factors, which a higher rank averages out.
"""

import hashlib
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, NamedTuple

import pandas
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from unlora.config import Config
from unlora.data.collate import collate
from unlora.data.common_facts import common_facts
from unlora.data.records import Example
from unlora.data.tokenise import ExampleTokeniser
from unlora.importance import ImportanceMap, module_ratio, most_important_modules
from unlora.importance.accumulate import Batch, accumulate
from unlora.importance.diagnostics import rank_correlation
from unlora.importance.hooks import measuring
from unlora.importance.importance_map import FullImportance, ModuleImportance
from unlora.importance.published import Probe, inserted
from unlora.importance.spaces import FullWeightStatistics, LoraFactorStatistics
from unlora.models.load import load_model
from unlora.models.target_modules import TargetModule, find_target_modules
from unlora.shapes import LoraA, Weight
from unlora.studies.engine import Row, Study, Workplace
from unlora.studies.figures import draw_lines, draw_ranges, new_figure
from unlora.studies.small_world import TINY_WORLD, SmallWorld, build_small_world, world_people
from unlora.studies.tables import in_order, markdown_table, spread
from unlora.studies.unlearning import best_rates, small_world_run, unlearn_at_rates

CORRELATION = 0.9
DISTRIBUTIONS: dict[str, str] = {
    "gaussian": "Gaussian",
    "rademacher": "Rademacher",
    "uniform": "uniform",
    "student_t5": "Student t, 5 degrees",
    "student_t3": "Student t, 3 degrees",
    "orthogonal": "orthogonal",
    "correlated_entries": "correlated along a column",
    "correlated_columns": "correlated between columns",
}
FORMS: dict[str, str] = {
    "variances": "Var[B] Var[A] (means neglected)",
    "with_means": "the whole variance of a product",
    "second_moments": "E[B^2] E[A^2] (nothing subtracted)",
}
LIMIT, BEST = "infinite rank", "best product"
CASES: dict[str, str] = {
    "learnt": "learnt (target)",
    "unseen_people": "people never seen (retain-only model)",
    "unseen_text": "general knowledge never seen (target)",
}
"""What stands for the forget set, and the model that is measured."""
COVERAGES: dict[str, str] = {"all": "all layers", "top": "top 25 % by importance", "random": "random 25 %"}
MEASURES: dict[str, str] = {
    "frobenius": "relative error of the entries",
    "entries": "Spearman of entries",
    "rows": "Spearman of row sums",
    "ratio_rows": "Spearman of row weights (ratio)",
}
RANK, SCALING, COVERAGE = 8, 2.0, 0.25
RETAIN_EXAMPLES = 64
RANKED_ENTRIES = 8192


class AssumptionsSettings(Config):
    """The grid."""

    world: SmallWorld = SmallWorld()
    """Of seed 0; other seeds change its seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of world, factors and training."""
    distributions: tuple[str, ...] = tuple(DISTRIBUTIONS)
    """Of the factors' entries."""
    ranks: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
    """Columns of the factors."""
    sigmas: tuple[float, ...] = (0.01, 0.05, 0.1, 0.2, 0.3, 0.4)
    """Standard deviations of Gaussian factors, virtual and inserted into the model."""
    draws: int = Field(default=3, ge=1)
    """Of the factors, averaged over."""
    coverages: tuple[str, ...] = tuple(COVERAGES)
    """Which layers get an adapter."""
    learning_rates: tuple[float, ...] = (2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2)
    """Searched for every coverage."""
    epochs: int = Field(default=5, ge=1)
    """Of unlearning."""


class AssumptionsCell(Config):
    """The theorem in one world, or unlearning with one choice of layers in it."""

    part: Literal["theorem", "coverage"]
    layers: str | None
    seed: int
    world: SmallWorld
    distributions: tuple[str, ...] = ()
    ranks: tuple[int, ...] = ()
    sigmas: tuple[float, ...] = ()
    draws: int = 1
    learning_rates: tuple[float, ...] = ()
    epochs: int | None = None


def cells(settings: AssumptionsSettings) -> list[AssumptionsCell]:
    """One cell a world for the theorem, one for each choice of layers."""
    found = []
    for seed in settings.seeds:
        world = settings.world.model_copy(update={"seed": seed})
        found.append(
            AssumptionsCell(
                part="theorem",
                layers=None,
                seed=seed,
                world=world,
                distributions=settings.distributions,
                ranks=settings.ranks,
                sigmas=settings.sigmas,
                draws=settings.draws,
            )
        )
        found += [
            AssumptionsCell(
                part="coverage",
                layers=layers,
                seed=seed,
                world=world,
                learning_rates=settings.learning_rates,
                epochs=settings.epochs,
            )
            for layers in settings.coverages
        ]
    return found


def run(cell: AssumptionsCell, place: Workplace) -> list[Row]:
    """Errors of the theorem, or a row a learning rate."""
    return theorem_rows(cell, place) if cell.part == "theorem" else coverage_rows(cell, place)


# ---- Which layers ------------------------------------------------------------------------------------------------


def coverage_rows(cell: AssumptionsCell, place: Workplace) -> list[Row]:
    """Unlearn from vila's importance in the layers of the cell."""
    files = build_small_world(cell.world)
    adapter: dict[str, Any] = {"rank": RANK, "alpha": SCALING * RANK}
    if cell.layers == "top":
        adapter["coverage"] = COVERAGE
    if cell.layers == "random":
        names = list(find_target_modules(load_model(str(files.target), device=torch.device("cpu")).model))
        adapter["target_modules"] = random.Random(cell.seed).sample(names, max(1, round(COVERAGE * len(names))))
    base = small_world_run(files, place.device, epochs=cell.epochs or 1)
    rows = unlearn_at_rates(base, "vila", {"adapter": adapter}, cell.learning_rates, cell.seed, place)
    share = COVERAGE if cell.layers == "top" else 1.0
    importance = _measured(place.folder)
    chosen = most_important_modules(importance, share)
    trained = RANK * sum(sum(importance.metadata.module_shapes[name]) for name in chosen)
    where = " ".join(_short(name) for name in chosen) if cell.layers != "all" else "all"
    return [{**row, "chosen": where, "trained_parameters": trained} for row in rows]


def _measured(folder: Path) -> ImportanceMap:
    return ImportanceMap.load(min(folder.glob("lr*/importance.safetensors")))


def _short(name: str) -> str:
    parts = name.split(".")
    return f"{parts[2]}.{parts[-1].removesuffix('_proj')}"


# ---- The theorem ---------------------------------------------------------------------------------------------------


def draw_factor(distribution: str, width: int, rank: int, generator: torch.Generator) -> LoraA:
    """A factor with `rank` columns of `width` entries, as (rank, width), mean zero and variance one."""
    normal = torch.randn(rank, width, generator=generator)
    match distribution:
        case "gaussian":
            return normal
        case "rademacher":
            return torch.where(normal < 0, -1.0, 1.0)
        case "uniform":
            return (2 * torch.rand(rank, width, generator=generator) - 1) * math.sqrt(3)
        case "student_t5" | "student_t3":
            degrees = int(distribution[-1])
            chi2 = torch.randn(degrees, rank, width, generator=generator).square().sum(dim=0)
            return normal * (degrees / chi2).sqrt() * math.sqrt((degrees - 2) / degrees)
        case "orthogonal":
            return torch.linalg.qr(normal.T).Q.T * math.sqrt(width)
        case "correlated_entries":
            places = torch.arange(width)
            covariance = CORRELATION ** (places[:, None] - places).abs().double()
            return normal @ torch.linalg.cholesky(covariance).float().T
        case "correlated_columns":
            shared = torch.randn(1, width, generator=generator)
            return math.sqrt(CORRELATION) * shared + math.sqrt(1 - CORRELATION) * normal
        case _:
            raise ValueError(f"distribution {distribution}")


class Gradients(NamedTuple):
    """One layer's inputs and output gradients for every example of one set."""

    inputs: Float[Tensor, "example token d_in"]
    outputs: Float[Tensor, "example token d_out"]


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


class Parts(NamedTuple):
    """Variance and squared mean over examples of one tensor: the full weight, or one factor."""

    variance: Tensor
    squared_mean: Tensor


class Truth(NamedTuple):
    """What the theorem approximates in one layer, and where the products end at infinite rank."""

    weight: Parts
    limits: Mapping[str, Weight]
    squared_mean_share: float


def gradients_of(
    model: PreTrainedModel, targets: Mapping[str, TargetModule], batch: Batch, probes: Mapping[str, Probe] | None = None
) -> dict[str, Gradients]:
    """What every layer sees of one batch, in the model as it is or with probes inserted into it."""
    kept = {name: _Kept() for name in targets}
    with measuring(model), inserted(targets, probes, SCALING) if probes is not None else nullcontext():
        accumulate(model, targets, [batch], kept, set_name="measured")
    return {name: one.parts[0] for name, one in kept.items()}


def truth_of(gradients: Gradients) -> Truth:
    """Exact element-wise variance of the weight's gradient, and the products that its marginals make."""
    statistics = FullWeightStatistics()
    statistics.update(*gradients)
    count = len(gradients.inputs)
    weight = _parts(statistics.read("variance")["values"], statistics.read("second_moment")["values"], count)
    rows, columns = (Parts(*(one.sum(dim=axis) for one in weight)) for axis in (1, 0))
    limits = {form: product(form, Parts(*(one[:, None] for one in rows)), Parts(*(one[None] for one in columns)))
              for form in FORMS}  # fmt: skip
    return Truth(weight, limits, float(statistics.evidence().squared_mean_share))


def _parts(variance: Tensor, second_moment: Tensor, count: int) -> Parts:
    return Parts(variance, (second_moment - variance * (count - 1) / count).clamp(min=0))


class FactorParts(NamedTuple):
    """Of both factors, every column that was drawn; the first r are factors of rank r."""

    lora_b: Parts
    lora_a: Parts

    def estimate(self, form: str, rank: int) -> Weight:
        """The estimate of Var[dW] from the first `rank` columns."""
        return product(
            form, Parts(*(one[:, :rank] for one in self.lora_b)), Parts(*(one[:rank] for one in self.lora_a))
        )


def factor_parts(gradients: Gradients, lora_a: Tensor, lora_b: Tensor) -> FactorParts:
    """Statistics of dB = G A^T and dA = B^T G over the examples."""
    statistics = LoraFactorStatistics(lora_a, lora_b)
    statistics.update(*gradients)
    variance, second_moment = statistics.read("variance"), statistics.read("second_moment")
    both = (_parts(variance[name], second_moment[name], len(gradients.inputs)) for name in ("lora_b", "lora_a"))
    return FactorParts(*both)


def product(form: str, left: Parts, right: Parts) -> Weight:
    """Variance of sum_k B_ik A_kj of independent factors, with or without the terms that hold their means."""
    if form == "variances":
        return left.variance @ right.variance
    whole = (left.variance + left.squared_mean) @ (right.variance + right.squared_mean)
    return whole if form == "second_moments" else whole - left.squared_mean @ right.squared_mean


def errors(estimate: Weight, truth: Weight) -> dict[str, float]:
    """How far an estimate is from the truth, whatever its scale.

    Returns:
        frobenius: ||c E - T|| / ||T|| at the best c, which is the sine of the angle between both; entries, rows: rank
        correlation of (at most 8192) entries and of row sums.
    """
    flat, known = estimate.flatten().double(), truth.flatten().double()
    cosine = float(flat @ known / (flat.norm() * known.norm()))
    some = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))[:RANKED_ENTRIES]
    return {
        "frobenius": math.sqrt(max(1 - cosine**2, 0.0)),
        "entries": rank_correlation(flat[some], known[some]),
        "rows": rank_correlation(estimate.sum(dim=1), truth.sum(dim=1)),
    }


def best_product(truth: Weight) -> Weight:
    """The matrix of rank one closest to the truth: no product of row and column weights comes closer."""
    left, values, right = torch.linalg.svd(truth, full_matrices=False)
    return values[0] * torch.outer(left[:, 0], right[0]).abs()


def _row_weights(forget: Weight, retain: Weight) -> Tensor:
    return module_ratio(ModuleImportance(FullImportance(forget), FullImportance(retain))).row_weights


class _Layer(NamedTuple):
    """One layer in one model: both sets and their truths."""

    forget: Gradients
    retain: Gradients
    forget_truth: Truth
    retain_truth: Truth

    def errors(self, forget: Weight, retain: Weight, limit: Weight) -> dict[str, float]:
        """Of an estimate for either set; `sampling` is its distance from the limit at infinite rank."""
        truth = self.forget_truth.weight.variance
        row_weights = _row_weights(truth, self.retain_truth.weight.variance)
        return {
            **errors(forget, truth),
            "ratio_rows": rank_correlation(_row_weights(forget, retain), row_weights),
            "sampling": errors(forget, limit)["frobenius"],
        }

    def of_factors(
        self,
        lora_a: Tensor,
        lora_b: Tensor,
        forms: Iterable[str],
        ranks: Iterable[int],
        seen: Sequence[Gradients] | None = None,
    ) -> dict[tuple[str, int], dict[str, float]]:
        """Of every form and rank; the gradients that the factors meet may be those of another network, `seen`."""
        forget, retain = (factor_parts(one, lora_a, lora_b) for one in seen or (self.forget, self.retain))
        return {
            (form, rank): self.errors(
                forget.estimate(form, rank), retain.estimate(form, rank), self.forget_truth.limits[form]
            )
            for form in forms
            for rank in ranks
        }

    def of_limit(self, form: str) -> dict[str, float]:
        """Of the product of exact marginals."""
        limit = self.forget_truth.limits[form]
        return self.errors(limit, self.retain_truth.limits[form], limit)

    def of_best(self) -> dict[str, float]:
        """Of the best product there is."""
        best = best_product(self.forget_truth.weight.variance)
        return self.errors(best, best_product(self.retain_truth.weight.variance), best)


class _Network(NamedTuple):
    """A model and the two sets, in one batch each."""

    model: PreTrainedModel
    targets: Mapping[str, TargetModule]
    forget: Batch
    retain: Batch

    def seen(self, probes: Mapping[str, Probe] | None = None) -> dict[str, tuple[Gradients, Gradients]]:
        """Forget and retain gradients of every layer; with probes, in the network that they make."""
        forget, retain = (gradients_of(self.model, self.targets, one, probes) for one in (self.forget, self.retain))
        return {name: (forget[name], retain[name]) for name in self.targets}

    def layers(self) -> dict[str, _Layer]:
        """Every layer with its truths."""
        return {name: _Layer(*both, *map(truth_of, both)) for name, both in self.seen().items()}


def _network(folder: Path, forget: Sequence[Example], retain: Sequence[Example], device: str) -> _Network:
    loaded = load_model(str(folder), dtype=torch.float32, device=torch.device(device))
    tokeniser = ExampleTokeniser(loaded.tokenizer, template="plain", max_length=128)
    batches = (collate(tokeniser.encode_set(one), tokeniser.pad_token_id) for one in (forget, retain))
    return _Network(loaded.model, find_target_modules(loaded.model), *batches)


def theorem_rows(cell: AssumptionsCell, place: Workplace) -> list[Row]:
    """Errors by rank and distribution, by form where the mean is small and where it is not, by sigma and by layer.

    Columns beside `MEASURES` and sampling: asked (rank, sigma, depth), case (`CASES`), distribution, or `LIMIT` or
    `BEST`, rank, sigma and inserted, form, module and layer. Values are medians over layers (but for depth) and means
    over draws.
    """
    files, people = build_small_world(cell.world), world_people(cell.world)
    generator = random.Random(cell.seed)
    retain = generator.sample(people.retain, min(RETAIN_EXAMPLES, len(people.retain)))
    other_text = generator.sample(common_facts().examples, len(people.forget))
    cases = {
        "learnt": (files.target, people.forget),
        "unseen_people": (files.retain_only, people.forget),
        "unseen_text": (files.target, other_text),
    }
    rows: list[Row] = []
    for name, (folder, forget) in cases.items():
        network = _network(folder, forget, retain, place.device)
        layers = network.layers()
        share = median(one.forget_truth.squared_mean_share for one in layers.values())
        found = _rank_rows(cell, layers, cell.distributions if name == "learnt" else ())
        if name == "learnt":
            found += [*_depth_rows(cell, layers), *_sigma_rows(cell, network, layers)]
        rows += [{"case": name, "squared_mean": share, **row} for row in found]
    return rows


def _factors(layers: Mapping[str, _Layer], distribution: str, rank: int, *key: int) -> dict[str, tuple[Tensor, Tensor]]:
    """Both factors of every layer, of variance one: A (rank, d_in), B (d_out, rank)."""
    found = {}
    for name, layer in layers.items():
        digest = hashlib.sha256(f"{distribution}/{name}/{key}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        lora_a = draw_factor(distribution, layer.forget.inputs.shape[2], rank, generator)
        found[name] = lora_a, draw_factor(distribution, layer.forget.outputs.shape[2], rank, generator).T
    return found


def _rank_rows(cell: AssumptionsCell, layers: Mapping[str, _Layer], distributions: Sequence[str]) -> list[Row]:
    """Every distribution, all forms for Gaussian factors; then what does not depend on factors."""
    rows: list[Row] = []
    for distribution in dict.fromkeys(("gaussian", *distributions)):
        forms = list(FORMS) if distribution == "gaussian" else ["variances"]
        drawn = [
            {name: layers[name].of_factors(*pair, forms, cell.ranks) for name, pair in factors.items()}
            for factors in (
                _factors(layers, distribution, max(cell.ranks), cell.seed, draw) for draw in range(cell.draws)
            )
        ]
        for form in forms:
            for rank in cell.ranks:
                found = _over_layers([[layer[form, rank] for layer in draw.values()] for draw in drawn])
                rows.append({"asked": "rank", "distribution": distribution, "form": form, "rank": rank, **found})
    for form in FORMS:
        found = _over_layers([[layer.of_limit(form) for layer in layers.values()]])
        rows.append({"asked": "rank", "distribution": LIMIT, "form": form, **found})
    found = _over_layers([[layer.of_best() for layer in layers.values()]])
    return [*rows, {"asked": "rank", "distribution": BEST, "form": "variances", **found}]


def _over_layers(draws: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Median over layers, mean over draws."""
    return {key: fmean(median(layer[key] for layer in draw) for draw in draws) for key in draws[0][0]}


def _depth_rows(cell: AssumptionsCell, layers: Mapping[str, _Layer]) -> list[Row]:
    """Every layer by itself, at the rank in use and in the limit."""
    drawn = [_factors(layers, "gaussian", RANK, cell.seed, draw) for draw in range(cell.draws)]
    rows: list[Row] = []
    for name, layer in layers.items():
        sampled = [layer.of_factors(*draw[name], ["variances"], [RANK])["variances", RANK] for draw in drawn]
        means = {key: fmean(one[key] for one in sampled) for key in sampled[0]}
        about: Row = {"asked": "depth", "form": "variances", "module": _short(name), "layer": int(name.split(".")[2])}
        rows.append({**about, "distribution": "gaussian", "rank": RANK, **means})
        rows.append({**about, "distribution": LIMIT, **layer.of_limit("variances")})
        rows.append({**about, "distribution": BEST, **layer.of_best()})
    return rows


def _sigma_rows(cell: AssumptionsCell, network: _Network, layers: Mapping[str, _Layer]) -> list[Row]:
    """The same Gaussian factors at every size: virtual, and inserted into the network that is measured."""
    rows: list[Row] = []
    for sigma in cell.sigmas:
        found: dict[bool, list[list[dict[str, float]]]] = {False: [], True: []}
        for draw in range(cell.draws):
            factors = {
                name: (sigma * a, sigma * b)
                for name, (a, b) in _factors(layers, "gaussian", RANK, cell.seed, draw).items()
            }
            device = network.model.device
            probes = {name: Probe(b.to(device), a.to(device)) for name, (a, b) in factors.items()}
            moved = network.seen(probes)
            for is_inserted, values in found.items():
                of_draw = [
                    layers[name].of_factors(
                        *factors[name], ["variances"], [RANK], moved[name] if is_inserted else None
                    )["variances", RANK]
                    for name in layers
                ]
                values.append(of_draw)
        rows += [
            {"asked": "sigma", "distribution": "gaussian", "form": "variances", "rank": RANK, "sigma": sigma,
             "inserted": is_inserted, **_over_layers(values)}
            for is_inserted, values in found.items()
        ]  # fmt: skip
    return rows


# ---- What is said --------------------------------------------------------------------------------------------------


def summary(table: pandas.DataFrame) -> str:
    """Findings, then a table a question."""
    parts: list[Callable[[pandas.DataFrame], str]] = [
        _findings, _distributions_table, _forms_table, _sigma_table, _depth_table, _coverage_table,
    ]  # fmt: skip
    return "\n\n".join(text for part in parts if (text := part(table)))


def asked(table: pandas.DataFrame, question: str, **values: str | bool) -> pandas.DataFrame:
    """The theorem's rows that answer a question, with these values."""
    if "asked" not in table:
        return table.iloc[:0]
    found = table[table["asked"] == question]
    for column, value in values.items():
        found = found[found[column] == value]
    return found


def noise(rows: pandas.DataFrame) -> pandas.Series:
    """Size of what is orthogonal to the limit, over what is along it: `sampling` is the sine of their angle."""
    return rows["sampling"] / (1 - rows["sampling"] ** 2).clip(lower=1e-12) ** 0.5


def slope(rows: pandas.DataFrame) -> float:
    """Exponent b of noise ~ rank^b, by least squares on logarithms of the means over seeds."""
    means = rows.assign(noise=noise(rows)).groupby("rank")["noise"].mean()
    if len(means) < 2:
        return math.nan
    x = torch.tensor(means.index.to_numpy(dtype="float64")).log()
    y = torch.tensor(means.to_numpy(dtype="float64")).log()
    x, y = x - x.mean(), y - y.mean()
    return float(x @ y / (x @ x))


def _findings(table: pandas.DataFrame) -> str:
    lines = []
    of_target = asked(table, "rank", case="learnt", form="variances") if "asked" in table else table.iloc[:0]
    limit, best = (of_target[of_target["distribution"] == one] for one in (LIMIT, BEST))
    gaussian = of_target[of_target["distribution"] == "gaussian"]
    if len(limit) and len(gaussian):
        in_use = gaussian[gaussian["rank"] == RANK]
        lines.append(
            f"- The product form alone (infinite rank) misses the exact variance by {spread(limit['frobenius'], 3)} "
            f"of its norm, the best product there is by {spread(best['frobenius'], 3)}, Gaussian factors of rank "
            f"{RANK} by {spread(in_use['frobenius'], 3)}."
        )
        lines.append(
            f"- Rank correlation of row sums with the exact ones: {spread(limit['rows'], 3)} in the limit, "
            f"{spread(in_use['rows'], 3)} at rank {RANK}; of the row weights that the ratio to the retain set gives: "
            f"{spread(limit['ratio_rows'], 3)} and {spread(in_use['ratio_rows'], 3)}."
        )
        lines.append(
            f"- Sampling noise, relative to the limit, falls as rank to the power {slope(gaussian):.2f} with Gaussian "
            "factors (independent columns: -0.50)."
        )
    lines += [*_form_findings(table), *_sigma_findings(table), *_coverage_findings(table)]
    return "\n".join(lines)


def _form_findings(table: pandas.DataFrame) -> list[str]:
    found = asked(table, "rank", distribution=LIMIT) if "asked" in table else table.iloc[:0]
    lines = []
    for case in in_order(found["case"], CASES) if len(found) else []:
        of_case = found[found["case"] == case]
        told = [
            f"{FORMS[form]} {spread(of_case[of_case['form'] == form]['frobenius'], 3)}, "
            f"{spread(of_case[of_case['form'] == form]['ratio_rows'], 3)}"
            for form in in_order(of_case["form"], FORMS)
        ]
        share = spread(100 * of_case.drop_duplicates("seed")["squared_mean"], 1)
        lines.append(
            f"- Forget set {CASES[case]}, squared mean {share} % of the second moment; relative error and Spearman of "
            f"row weights at infinite rank: {'; '.join(told)}."
        )
    return lines


def _sigma_findings(table: pandas.DataFrame) -> list[str]:
    found = asked(table, "sigma")
    if found.empty:
        return []
    lines = []
    virtual, within = (found[found["inserted"].astype(bool) == one] for one in (False, True))
    if len(virtual):
        by_seed = virtual.groupby("seed")["frobenius"]
        apart = (by_seed.max() - by_seed.min()).max()
        lines.append(f"- Over all sigma, virtual factors give the same relative error to within {apart:.0e}.")
    if len(within):
        means = within.groupby("sigma")["rows"].mean()
        told = ", ".join(f"{value:.3f} at {sigma:g}" for sigma, value in means.items())
        lines.append(
            f"- Inserted into the network, they give row sums whose rank correlation with the truth is {told}."
        )
    return lines


def _coverage_findings(table: pandas.DataFrame) -> list[str]:
    runs = table[table["part"] == "coverage"]
    if runs.empty:
        return []
    balances = best_rates(runs, ["layers"]).pivot_table(index="seed", columns="layers", values="test_balance")
    pairs = (("top", "all"), ("random", "all"), ("top", "random"))
    return [
        f"- Balance, {COVERAGES[one]} minus {COVERAGES[other]}: {spread(balances[one] - balances[other], 3)}."
        for one, other in pairs
        if one in balances and other in balances
    ]


def _measures(rows: pandas.DataFrame) -> list[str]:
    return [spread(rows[measure], 3) for measure in MEASURES]


def _distributions_table(table: pandas.DataFrame) -> str:
    found = asked(table, "rank")
    if found.empty:
        return ""
    found = found[(found["case"] == "learnt") & (found["form"] == "variances")]
    lines = []
    for name in in_order(found["distribution"], [*DISTRIBUTIONS, LIMIT, BEST]):
        rows = found[found["distribution"] == name]
        sampled = name in DISTRIBUTIONS
        of_rank = rows[rows["rank"] == RANK] if sampled else rows
        last = rows[rows["rank"] == rows["rank"].max()]
        lines.append(
            [
                DISTRIBUTIONS.get(name, name),
                *_measures(of_rank),
                spread(noise(of_rank), 3) if sampled else "",
                spread(noise(last), 3) if sampled else "",
                f"{slope(rows):.2f}" if sampled else "",
            ]
        )
    top = int(found["rank"].max())
    headings = ["factors", *MEASURES.values(), f"sampling noise, rank {RANK}", f"rank {top}", "power of rank"]
    return f"**Distribution of the factors** (rank {RANK}, target)\n\n" + markdown_table(headings, lines)


def _forms_table(table: pandas.DataFrame) -> str:
    found = asked(table, "rank")
    if found.empty:
        return ""
    lines = []
    for case in in_order(found["case"], CASES):
        of_case = found[found["case"] == case]
        mean = spread(100 * of_case.drop_duplicates("seed")["squared_mean"], 1) + " %"
        for form in in_order(of_case["form"], FORMS):
            of_form = of_case[of_case["form"] == form]
            for name in ("gaussian", LIMIT):
                rows = of_form[of_form["distribution"] == name]
                rows = rows[rows["rank"] == RANK] if name == "gaussian" else rows
                at = f"rank {RANK}" if name == "gaussian" else name
                lines.append([CASES[case], mean, FORMS[form], at, *_measures(rows)])
    headings = ["forget set", "squared mean in the second moment", "product", "Gaussian factors", *MEASURES.values()]
    return "**The negligible-squared-mean assumption**\n\n" + markdown_table(headings, lines)


def _sigma_table(table: pandas.DataFrame) -> str:
    found = asked(table, "sigma")
    if found.empty:
        return ""
    lines = [
        [f"{sigma:g}", "inserted" if is_inserted else "virtual", *_measures(rows)]
        for (is_inserted, sigma), rows in found.groupby(["inserted", "sigma"])
    ]
    return f"**Sigma** (rank {RANK})\n\n" + markdown_table(["sigma", "factors", *MEASURES.values()], lines)


def _depth_table(table: pandas.DataFrame) -> str:
    found = asked(table, "depth")
    if found.empty:
        return ""
    found = found.assign(kind=found["module"].str.partition(".")[2])
    lines = []
    for title, column in (("block", "layer"), ("kind of layer", "kind")):
        for value in dict.fromkeys(found[column]):
            for name in ("gaussian", LIMIT):
                rows = found[(found[column] == value) & (found["distribution"] == name)]
                means = rows.groupby("seed")[list(MEASURES)].median()
                shown = f"{int(value)}" if title == "block" else str(value)
                lines.append([f"{title} {shown}", f"rank {RANK}" if name == "gaussian" else name, *_measures(means)])
    return "**Depth and kind of layer** (medians)\n\n" + markdown_table(
        ["layers", "Gaussian factors", *MEASURES.values()], lines
    )


def _coverage_table(table: pandas.DataFrame) -> str:
    runs = table[table["part"] == "coverage"]
    if runs.empty:
        return ""
    chosen = best_rates(runs, ["layers"])
    lines = []
    for layers in in_order(chosen["layers"], COVERAGES):
        group = chosen[chosen["layers"] == layers]
        places = "" if layers == "all" else "; ".join(f"seed {row.seed}: {row.chosen}" for row in group.itertuples())
        lines.append(
            [
                COVERAGES[layers],
                f"{group['learning_rate'].iloc[0]:g}",
                spread(group["test_forget_probability"], 3),
                spread(100 * group["test_kept"], 1) + " %",
                spread(group["test_forget_quality_log10"], 2),
                spread(group["test_balance"], 3),
                spread(group["trained_parameters"] / 1000, 0),
                places,
            ]
        )
    headings = [
        "layers with an adapter", "learning rate", "forget probability", "kept", "forget quality, log10 p", "balance",
        "trained parameters, thousands", "which (block.layer)",
    ]  # fmt: skip
    return "**Coverage** (`vila`)\n\n" + markdown_table(headings, lines)


def figures(table: pandas.DataFrame) -> Mapping[str, Figure]:
    """Rank and distribution, sigma, depth, coverage: those there are rows for."""
    drawn: dict[str, Figure] = {}
    by_rank = asked(table, "rank")
    if len(by_rank):
        of_target = by_rank[(by_rank["case"] == "learnt") & (by_rank["form"] == "variances")]
        drawn["rank"] = _rank_figure(of_target)
    if len(by_sigma := asked(table, "sigma")):
        drawn["sigma"] = _sigma_figure(by_sigma)
    if len(by_depth := asked(table, "depth")):
        drawn["depth"] = _depth_figure(by_depth)
    if len(runs := table[table["part"] == "coverage"]):
        drawn["coverage"] = _coverage_figure(runs)
    return drawn


def _rank_figure(found: pandas.DataFrame) -> Figure:
    figure, (left, right) = new_figure(
        "Sampling of the factors averages out with rank; what a product cannot say stays",
        width=11.0,
        height=5.2,
        columns=2,
    )
    ranks = sorted(found["rank"].dropna().unique())
    found = found.assign(noise=noise(found))
    for axes, measure, label in (
        (left, "frobenius", "relative error against the exact variance"),
        (right, "noise", "sampling noise relative to the limit"),
    ):
        draw_lines(axes, found, "rank", measure, by="distribution", names=DISTRIBUTIONS)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ranks, [f"{rank:g}" for rank in ranks])
        axes.set(xlabel="rank of the factors", ylabel=label)
    limit = found[found["distribution"] == LIMIT]["frobenius"].mean()
    left.axhline(limit, color="black", linestyle="--", label="infinite rank (product of exact marginals)")
    end = found[(found["distribution"] == "gaussian") & (found["rank"] == ranks[-1])]["noise"].mean()
    guide = [end * (ranks[-1] / rank) ** 0.5 for rank in ranks]
    right.plot(ranks, guide, ":", color="black", label="1 / root of rank")
    right.set_yscale("log")
    right.yaxis.set_major_formatter(ScalarFormatter())
    right.yaxis.set_minor_formatter(ScalarFormatter())
    shown = [pair for axes in (left, right) for pair in zip(*axes.get_legend_handles_labels(), strict=True)]
    labelled = {label: handle for handle, label in shown}
    figure.legend(
        list(labelled.values()), list(labelled), loc="outside lower center", ncols=4, frameon=False, fontsize=8
    )
    return figure


def _sigma_figure(found: pandas.DataFrame) -> Figure:
    figure, (axes,) = new_figure("The size of the factors matters only where they stand in the network")
    inserted_rows = found["inserted"].astype(bool)
    named = found.assign(factors=inserted_rows.map({True: "inserted", False: "virtual"}))
    draw_lines(axes, named, "sigma", "rows", by="factors", names=("virtual", "inserted"))
    axes.set(xlabel="sigma of the factors", ylabel="rank correlation of row sums")
    axes.legend(frameon=False)
    return figure


def _depth_figure(found: pandas.DataFrame) -> Figure:
    kinds = list(dict.fromkeys(found["module"].str.partition(".")[2]))
    blocks = sorted(found["layer"].unique())
    figure, (left, right) = new_figure(
        f"Error of the product form by layer (dot: mean, bar: seeds; blue: rank {RANK}, orange: infinite rank)",
        width=10.0,
        height=1.6 + 0.3 * len(kinds),
        columns=2,
    )
    for axes, column, values, names in (
        (left, "layer", blocks, [f"block {int(one)}" for one in blocks]),
        (right, "kind", kinds, kinds),
    ):
        rows = found.assign(kind=found["module"].str.partition(".")[2])
        for distribution, colour in (("gaussian", "#0072B2"), (LIMIT, "#D55E00")):
            some = rows[rows["distribution"] == distribution]
            groups = {
                name: some[some[column] == value].groupby("seed")["frobenius"].median()
                for name, value in zip(names, values, strict=True)
            }
            draw_ranges(axes, groups, colours=dict.fromkeys(names, colour))
        axes.set(xlabel="relative error of the entries, median over layers")
    return figure


def _coverage_figure(runs: pandas.DataFrame) -> Figure:
    chosen = best_rates(runs, ["layers"])
    figure, (axes,) = new_figure(
        "Unlearning with an adapter in all layers and in a quarter (bar: smallest to largest seed)", height=2.4
    )
    draw_ranges(
        axes,
        {
            COVERAGES[layers]: chosen[chosen["layers"] == layers]["test_balance"]
            for layers in in_order(chosen["layers"], COVERAGES)
        },
    )
    axes.set(xlabel="balance of forgetting and keeping (1 is best)")
    return figure


STUDY = Study(
    name="assumptions",
    settings=AssumptionsSettings,
    quick={
        "world": TINY_WORLD.model_dump(),
        "seeds": [0],
        "distributions": ["gaussian", "rademacher", "student_t3", "correlated_columns"],
        "ranks": [1, 8, 16],
        "sigmas": [0.05, 0.4],
        "draws": 1,
        "coverages": ["top", "random"],
        "learning_rates": [4e-3],
        "epochs": 1,
    },
    cells=cells,
    run=run,
    summary=summary,
    figures=figures,
)
