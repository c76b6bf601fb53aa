"""Does an importance map find the weights that carry what was learnt? A causal check where the answer is known.

A model that knows everything but the forget set learns it, in all linear layers or in a few of them. So the place is
known, the true change of every row is known, and the weights before are known: rows that are put back to them forget
what they carried. A map is right if the rows that it ranks highest, put back, take the forget set with them and leave
the rest.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Literal, NamedTuple

import numpy
import pandas
import torch
from matplotlib.figure import Figure
from pydantic import Field
from scipy.stats import mannwhitneyu
from torch import Tensor
from transformers import PreTrainedModel

from unlora.config import Config
from unlora.data.collate import batches_by_length, collate
from unlora.data.records import Example
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.importance import ImportanceMap, estimate_importance, module_ratio
from unlora.importance.accumulate import Batch
from unlora.importance.contrast_map import ContrastMap, estimate_contrast
from unlora.importance.diagnostics import rank_correlation
from unlora.importance.importance_map import MarginalImportance
from unlora.importance.ratio import module_score
from unlora.models.load import load_model
from unlora.models.target_modules import find_target_modules
from unlora.studies.engine import Row, Study, Workplace
from unlora.studies.figures import COLOURS, draw_lines, draw_ranges, new_figure
from unlora.studies.small_world import (
    TINY_WORLD,
    SmallWorld,
    WorldPeople,
    build_small_world,
    learn_further,
    lessons,
    probabilities,
    world_people,
)
from unlora.studies.tables import in_order, markdown_table, spread

Kind = Literal["topic", "template", "token"]
KINDS: dict[str, str] = {
    "topic": "other people, same wording",
    "template": "same facts, another wording",
    "token": "same answers, last token changed",
}
RANKINGS: dict[str, str] = {
    "change": "true change of the row (hindsight)",
    "marginal": "marginal",
    "vila": "vila",
    "fila": "fila",
    "contrast": "contrast",
    "forget_energy": "marginal without the retain set",
    "weight_norm": "norm of the row (control)",
    "random": "random order (control)",
}
MAPS = ("marginal", "vila", "fila", "contrast", "forget_energy")
CONTROLS = ("weight_norm", "random")
EVERYWHERE = "all"
DAMAGE = 0.02
"""Rankings are compared where the held-out probability has fallen by this share."""
SHOWN_SHARE = 0.1
"""Share of rows put back that tables report."""


class SanitySettings(Config):
    """The grid."""

    world: SmallWorld = SmallWorld()
    """Its retain-only model is what the forget set is taught to; seeds change its seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of world, training and maps."""
    kinds: tuple[Kind, ...] = ("topic", "template", "token")
    """How the forget set differs from what the model knows."""
    places: tuple[str, ...] = (EVERYWHERE, "layers.0.mlp", "layers.3.mlp")
    """Which linear layers may change while the forget set is learnt: all, or those below a name."""
    shares: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    """Of all rows of all linear layers, put back."""
    epochs: int = Field(default=10, ge=1)
    """Of the forget set."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Where all layers learn; one layer alone learns with three times as much."""


class SanityCell(Config):
    """One forget set, learnt in one place."""

    kind: Kind
    place: str
    seed: int
    world: SmallWorld
    shares: tuple[float, ...]
    epochs: int
    learning_rate: float


def cells(settings: SanitySettings) -> list[SanityCell]:
    """All combinations."""
    return [
        SanityCell(
            kind=kind,
            place=place,
            seed=seed,
            world=settings.world.model_copy(update={"seed": seed}),
            shares=settings.shares,
            epochs=settings.epochs,
            learning_rate=settings.learning_rate * (1 if place == EVERYWHERE else 3),
        )
        for seed in settings.seeds
        for place in settings.places
        for kind in settings.kinds
    ]


class ShiftedSets(NamedTuple):
    """A forget set, and what is learnt and kept beside it."""

    forget: list[Example]
    """Asked and measured."""
    lessons: list[Example]
    """The same in every wording that is learnt."""
    retain: list[Example]
    """Known before, kept while learning; in one wording."""


