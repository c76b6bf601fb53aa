"""The theorem in one world: how far off it is by rank and distribution, by form, by sigma and by layer."""

import random
from collections.abc import Mapping, Sequence
from statistics import fmean, median

from unlora.data.common_facts import common_facts
from unlora_research.assumptions.factors import Factors, draw_factors
from unlora_research.assumptions.grid import RANK, AssumptionsCell
from unlora_research.assumptions.layers import Layer, Network, short_name
from unlora_research.assumptions.theorem import FORMS
from unlora_research.engine import Row, Workplace
from unlora_research.small_world import build_small_world, world_people

CASES: dict[str, str] = {
    "learnt": "learnt (target)",
    "unseen_people": "people never seen (retain-only model)",
    "unseen_text": "general knowledge never seen (target)",
}
"""What stands for the forget set, and the model that is measured."""
LIMIT, BEST = "infinite rank", "best product"
"""What stands in place of a distribution where no factor was drawn."""
RETAIN_EXAMPLES = 64


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
        network = Network.load(folder, forget, retain, place.device)
        layers = network.layers()
        share = median(one.forget_truth.squared_mean_share for one in layers.values())
        found = _rank_rows(cell, layers, cell.distributions if name == "learnt" else ())
        if name == "learnt":
            found += [*_depth_rows(cell, layers), *_sigma_rows(cell, network, layers)]
        rows += [{"case": name, "squared_mean": share, **row} for row in found]
    return rows


def _drawn(
    cell: AssumptionsCell, layers: Mapping[str, Layer], distribution: str, rank: int
) -> list[dict[str, Factors]]:
    """Factors for every layer, as often as the cell draws."""
    shapes = {name: layer.shape for name, layer in layers.items()}
    return [draw_factors(shapes, distribution, rank, seed=cell.seed, draw=draw) for draw in range(cell.draws)]


def _over_layers(draws: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, float]:
    """Median over layers, mean over draws."""
    return {key: fmean(median(layer[key] for layer in draw) for draw in draws) for key in draws[0][0]}


def _rank_rows(cell: AssumptionsCell, layers: Mapping[str, Layer], distributions: Sequence[str]) -> list[Row]:
    """Every distribution, all forms for Gaussian factors; then what does not depend on factors."""
    rows: list[Row] = []
    for distribution in dict.fromkeys(("gaussian", *distributions)):
        forms = list(FORMS) if distribution == "gaussian" else ["variances"]
        draws = [
            [layers[name].of_factors(factors, forms, cell.ranks) for name, factors in draw.items()]
            for draw in _drawn(cell, layers, distribution, max(cell.ranks))
        ]
        for form in forms:
            for rank in cell.ranks:
                found = _over_layers([[layer[form, rank] for layer in draw] for draw in draws])
                rows.append({"asked": "rank", "distribution": distribution, "form": form, "rank": rank, **found})
    for form in FORMS:
        found = _over_layers([[layer.of_limit(form) for layer in layers.values()]])
        rows.append({"asked": "rank", "distribution": LIMIT, "form": form, **found})
    found = _over_layers([[layer.of_best() for layer in layers.values()]])
    return [*rows, {"asked": "rank", "distribution": BEST, "form": "variances", **found}]


def _depth_rows(cell: AssumptionsCell, layers: Mapping[str, Layer]) -> list[Row]:
    """Every layer by itself, at the rank in use and in the limit."""
    draws = _drawn(cell, layers, "gaussian", RANK)
    rows: list[Row] = []
    for name, layer in layers.items():
        sampled = _over_layers([[layer.in_use(draw[name])] for draw in draws])
        module = short_name(name)
        about: Row = {"asked": "depth", "form": "variances", "module": module, "layer": int(module.partition(".")[0])}
        rows.append({**about, "distribution": "gaussian", "rank": RANK, **sampled})
        rows.append({**about, "distribution": LIMIT, **layer.of_limit("variances")})
        rows.append({**about, "distribution": BEST, **layer.of_best()})
    return rows


def _sigma_rows(cell: AssumptionsCell, network: Network, layers: Mapping[str, Layer]) -> list[Row]:
    """The same Gaussian factors at every size: virtual, and inserted into the network that is measured."""
    draws = _drawn(cell, layers, "gaussian", RANK)
    about: Row = {"asked": "sigma", "distribution": "gaussian", "form": "variances", "rank": RANK}
    rows: list[Row] = []
    for sigma in cell.sigmas:
        virtual, within = [], []
        for draw in draws:
            scaled = {name: factors.scaled(sigma) for name, factors in draw.items()}
            seen = network.seen(scaled)
            virtual.append([layer.in_use(scaled[name]) for name, layer in layers.items()])
            within.append([layer.in_use(scaled[name], seen[name]) for name, layer in layers.items()])
        for is_inserted, found in ((False, virtual), (True, within)):
            rows.append({**about, "sigma": sigma, "inserted": is_inserted, **_over_layers(found)})
    return rows
