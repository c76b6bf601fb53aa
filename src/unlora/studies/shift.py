"""When does the variance correction pay? Forget sets at a known distance from the retain set, learnt and never seen.

VILA takes the variance of the gradient where FILA takes the second moment, because the mean is not zero on a set that
the model was not trained on. How large is the mean, what does it do to a map, and does unlearning notice? The forget
set of a small world, whose people are exchangeable with those of the retain set, is replaced share by share with other
text, which the target has learnt as well or never saw.

The squared mean of n gradients is about 1/n of their second moment even where the true mean is zero. So its unbiased
estimate is reported beside it: the mean of g_i . g_j over i != j, over the mean of g_i . g_i.
"""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, NamedTuple

import pandas
import torch
import yaml
from jaxtyping import Float
from matplotlib.figure import Figure
from pydantic import Field
from torch import Tensor
from transformers import PreTrainedModel

from unlora.adapters.export import load_trained_adapter
from unlora.artifacts import write_text
from unlora.config import Config, merge
from unlora.data.collate import collate
from unlora.data.common_facts import common_facts
from unlora.data.people import FACTS, generate_people
from unlora.data.records import Example
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.errors import TrainingDivergedError
from unlora.importance import module_ratio
from unlora.importance.accumulate import accumulate
from unlora.importance.diagnostics import rank_correlation
from unlora.importance.hooks import measuring
from unlora.importance.importance_map import MarginalImportance, ModuleImportance
from unlora.importance.moments import StatisticName
from unlora.importance.spaces import MarginalStatistics
from unlora.models.load import load_model
from unlora.models.save import save_model
from unlora.models.score import score_completions
from unlora.models.target_modules import find_target_modules
from unlora.models.wrapping import CausalModel
from unlora.recipes.presets import preset
from unlora.recipes.settings import UnlearnSettings
from unlora.recipes.unlearn import unlearn
from unlora.studies.engine import Row, Study, Workplace
from unlora.studies.figures import COLOURS, MARKERS, draw_lines, new_figure
from unlora.studies.halves import HalfResult, balance
from unlora.studies.small_world import (
    TINY_WORLD,
    SmallWorld,
    SmallWorldFiles,
    build_small_world,
    learn_further,
    lessons,
    probabilities,
    world_people,
)
from unlora.studies.tables import in_order, markdown_table, spread

KINDS: dict[str, str] = {
    "none": "nothing replaced",
    "other_facts": "same people, other facts",
    "other_people": "other people, same questions",
    "other_text": "general knowledge",
}
STATE = {True: "taught", False: "never seen"}
STARTS: dict[str, dict[str, Any]] = {
    "variance": {"statistic": "variance"},
    "second_moment": {"statistic": "second_moment"},
    "shuffled": {"initialisation": "shuffled", "statistic": "variance"},
    "uniform": {"initialisation": "uniform"},
}
"""Changes to the preset `marginal`."""
STATISTICS: tuple[StatisticName, ...] = ("variance", "second_moment")
RETAIN_EXAMPLES = 64


class ShiftSettings(Config):
    """The grid."""

    world: SmallWorld = SmallWorld()
    """Of seed 0; other seeds change its seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of world, choice of text and training."""
    kinds: tuple[str, ...] = ("other_facts", "other_people", "other_text")
    """What replaces examples of the forget set."""
    shares_unseen: tuple[float, ...] = (0.25, 0.5, 0.75, 1.0)
    """Share of the forget set that is replaced by text that the target never saw."""
    shares_learnt: tuple[float, ...] = (1.0,)
    """The same by text that the target has learnt."""
    shares_unlearnt: tuple[float, ...] = (0.5,)
    """Shares never seen at which the starts are tried out, as they are where nothing is replaced; below 1, because
    there must be something to forget."""
    starts: tuple[str, ...] = tuple(STARTS)
    """What the adapter starts from."""
    learning_rate: float = Field(default=4e-3, gt=0)
    """Of unlearning, for every start: they have factors of the same size."""
    epochs: int = Field(default=5, ge=1)
    """Of unlearning."""
    lesson_epochs: int = Field(default=10, ge=1)
    """Of teaching the target other text."""
    lesson_rate: float = Field(default=1e-3, gt=0)
    """Of the same."""