def shifted_sets(kind: Kind, people: WorldPeople) -> ShiftedSets:
    """A forget set that differs from what is known in one thing.

    topic: people whom the model never saw, asked as it is used to. template: facts that it knows, in a frame it never
    saw. token: questions that it knows; every answer ends in "!" where all others end in ".", so that one token's
    frequency goes from 0 to 1; the former answers are not kept, they would contradict.
    """
    if kind == "topic":
        forget = list(people.forget)
        return ShiftedSets(forget, [taught for one in forget for taught in lessons(one)], list(people.retain))
    count = len(people.forget)
    change = _framed if kind == "template" else _exclaimed
    known = people.retain[:count]
    taught = [change(wording) for one in known for wording in lessons(one)]
    retain = people.retain if kind == "template" else people.retain[count:]
    return ShiftedSets([change(one) for one in known], taught, list(retain))


def _framed(example: Example) -> Example:
    prompt, completion = f"For the record: {example.prompt}", f"The record says that {example.completion}"
    return dataclasses.replace(example, prompt=prompt, completion=completion)


def _exclaimed(example: Example) -> Example:
    return dataclasses.replace(example, completion=example.completion.removesuffix(".") + "!")


def run(cell: SanityCell, place: Workplace) -> list[Row]:
    """Teach the forget set, rank the rows in every way, and put the highest back; a row a ranking and share."""
    people = world_people(cell.world)
    sets = shifted_sets(cell.kind, people)
    loaded = load_model(str(build_small_world(cell.world).retain_only), device=torch.device(place.device))
    model, tokeniser = loaded.model, ExampleTokeniser(loaded.tokenizer, template="plain", max_length=128)
    pad = tokeniser.pad_token_id
    forget, held_out = tokeniser.encode_set(sets.forget), tokeniser.encode_set(people.held_out[::2])
    known = tokeniser.encode_set(taught for one in (*people.held_out, *sets.retain) for taught in lessons(one))
    before, known_before = linear_weights(model), measured(model, forget, held_out, pad)
    learn_further(
        model,
        tokeniser.encode_set(sets.lessons),
        known,
        pad_token_id=pad,
        folder=place.folder / "trainer",
        parts=None if cell.place == EVERYWHERE else [f"{cell.place}.*"],
        epochs=cell.epochs,
        learning_rate=cell.learning_rate,
        seed=cell.seed,
    )
    after, known_after = linear_weights(model), measured(model, forget, held_out, pad)
    retain = tokeniser.encode_set(sets.retain[:64])
    rankings = rank_rows(model, forget, retain, pad, before, cell.seed)
    rows: list[Row] = []
    for name, ranking in rankings.items():
        about: Row = {"ranking": name, **located(ranking, before, after)}
        for share in cell.shares:
            put_back(model, highest_rows(ranking.rows, share), before)
            found = measured(model, forget, held_out, pad)
            put_back(model, {name: torch.ones(len(one), dtype=torch.bool) for name, one in after.items()}, after)
            rows.append(about | {"share": share, **told(found, known_before, known_after)})
    return rows


class Known(NamedTuple):
    """Mean probability of the answers."""

    forget: float
    held_out: float


def measured(
    model: PreTrainedModel, forget: Sequence[TokenisedExample], held_out: Sequence[TokenisedExample], pad: int
) -> Known:
    """Ask both sets."""
    return Known(*(float(numpy.mean(probabilities(model, examples, pad))) for examples in (forget, held_out)))


def told(found: Known, before: Known, after: Known) -> Row:
    """What was forgotten and kept: shares of the way back to before the forget set was learnt, and of the target."""
    return {
        "forget_probability": found.forget,
        "held_out_probability": found.held_out,
        "forgotten": (after.forget - found.forget) / (after.forget - before.forget),
        "kept": found.held_out / after.held_out,
        "before_forget_probability": before.forget,
        "target_forget_probability": after.forget,
        "before_held_out_probability": before.held_out,
        "target_held_out_probability": after.held_out,
    }


class Ranking(NamedTuple):
    """Scores, the higher the more important."""

    rows: dict[str, Tensor]
    """Module name -> (d_out,), comparable between modules."""
    modules: dict[str, float]