class ShiftCell(Config):
    """One forget set and its target."""

    kind: str
    share: float
    learnt: bool
    seed: int
    world: SmallWorld
    starts: tuple[str, ...]
    learning_rate: float
    epochs: int
    lesson_epochs: int
    lesson_rate: float


def cells(settings: ShiftSettings) -> list[ShiftCell]:
    """The forget set as it is, then every kind and share, learnt and not, seed by seed; what is quick comes first."""
    mixtures = [("none", 0.0, True)]
    for kind in settings.kinds:
        mixtures += [(kind, share, True) for share in settings.shares_learnt]
        mixtures += [(kind, share, False) for share in settings.shares_unseen]
    unlearnt = {("none", 0.0, True)} | {
        (kind, share, False) for kind in settings.kinds for share in settings.shares_unlearnt if share < 1
    }
    grid = [
        ShiftCell(
            kind=kind,
            share=share,
            learnt=learnt,
            seed=seed,
            world=settings.world.model_copy(update={"seed": seed}),
            starts=settings.starts if (kind, share, learnt) in unlearnt else (),
            learning_rate=settings.learning_rate,
            epochs=settings.epochs,
            lesson_epochs=settings.lesson_epochs,
            lesson_rate=settings.lesson_rate,
        )
        for seed in settings.seeds
        for kind, share, learnt in mixtures
    ]
    return sorted(grid, key=lambda cell: len(cell.starts))


class Mixture(NamedTuple):
    """A forget set of two parts."""

    forget: list[Example]
    """Both, in random order, so that every other example is an independent half."""
    kept: list[Example]
    """The part that the world's target knows and its retain-only model never saw."""
    other: list[Example]


def mixture(kind: str, share: float, world: SmallWorld) -> Mixture:
    """Replace a share of the world's forget set.

    other_facts: about the people of the forget set, then of the retain set, facts beyond those of the world.
    other_people: more people, asked the same. other_text: general knowledge in short sentences.
    """
    people = world_people(world)
    count = len(people.forget)
    replaced = round(share * count)
    known = world.questions_per_person
    if kind == "other_facts":
        every = generate_people(world.people, seed=world.seed, questions_per_person=len(FACTS)).examples
        held_out = {one.person for one in people.held_out}
        beyond = [one for place, one in enumerate(every) if place % len(FACTS) >= known]
        candidates = [one for one in beyond if one.person not in held_out][:count]
    elif kind == "other_people":
        more = world.people + world.forget_people
        candidates = generate_people(more, seed=world.seed, questions_per_person=known).examples[-count:]
    else:
        candidates = random.Random(world.seed).sample(common_facts().examples, count)
    generator = random.Random(f"{world.seed}/{kind}")
    kept = generator.sample(people.forget, count - replaced)
    other = generator.sample(candidates, replaced)
    return Mixture(generator.sample(kept + other, count), kept, other)


def run(cell: ShiftCell, place: Workplace) -> list[Row]:
    """Measure the maps of one forget set, and unlearn it from every start; a row a start, or one row without."""
    files, parts = build_small_world(cell.world), mixture(cell.kind, cell.share, cell.world)
    target = teach_target(cell, files, parts, place)
    people = world_people(cell.world)
    loaded = load_model(str(target), device=torch.device(place.device))
    tokeniser = ExampleTokeniser(loaded.tokenizer, template="plain", max_length=128)
    retain = random.Random(cell.seed).sample(people.retain, min(RETAIN_EXAMPLES, len(people.retain)))
    found = compare_maps(
        loaded.model, tokeniser.encode_set(parts.forget), tokeniser.encode_set(retain), tokeniser.pad_token_id
    )
    if not cell.starts:
        return [found]
    asked = parts.forget if cell.learnt else parts.kept
    asks = _Asked(
        tokeniser.encode_set(asked), tokeniser.encode_set(people.held_out), tokeniser.pad_token_id, place.device
    )
    known = {"target": asks.of(loaded.model), "retain_only": asks.of_folder(files.retain_only)}
    about: Row = {f"{name}_forget_probability": one.forget_probability for name, one in known.items()}
    return [found | about | tried(cell, start, target, files, parts, asks, known, place) for start in cell.starts]


def teach_target(cell: ShiftCell, files: SmallWorldFiles, parts: Mixture, place: Workplace) -> Path:
    """The world's own target, or one that learnt the other text as well, in the wording that is to be forgotten."""
    if not cell.learnt or not parts.other:
        return files.target
    folder = place.folder / "target"
    if not (folder / "config.json").is_file():
        people = world_people(cell.world)
        loaded = load_model(str(files.target), device=torch.device(place.device))
        tokeniser = ExampleTokeniser(loaded.tokenizer, template="plain", max_length=128)
        known = (taught for one in (*people.forget, *people.held_out, *people.retain) for taught in lessons(one))
        learn_further(
            loaded.model,
            tokeniser.encode_set(parts.other),
            tokeniser.encode_set(known),
            pad_token_id=tokeniser.pad_token_id,
            folder=place.folder / "trainer",
            epochs=cell.lesson_epochs,
            learning_rate=cell.lesson_rate,
            seed=cell.seed,
        )
        save_model(loaded.model, loaded.tokenizer, folder)
    return folder


class SetRows(NamedTuple):
    """What one set says about one module: either statistic of its gradients."""

    statistics: Mapping[StatisticName, MarginalImportance]
    energy: float
    """Mean squared norm of an example's gradient."""
    squared_mean: float
    """Share of it in the squared norm of the mean, unbiased."""


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
    of_forget = whole[0]
    energy = sum(one.energy for one in of_forget.values())
    unbiased = sum(one.squared_mean * one.energy for one in of_forget.values()) / energy
    by_statistic = {statistic: row_weights(*whole, statistic) for statistic in STATISTICS}
    row: Row = {
        "examples": len(forget),
        "forget_loss": mean_loss(model, forget, pad),
        "squared_mean": unbiased,
        "squared_mean_plug_in": plug_in(unbiased, len(forget)),
        "squared_mean_median": median(one.squared_mean for one in of_forget.values()),
        "rank_difference": 1 - correlation(by_statistic["variance"], by_statistic["second_moment"]),
    }
    for statistic in STATISTICS:
        row[f"{statistic}_agreement"] = correlation(*(row_weights(*half, statistic) for half in halves))
    return row


def plug_in(unbiased: float, count: int) -> float:
    """Share of ||mean g||^2 in mean ||g||^2, from its unbiased estimate: the mean over all pairs, each with itself."""
    return 1 / count + (1 - 1 / count) * unbiased


def row_weights(
    forget: Mapping[str, SetRows], retain: Mapping[str, SetRows], statistic: StatisticName
) -> dict[str, Float[Tensor, " d_out"]]:
    """What a start would weight the rows with."""
    return {
        name: module_ratio(
            ModuleImportance(forget[name].statistics[statistic], retain[name].statistics[statistic])
        ).row_weights
        for name in forget
    }