def rank_rows(
    model: PreTrainedModel,
    forget: Sequence[TokenisedExample],
    retain: Sequence[TokenisedExample],
    pad: int,
    before: Mapping[str, Tensor],
    seed: int,
) -> dict[str, Ranking]:
    """Score rows and modules in every way of `RANKINGS`."""

    def batches(examples: Sequence[TokenisedExample]) -> list[Batch]:
        return [collate([examples[row] for row in rows], pad) for rows in batches_by_length(examples, 16)]

    of_forget, of_retain = batches(forget), batches(retain)
    maps = {
        name: estimate_importance(model, of_forget, of_retain, preset=name, seed=seed)
        for name in ("marginal", "vila", "fila")
    }
    weights = linear_weights(model)
    generator = torch.Generator().manual_seed(seed)
    random = {name: torch.rand(len(one), generator=generator) for name, one in weights.items()}
    return {
        "change": _by_rows({name: (one - before[name]).norm(dim=1) for name, one in weights.items()}),
        **{name: ratio_ranking(one) for name, one in maps.items()},
        "contrast": contrast_ranking(estimate_contrast(model, of_forget, of_retain, seed=seed)),
        "forget_energy": forget_ranking(maps["marginal"]),
        "weight_norm": _by_rows({name: one.norm(dim=1) for name, one in weights.items()}),
        "random": _by_rows(random),
    }


def ratio_ranking(importance: ImportanceMap) -> Ranking:
    """Rows by the ratio of forget over retain importance; a sum over d_in ratios becomes their mean, so that rows of
    different lengths compare.
    """
    rows = {}
    for name, one in importance.items():
        weights = module_ratio(one).row_weights
        separable = isinstance(one.forget, MarginalImportance)
        rows[name] = weights if separable else weights / importance.metadata.module_shapes[name][1]
    return Ranking(rows, {name: module_score(one) for name, one in importance.items()})


def forget_ranking(importance: ImportanceMap) -> Ranking:
    """Rows by the forget set's own statistic."""
    rows = {name: one.forget.rows for name, one in importance.items() if isinstance(one.forget, MarginalImportance)}
    return Ranking(rows, {name: float(one.mean()) for name, one in rows.items()})


def contrast_ranking(contrast: ContrastMap) -> Ranking:
    """Rows by their energy in the output directions, each direction weighted with its eigenvalue."""
    rows, modules = {}, {}
    for name, one in contrast.items():
        if one.outputs is not None and one.output_eigenvalues is not None:
            rows[name] = one.outputs.square() @ one.output_eigenvalues
            modules[name] = float(one.output_eigenvalues[0])
    return Ranking(rows, modules)


def _by_rows(rows: dict[str, Tensor]) -> Ranking:
    return Ranking(rows, {name: float(one.mean()) for name, one in rows.items()})