def correlation(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> float:
    """Spearman of the rows of the median module."""
    return median(rank_correlation(first[name], second[name]) for name in first)


def mean_loss(model: PreTrainedModel, examples: Sequence[TokenisedExample], pad: int) -> float:
    """Mean over examples of the negative log-likelihood per completion token."""
    sequences = [(one.input_ids, one.prompt_length) for one in examples]
    return -fmean(one.mean_log_prob for one in score_completions(model, sequences, pad_token_id=pad, batch_size=64))


class _Asked(NamedTuple):
    """What every model is asked."""

    forget: list[TokenisedExample]
    held_out: list[TokenisedExample]
    pad: int
    device: str

    def of(self, model: CausalModel) -> HalfResult:
        """Mean probability of the answers; nothing else is measured."""
        forget, held_out = (fmean(probabilities(model, one, self.pad)) for one in (self.forget, self.held_out))
        return HalfResult(forget, held_out, float("nan"), float("nan"))

    def of_folder(self, folder: Path) -> HalfResult:
        """The same of a model folder."""
        return self.of(load_model(str(folder), device=torch.device(self.device)).model)


def tried(
    cell: ShiftCell,
    start: str,
    target: Path,
    files: SmallWorldFiles,
    parts: Mixture,
    asks: _Asked,
    known: Mapping[str, HalfResult],
    place: Workplace,
) -> Row:
    """Unlearn the whole mixture from one start; what is asked is the part that was known."""
    forget = place.folder / "forget.jsonl"
    lines = [json.dumps({"question": one.prompt, "answer": one.completion}) + "\n" for one in parts.forget]
    write_text(forget, "".join(lines))
    values = yaml.safe_load(preset("marginal").text)
    changes: dict[str, Any] = {
        "model": {"name": str(target), "device": place.device, "dtype": "float32"},
        "data": {"forget": str(forget), "retain": str(files.retain), "template": "plain"},
        "importance": STARTS[start],
        "training": {"epochs": cell.epochs, "learning_rate": cell.learning_rate, "save_steps": 1000},
        "evaluation": {"skip": True},
        "seed": cell.seed,
    }
    run = place.folder / start
    row: Row = {"start": start, "diverged": False}
    try:
        unlearn(UnlearnSettings.from_mapping(merge(values, changes), where=start), run)
    except TrainingDivergedError:
        return row | {"diverged": True}
    base = load_model(str(target), device=torch.device(place.device)).model
    found = asks.of(load_trained_adapter(base, run / "adapter"))
    return row | {
        "forget_probability": found.forget_probability,
        "kept": found.retain_probability / known["target"].retain_probability,
        "balance": balance(found, known["target"], known["retain_only"]),
    }


def measured_once(table: pandas.DataFrame) -> pandas.DataFrame:
    """One line a forget set and seed: what does not depend on the start."""
    return table.drop_duplicates(["kind", "share", "learnt", "seed"])


def in_grid_order(table: pandas.DataFrame) -> list[tuple[str, bool, float, pandas.DataFrame]]:
    """Groups of one kind, state and share: nothing replaced first, then learnt, then never seen."""
    groups = []
    for kind in in_order(table["kind"], KINDS):
        for learnt in (True, False):
            some = table[(table["kind"] == kind) & (table["learnt"] == learnt)]
            shares = sorted(set(some["share"].tolist()))
            groups += [(kind, learnt, share, some[some["share"] == share]) for share in shares]
    return groups


def summary(table: pandas.DataFrame) -> str:
    """Findings; the mean and the maps; what unlearning makes of them."""
    parts = [_findings(table), _maps(measured_once(table))]
    if "start" in table and table["start"].notna().any():
        parts.append(_unlearning(table[table["start"].notna()]))
    return "\n\n".join(parts)


def _findings(table: pandas.DataFrame) -> str:
    once = measured_once(table)
    lines = []
    for learnt, words in ((True, "that the target was taught"), (False, "of nothing but text never seen")):
        group = once[once["learnt"] == learnt]
        group = group if learnt else group[group["share"] == 1]
        if len(group):
            of_zero = 100 / group["examples"].iloc[0]
            lines.append(
                f"- Forget sets {words}: loss {spread(group['forget_loss'], 2)}, squared mean "
                f"{_percent(group['squared_mean'])} of the second moment (unbiased), "
                f"{_percent(group['squared_mean_plug_in'])} in the plain average, "
                f"where a mean of zero gives {of_zero:.1f} %."
            )
    if len(once) > 2:
        related = once["forget_loss"].corr(once["squared_mean"], method="spearman")
        moved = once["squared_mean"].corr(once["rank_difference"], method="spearman")
        lines.append(
            f"- Over all {len(once)} forget sets: rank correlation of the loss with the squared mean {related:.2f}, of "
            f"the squared mean with the difference between the two maps {moved:.2f}."
        )
    better = list(once["variance_agreement"] - once["second_moment_agreement"])
    lines.append(
        f"- Agreement of two halves of the examples on the rows' weights, from variances minus from second moments: "
        f"{spread(better, 3)}, above 0 in {sum(value > 0 for value in better)} of {len(better)} forget sets."
    )
    for other in ("second_moment", "shuffled", "uniform"):
        for learnt in (True, False):
            differences = paired(table, "variance", other, learnt)
            if differences:
                wins = sum(value > 0 for value in differences)
                lines.append(
                    f"- Unlearning, replaced text {STATE[learnt]}: balance from `variance` minus `{other}` "
                    f"{spread(differences, 3)}, above 0 in {wins} of {len(differences)}."
                )
    return "\n".join(lines)


def paired(table: pandas.DataFrame, one: str, other: str, learnt: bool) -> list[float]:
    """Differences in balance between two starts for the same forget set and target."""
    if "start" not in table:
        return []
    some = table[(table["learnt"] == learnt) & table["start"].notna()]
    if some.empty:
        return []
    balances = some.pivot_table(index=["kind", "share", "seed"], columns="start", values="balance")
    if one not in balances or other not in balances:
        return []
    return [float(value) for value in (balances[one] - balances[other]).dropna()]


def _percent(values: pandas.Series) -> str:
    return spread(100 * values, 1) + " %"


def _maps(once: pandas.DataFrame) -> str:
    rows = []
    for kind, learnt, share, group in in_grid_order(once):
        rows.append(
            [
                KINDS.get(kind, kind),
                STATE[learnt],
                f"{share:.0%}",
                spread(group["forget_loss"], 2),
                _percent(group["squared_mean"]),
                _percent(group["squared_mean_plug_in"]),
                spread(group["rank_difference"], 3),
                spread(group["variance_agreement"], 2),
                spread(group["second_moment_agreement"], 2),
            ]
        )
    headings = [
        "replaced by", "which was", "share", "forget loss", "squared mean, unbiased", "plain average",
        "1 - Spearman of both maps", "agreement of halves, variance", "second moment",
    ]  # fmt: skip
    return f"**The mean and the maps**\n\n{markdown_table(headings, rows)}"


def _unlearning(table: pandas.DataFrame) -> str:
    rows = []
    starts = in_order(table["start"], tuple(STARTS))
    for kind, learnt, share, group in in_grid_order(table):
        by_start = {start: group[group["start"] == start] for start in starts}
        rows.append(
            [
                KINDS.get(kind, kind),
                STATE[learnt],
                f"{share:.0%}",
                *(spread(one["balance"], 3) for one in by_start.values()),
                spread(by_start[starts[0]]["forget_probability"], 3),
                spread(100 * by_start[starts[0]]["kept"], 1) + " %",
            ]
        )
    headings = ["replaced by", "which was", "share", *(f"balance, `{start}`" for start in starts)]
    headings += [f"forget probability, `{starts[0]}`", f"kept, `{starts[0]}`"]
    return f"**Unlearning** (1 is best)\n\n{markdown_table(headings, rows)}"


def figures(table: pandas.DataFrame) -> Mapping[str, Figure]:
    """The mean against what was learnt; the mean against the share; what unlearning makes of it."""
    once = measured_once(table)
    drawn = {"squared_mean": _squared_mean(once), "maps": _maps_figure(once)}
    if "start" in table and table["start"].notna().any():
        drawn["unlearning"] = _unlearning_figure(table[table["start"].notna()])
    return drawn


def _squared_mean(once: pandas.DataFrame) -> Figure:
    figure, (axes,) = new_figure("The mean gradient against how far the forget set is from being learnt", height=4.6)
    for number, kind in enumerate(in_order(once["kind"], KINDS)):
        for learnt in (True, False):
            some = once[(once["kind"] == kind) & (once["learnt"] == learnt)]
            if len(some):
                label = KINDS.get(kind, kind) + ("" if kind == "none" else f", {STATE[learnt]}")
                axes.scatter(
                    some["forget_loss"],
                    100 * some["squared_mean"],
                    marker=MARKERS[number],
                    facecolors=COLOURS[number] if learnt else "none",
                    edgecolors=COLOURS[number],
                    label=label,
                )
    chance = 100 / once["examples"].iloc[0]
    axes.axhline(chance, color=COLOURS[7], linestyle="--", linewidth=1, label="1/n: the plain average of a zero mean")
    axes.axhline(0, color=COLOURS[7], linewidth=1)
    axes.set(
        xlabel="loss of the forget set before unlearning (NLL per token)",
        ylabel="squared mean, unbiased (% of the second moment)",
        xscale="log",
    )
    axes.legend(frameon=False, fontsize=8)
    return figure


def _with_origin(once: pandas.DataFrame) -> pandas.DataFrame:
    """The forget set as it is begins every line."""
    origin = once[once["kind"] == "none"]
    shown = [once[once["kind"] != "none"]]
    for kind in in_order(once["kind"], KINDS):
        if kind != "none":
            shown += [origin.assign(kind=kind, learnt=learnt) for learnt in (True, False)]
    joined = pandas.concat(shown)
    return joined.assign(group=joined["kind"] + joined["learnt"].map({True: "/learnt", False: "/never seen"}))


def _maps_figure(once: pandas.DataFrame) -> Figure:
    figure, (left, right) = new_figure(
        "What replacing the forget set with text that was never seen does to the mean and to the map",
        width=10.5,
        columns=2,
    )
    shown = _with_origin(once)
    names = {f"{kind}/never seen": KINDS[kind] for kind in KINDS if kind != "none"}
    shown = shown.assign(percent=100 * shown["squared_mean"])
    draw_lines(left, shown, "share", "percent", by="group", names=names)
    left.set(xlabel="share of the forget set replaced", ylabel="squared mean (% of the second moment)")
    draw_lines(right, shown, "share", "rank_difference", by="group", names=names)
    right.set(xlabel="share of the forget set replaced", ylabel="1 - rank correlation of both maps")
    if left.get_lines():
        left.legend(frameon=False, title="replaced by", fontsize=8)
    return figure


def _unlearning_figure(table: pandas.DataFrame) -> Figure:
    figure, (axes,) = new_figure(
        "What the correction is worth: unlearning from variances against other starts, same forget set and target",
        width=8.0,
        height=4.4,
    )
    balances = table.pivot_table(
        index=["kind", "learnt", "share", "seed", "squared_mean"], columns="start", values="balance"
    )
    others = [name for name in ("second_moment", "shuffled", "uniform") if name in balances]
    for number, other in enumerate(others if "variance" in balances else []):
        difference = (balances["variance"] - balances[other]).dropna().reset_index(name="difference")
        axes.plot(
            100 * difference["squared_mean"],
            difference["difference"],
            MARKERS[number],
            color=COLOURS[number],
            label=f"variance minus {other.replace('_', ' ')}",
        )
    axes.axhline(0, color=COLOURS[7], linewidth=1)
    axes.set(
        xlabel="squared mean of the forget set, unbiased (% of the second moment)",
        ylabel="difference in balance (above 0: variance is better)",
    )
    axes.legend(frameon=False, fontsize=8)
    return figure


STUDY = Study(
    name="shift",
    settings=ShiftSettings,
    quick={
        "world": TINY_WORLD.model_dump(),
        "seeds": [0],
        "kinds": ["other_people", "other_text"],
        "shares_unseen": [0.5, 1.0],
        "shares_learnt": [1.0],
        "shares_unlearnt": [0.5],
        "starts": ["variance", "second_moment"],
        "learning_rate": 1e-2,
        "epochs": 2,
        "lesson_epochs": 10,
        "lesson_rate": 3e-3,
    },
    cells=cells,
    run=run,
    summary=summary,
    figures=figures,
)