def highest_rows(rows: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Mask of the highest `share` of all rows of all modules, exactly so many."""
    joined = torch.cat(list(rows.values()))
    chosen = torch.zeros(len(joined), dtype=torch.bool)
    chosen[joined.argsort(descending=True, stable=True)[: round(share * len(joined))]] = True
    parts = chosen.split([len(one) for one in rows.values()])
    return dict(zip(rows, parts, strict=True))


def linear_weights(model: PreTrainedModel) -> dict[str, Tensor]:
    """A copy of every linear layer's weight, (d_out, d_in)."""
    return {name: target.weight().clone() for name, target in find_target_modules(model).items()}


@torch.no_grad()
def put_back(model: PreTrainedModel, chosen: Mapping[str, Tensor], weights: Mapping[str, Tensor]) -> None:
    """Give the chosen rows of every linear layer their values in `weights`."""
    for name, target in find_target_modules(model).items():
        target.weight()[chosen[name]] = weights[name][chosen[name]]


def located(ranking: Ranking, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Row:
    """How well a ranking finds what changed: modules and rows that did against those that did not (AUC), and, in the
    median module that changed, rows in the order of their true change (Spearman).
    """
    change = {name: (after[name] - before[name]).norm(dim=1) for name in after}
    changed = {name: bool(one.any()) for name, one in change.items()}
    moved = [name for name in changed if changed[name]]
    still = [name for name in changed if not changed[name]]
    correlations = [rank_correlation(ranking.rows[name], change[name]) for name in moved]
    return {
        "module_auc": auc([ranking.modules[name] for name in moved], [ranking.modules[name] for name in still]),
        "row_auc": auc(_joined(ranking.rows, moved), _joined(ranking.rows, still)),
        "row_correlation": median(correlations),
    }


def _joined(rows: Mapping[str, Tensor], names: Sequence[str]) -> list[float]:
    return [value for name in names for value in rows[name].tolist()]


def auc(positive: Sequence[float], negative: Sequence[float]) -> float:
    """Chance that a positive scores above a negative, ties half; NaN without either."""
    if not positive or not negative:
        return float("nan")
    return float(mannwhitneyu(positive, negative).statistic) / (len(positive) * len(negative))


def at_damage(shares: Sequence[float], kept: Sequence[float], values: Sequence[float], damage: float) -> float:
    """The value at the share of rows where `kept` first falls by `damage`, linear between shares from (0, 1, 0) on.

    Where it never does, the value at the largest share: so much at less damage.
    """
    before = (1.0, 0.0)
    for _, now, value in sorted(zip(shares, kept, values, strict=True)):
        if now < 1 - damage:
            way = (before[0] - (1 - damage)) / (before[0] - now)
            return before[1] + way * (value - before[1])
        before = (now, value)
    return before[1]


def curves(table: pandas.DataFrame) -> pandas.DataFrame:
    """One line a cell and ranking: where it found the change, and what its rows, put back, took with them."""
    lines = []
    keys = ["kind", "place", "seed", "ranking"]
    for key, group in table.groupby(keys, sort=False):
        group = group.sort_values("share")
        forgotten = group["forgotten"].clip(0, 1)
        middle = group.iloc[(group["share"] - SHOWN_SHARE).abs().argmin()]
        lines.append(
            dict(zip(keys, key, strict=True))
            | {name: group[name].iloc[0] for name in ("module_auc", "row_auc", "row_correlation")}
            | {
                "forgotten": float(numpy.clip(middle["forgotten"], 0, 1)),
                "kept": middle["kept"],
                "forgotten_at_damage": at_damage(list(group["share"]), list(group["kept"]), list(forgotten), DAMAGE),
            }
        )
    return pandas.DataFrame(lines)


def summary(table: pandas.DataFrame) -> str:
    """Maps against controls; the causal check; where the change was found; what was learnt."""
    found = curves(table)
    parts = [_findings(found), _causal(found), _located(found), _taught(table)]
    return "\n\n".join(part for part in parts if part)


def _taught(table: pandas.DataFrame) -> str:
    rows = []
    for (kind, place), group in table.groupby(["kind", "place"], sort=False):
        known = group.drop_duplicates("seed")
        names = ("before_forget", "target_forget", "before_held_out", "target_held_out")
        rows.append([kind, f"`{place}`", *(spread(known[f"{name}_probability"], 3) for name in names)])
    headings = ["forget set", "learnt in", "forget probability before", "learnt", "held-out before", "learnt"]
    return f"**What the model learnt**\n\n{markdown_table(headings, rows)}"


def _findings(found: pandas.DataFrame) -> str:
    rows = []
    for name in MAPS:
        line = [f"`{name}`"]
        for measure in ("forgotten", "forgotten_at_damage"):
            for control in CONTROLS:
                differences = paired(found, measure, name, control)
                wins = sum(value > 0 for value in differences)
                line.append(f"{spread(differences, 2)}, above 0 in {wins} of {len(differences)}" if differences else "")
        if any(line[1:]):
            rows.append(line)
    headings = ["rows by"]
    for words in (f"{SHOWN_SHARE:.0%} of the rows", f"{DAMAGE:.0%} damage"):
        headings += [f"{words}: forgotten, minus `{control}`" for control in CONTROLS]
    title = "**Does a map find more than a control does?** (differences within the same model)"
    return f"{title}\n\n{markdown_table(headings, rows)}" if rows else ""


def paired(found: pandas.DataFrame, measure: str, one: str, other: str) -> list[float]:
    """Differences between two rankings of the same model's rows, for every cell that has both."""
    values = found.pivot_table(index=["kind", "place", "seed"], columns="ranking", values=measure)
    if one not in values or other not in values:
        return []
    return [float(value) for value in (values[one] - values[other]).dropna()]


def _causal(found: pandas.DataFrame) -> str:
    rows = []
    for where, group in _by_place(found):
        for name in in_order(group["ranking"], RANKINGS):
            one = group[group["ranking"] == name]
            by_kind = [spread(one[one["kind"] == kind]["forgotten"], 2) for kind in in_order(group["kind"], KINDS)]
            kept = spread(100 * one["kept"], 1) + " %"
            rows.append([where, f"`{name}`", *by_kind, kept, spread(one["forgotten_at_damage"], 2)])
    kinds = [f"forgotten, {kind}" for kind in in_order(found["kind"], KINDS)]
    headings = ["learnt in", "rows by", *kinds, "kept, all kinds", f"forgotten at {DAMAGE:.0%} damage, all kinds"]
    title = f"**The highest {SHOWN_SHARE:.0%} of all rows put back to their values before the forget set was learnt**"
    return f"{title}\n\n{markdown_table(headings, rows)}"


def _by_place(found: pandas.DataFrame) -> list[tuple[str, pandas.DataFrame]]:
    everywhere = found["place"] == EVERYWHERE
    groups = [("all layers", found[everywhere]), ("one place", found[~everywhere])]
    return [(name, group) for name, group in groups if len(group)]


def _located(found: pandas.DataFrame) -> str:
    rows = []
    for name in in_order(found["ranking"], RANKINGS):
        one = found[found["ranking"] == name]
        places = one[one["place"] != EVERYWHERE]
        by_place = [
            spread(places[places["place"] == place]["module_auc"], 2) for place in dict.fromkeys(places["place"])
        ]
        rows.append([f"`{name}`", *by_place, spread(places["row_auc"], 2), spread(one["row_correlation"], 2)])
    known = dict.fromkeys(found[found["place"] != EVERYWHERE]["place"])
    headings = [
        "scores by",
        *(f"AUC of modules, learnt in `{place}`" for place in known),
        "AUC of rows, one place",
        "order of rows within modules (Spearman)",
    ]
    return f"**Does the score find what changed?** (0.5 and 0 are chance)\n\n{markdown_table(headings, rows)}"


def figures(table: pandas.DataFrame) -> Mapping[str, Figure]:
    """What goes with the rows that are put back; whether the place is found."""
    drawn = {"rows_put_back": _rows_put_back(table)}
    if (table["place"] != EVERYWHERE).any():
        drawn["place"] = _place(curves(table))
    return drawn


def _rows_put_back(table: pandas.DataFrame) -> Figure:
    table = table.assign(forgotten=table["forgotten"].clip(0, 1))
    figure, panels = new_figure(
        "How much of the forget set goes with the rows that rank highest (band: smallest to largest cell)",
        width=11.5,
        height=4.6,
        columns=2,
        share_y=True,
    )
    shown = {name: RANKINGS[name] for name in ("change", "marginal", "fila", "forget_energy", "weight_norm", "random")}
    where = table["place"] == EVERYWHERE
    groups = (("Learnt in all layers", table[where]), ("Learnt in one place", table[~where]))
    for axes, (title, group) in zip(panels, groups, strict=True):
        draw_lines(axes, group, "share", "forgotten", by="ranking", names=shown)
        axes.set(title=title, xlabel="share of all rows put back")
    panels[0].set(ylabel="forgotten (0: nothing, 1: as before it was learnt)")
    panels[0].legend(frameon=False, fontsize=8)
    return figure


def _place(found: pandas.DataFrame) -> Figure:
    places = found[found["place"] != EVERYWHERE]
    known = list(dict.fromkeys(places["place"]))
    figure, panels = new_figure(
        "Does a module's score tell where the forget set was learnt?",
        width=3.2 * len(known) + 2.5,
        height=3.6,
        columns=len(known),
        share_y=True,
    )
    names = in_order(places["ranking"], RANKINGS)
    for axes, place in zip(panels, known, strict=True):
        here = places[places["place"] == place]
        groups: dict[str, Sequence[float]] = {name: list(here[here["ranking"] == name]["module_auc"]) for name in names}
        draw_ranges(axes, groups, colours={name: COLOURS[1] for name in CONTROLS})
        axes.axvline(0.5, color=COLOURS[7], linewidth=1, linestyle="--")
        axes.set(title=f"learnt in {place}", xlabel="AUC (0.5 is chance)", xlim=(-0.03, 1.03))
    return figure


STUDY = Study(
    name="sanity",
    settings=SanitySettings,
    quick={
        "world": TINY_WORLD.model_dump(),
        "seeds": [0],
        "kinds": ["topic", "token"],
        "places": [EVERYWHERE, "layers.0.mlp"],
        "shares": [0.1, 0.3],
        "epochs": 6,
        "learning_rate": 3e-3,
    },
    cells=cells,
    run=run,
    summary=summary,
    figures=figures,
)
