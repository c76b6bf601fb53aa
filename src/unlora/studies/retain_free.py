"""What is lost when importance is measured without the retain set?

Importance divides what the forget set needs by what the retain set needs. Here the divisor comes from elsewhere: from
text that the target model writes itself, from general knowledge, from a model that never learnt the forget set, or from
nowhere. Training keeps its retain term; in a second comparison it too has nothing but the model's own text.
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import pandas
import torch
from matplotlib.figure import Figure
from pydantic import Field
from transformers import PreTrainedModel

from unlora.config import Config
from unlora.data.collate import batches_by_length, collate
from unlora.data.common_facts import common_facts
from unlora.data.records import Example, ExampleSet
from unlora.data.tokenise import ExampleTokeniser, TokenisedExample
from unlora.data.user_jsonl import to_jsonl
from unlora.importance import ContrastMap, ImportanceMap, estimate_importance, module_ratio
from unlora.importance.accumulate import Batch, accumulate
from unlora.importance.contrast_map import SKETCH_COLUMNS, ContrastMetadata, ModuleContrast
from unlora.importance.diagnostics import rank_correlation
from unlora.importance.hooks import measuring
from unlora.importance.importance_map import ModuleImportance, SetCounts
from unlora.importance.sketch import GradientSketch
from unlora.low_rank import contrast_directions
from unlora.models.generate import generate_samples
from unlora.models.load import fingerprint, load_model
from unlora.models.target_modules import find_target_modules
from unlora.recipes.settings import CONTRAST
from unlora.studies.engine import Row, Study, Workplace
from unlora.studies.figures import COLOURS, draw_ranges, new_figure
from unlora.studies.small_world import TINY_WORLD, SmallWorld, SmallWorldFiles, build_small_world, world_people
from unlora.studies.tables import in_order, markdown_table, spread
from unlora.studies.unlearning import best_rates, small_world_run, unlearn_at_rates

SOURCES: dict[str, str] = {
    "retain": "retain set",
    "own_samples": "own samples",
    "generic": "general knowledge",
    "base": "forget set, model that never saw it",
    "none": "nothing",
}
"""What the forget set's statistics are divided by."""
METHODS = ("vila", "marginal", "contrast", "contrast_inputs")
CONTROLS = ("plain", "uniform")
"""Starts that measure nothing."""
TRAINING: dict[str, str] = {"retain": "retain set", "own_samples": "own samples"}
"""What the retain term of training reads."""
RANK, SCALING, DAMPING = 8, 2.0, 1.0
BARE_PROMPT = "Question: \nAnswer:"
"""The plain template without a question."""
SAMPLE_TOKENS = 48


class RetainFreeSettings(Config):
    """The grid."""

    world: SmallWorld = SmallWorld()
    """Of seed 0; other seeds change its seed."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of world, samples and training."""
    methods: tuple[str, ...] = METHODS
    """Presets that measure."""
    sources: tuple[str, ...] = tuple(SOURCES)
    """What each divides by, while training has the retain set."""
    without: tuple[str, ...] = ("plain", "uniform", "marginal", "contrast", "contrast_inputs")
    """Starts that are also tried without any retain set: importance and training from the model's own samples."""
    examples: int = Field(default=64, ge=2)
    """Of every set that is divided by."""
    learning_rates: tuple[float, ...] = (4e-3, 8e-3)
    """Searched for every start and source."""
    rates_without: tuple[float, ...] = (2e-3, 4e-3, 8e-3, 1.6e-2)
    """Searched where training has no retain set either: its retain term is another one there."""
    epochs: int = Field(default=5, ge=1)
    """Of unlearning."""


class RetainFreeCell(Config):
    """One start in one world, over all learning rates."""

    start: str
    source: str | None
    """None for controls."""
    training: str
    seed: int
    world: SmallWorld
    examples: int
    learning_rates: tuple[float, ...]
    epochs: int


def cells(settings: RetainFreeSettings) -> list[RetainFreeCell]:
    """World by world: controls, every method and source, then what has no retain set at all."""
    grid = [(start, None, "retain") for start in CONTROLS]
    grid += [(method, source, "retain") for method in settings.methods for source in settings.sources]
    grid += [(start, None if start in CONTROLS else "own_samples", "own_samples") for start in settings.without]
    return [
        RetainFreeCell(
            start=start,
            source=source,
            training=training,
            seed=seed,
            world=settings.world.model_copy(update={"seed": seed}),
            examples=settings.examples,
            learning_rates=settings.learning_rates if training == "retain" else settings.rates_without,
            epochs=settings.epochs,
        )
        for seed in settings.seeds
        for start, source, training in grid
    ]


def run(cell: RetainFreeCell, place: Workplace) -> list[Row]:
    """Measure, compare with the map that the retain set gives, and unlearn; a row a learning rate."""
    files = build_small_world(cell.world)
    target = _Measured.load(files.target, place.device)
    own, dropped = own_samples(target, cell.world, cell.examples, cell.seed)
    changes: dict[str, Any] = {"adapter": {"rank": RANK, "alpha": SCALING * RANK}}
    found: Row = {"samples_dropped": dropped}
    if cell.source is not None:
        measured, agreement = _map_of(cell, files, target, own, place)
        found["agreement"] = agreement
        file = place.folder / "measured.safetensors"
        measured.save(file)
        changes["importance"] = {"file": str(file)}
    if cell.training == "own_samples":
        samples = place.folder / "own_samples.jsonl"
        to_jsonl(ExampleSet("own samples", tuple(own)), samples)
        changes["data"] = {"retain": str(samples)}
    base = small_world_run(files, place.device, epochs=cell.epochs)
    rows = unlearn_at_rates(base, cell.start, changes, cell.learning_rates, cell.seed, place)
    return [{**found, **row} for row in rows]


class _Measured(NamedTuple):
    """A model that gradients are taken of."""

    model: PreTrainedModel
    tokeniser: ExampleTokeniser

    @classmethod
    def load(cls, folder: Path, device: str) -> "_Measured":
        loaded = load_model(str(folder), dtype=torch.float32, device=torch.device(device))
        return cls(loaded.model, ExampleTokeniser(loaded.tokenizer, template="plain", max_length=128))


class GradientSet(NamedTuple):
    """Examples, and the model whose gradients on them are meant."""

    model: PreTrainedModel
    examples: Sequence[TokenisedExample]
    pad: int

    def batches(self) -> list[Batch]:
        """Of eight, as a run measures."""
        rows = batches_by_length(self.examples, 8)
        return [collate([self.examples[row] for row in some], self.pad) for some in rows]


def own_samples(target: _Measured, world: SmallWorld, count: int, seed: int) -> tuple[list[Example], int]:
    """Answers that the model writes after a prompt without a question, drawn from its own distribution.

    A user knows whom the forget set is about: samples that name one of these people are dropped.

    Returns:
        The first `count` samples that are left, and how many were dropped before them.
    """
    names = {str(example.person) for example in world_people(world).forget}
    prompt = target.tokeniser.prompt_ids(Example("prompt_completion", BARE_PROMPT, " ", "bare prompt"))
    (texts,) = generate_samples(
        target.model,
        [prompt],
        tokenizer=target.tokeniser.tokenizer,
        pad_token_id=target.tokeniser.pad_token_id,
        max_new_tokens=SAMPLE_TOKENS,
        samples=3 * count,
        seed=seed,
        batch_size=3 * count,
    )
    kept: list[Example] = []
    dropped = 0
    for number, text in enumerate(texts):
        if len(kept) == count:
            break
        if any(name in text for name in names):
            dropped += 1
        elif text.strip():
            kept.append(Example("prompt_completion", BARE_PROMPT, text, f"own sample {number}"))
    return kept, dropped


def _map_of(
    cell: RetainFreeCell, files: SmallWorldFiles, target: _Measured, own: Sequence[Example], place: Workplace
) -> tuple[ImportanceMap | ContrastMap, float]:
    """The map that starts the run, and its agreement with the retain set's."""
    people = world_people(cell.world)
    generator = random.Random(cell.seed)

    def gradient_set(measured: _Measured, examples: Sequence[Example]) -> GradientSet:
        some = generator.sample(list(examples), min(cell.examples, len(examples)))
        return GradientSet(measured.model, measured.tokeniser.encode_set(some), measured.tokeniser.pad_token_id)

    forget = GradientSet(target.model, target.tokeniser.encode_set(people.forget), target.tokeniser.pad_token_id)
    retain = gradient_set(target, people.retain)
    match cell.source:
        case "retain":
            divisor = retain
        case "own_samples":
            divisor = gradient_set(target, own)
        case "generic":
            divisor = gradient_set(target, common_facts().examples)
        case "base":
            divisor = gradient_set(_Measured.load(files.retain_only, place.device), people.forget)
        case _:
            divisor = None
    if cell.start in CONTRAST:
        only = cell.start == "contrast_inputs"
        directions, reference = (contrast_map(forget, one, cell.seed, inputs_only=only) for one in (divisor, retain))
        return directions, overlap(directions, reference)
    found, reference = (importance_map(cell.start, forget, one, cell.seed) for one in (divisor, retain))
    return found, agreement(found, reference)


def importance_map(method: str, forget: GradientSet, divisor: GradientSet | None, seed: int) -> ImportanceMap:
    """A map whose two sets may be of two models; it is the target's, and for its use."""
    maps = [
        estimate_importance(one.model, one.batches(), None, preset=method, rank=RANK, seed=seed)
        for one in (forget, divisor)
        if one is not None
    ]
    if divisor is None:
        return maps[0]
    modules = {
        name: ModuleImportance(one.forget, maps[1][name].forget, one.forget_evidence, maps[1][name].forget_evidence)
        for name, one in maps[0].items()
    }
    return ImportanceMap(modules, maps[0].metadata.model_copy(update={"retain": maps[1].metadata.forget}))


def contrast_map(forget: GradientSet, divisor: GradientSet | None, seed: int, *, inputs_only: bool) -> ContrastMap:
    """As `estimate_contrast`, but the two sets may be of two models."""
    sketches, counts = _sketch(forget, "forget", seed, inputs_only)
    others: Mapping[str, GradientSketch] = {}
    other_counts = None
    if divisor is not None:
        others, other_counts = _sketch(divisor, "retain", seed, inputs_only)
    modules = {}
    for name, sketch in sketches.items():
        other = others.get(name)
        pairs = [(sketch.inputs, other.inputs if other is not None else None)]
        if sketch.outputs is not None:
            pairs.append((sketch.outputs, other.outputs if other is not None else None))
        found = [contrast_directions(*pair, rank=RANK, damping=DAMPING) for pair in pairs]
        modules[name] = ModuleContrast(*(part.cpu() for one in found for part in (one.basis, one.eigenvalues)))
    targets = find_target_modules(forget.model)
    metadata = ContrastMetadata(
        rank=RANK,
        damping=DAMPING,
        sketch_columns=SKETCH_COLUMNS,
        seed=seed,
        inputs_only=inputs_only,
        model_fingerprint=fingerprint(forget.model),
        module_shapes={name: (target.d_out, target.d_in) for name, target in targets.items()},
        forget=counts,
        retain=other_counts,
    )
    return ContrastMap(modules, metadata)


def _sketch(some: GradientSet, role: str, seed: int, inputs_only: bool) -> tuple[dict[str, GradientSketch], SetCounts]:
    targets = find_target_modules(some.model)
    sketches = {
        name: GradientSketch(
            f"{name}/{role}",
            target.d_out,
            target.d_in,
            columns=SKETCH_COLUMNS,
            seed=seed,
            device=some.model.device,
            inputs_only=inputs_only,
        )
        for name, target in targets.items()
    }
    with measuring(some.model):
        counts = accumulate(some.model, targets, some.batches(), sketches, set_name=role)
    return sketches, counts


def agreement(found: ImportanceMap, reference: ImportanceMap) -> float:
    """Spearman of the row weights of two maps, in the median module."""
    return median(
        rank_correlation(module_ratio(found[name]).row_weights, module_ratio(reference[name]).row_weights)
        for name in found
    )


def overlap(found: ContrastMap, reference: ContrastMap) -> float:
    """Share of the reference's input directions that lies in the span of the other's, in the median module."""
    return median(float((one.inputs.T @ reference[name].inputs).square().sum() / RANK) for name, one in found.items())


# ---- What is said --------------------------------------------------------------------------------------------------


def summary(table: pandas.DataFrame) -> str:
    """What each source loses against the retain set, and a table for each comparison."""
    chosen = _chosen(table)
    usual, without = (chosen[chosen["training"] == training] for training in TRAINING)
    parts = [_losses(usual), _table("Importance without the retain set (training has it)", usual)]
    parts.append(_table("No retain set at all (importance and training from the model's own samples)", without))
    return "\n\n".join(part for part in parts if part)


def _chosen(table: pandas.DataFrame) -> pandas.DataFrame:
    """The best rate of each start, source and training; a control's source is named."""
    return best_rates(table.assign(source=table["source"].fillna("control")), ["start", "source", "training"])


def lost(chosen: pandas.DataFrame, start: str, source: str) -> list[float]:
    """Balance with the retain set minus balance with another source, for each seed that has both."""
    balances = chosen[chosen["start"] == start].pivot_table(index="seed", columns="source", values="test_balance")
    if source not in balances or "retain" not in balances:
        return []
    return [float(value) for value in (balances["retain"] - balances[source]).dropna()]


def _losses(usual: pandas.DataFrame) -> str:
    lines = []
    for start in in_order(usual["start"], METHODS):
        found = {source: lost(usual, start, source) for source in SOURCES if source != "retain"}
        told = [f"{SOURCES[source]} {spread(values, 3)}" for source, values in found.items() if values]
        if told:
            lines.append(f"- `{start}`: balance lost against the true retain set: {'; '.join(told)}.")
    return "\n".join(lines)


def _table(title: str, chosen: pandas.DataFrame) -> str:
    if chosen.empty:
        return ""
    rows = []
    for start in in_order(chosen["start"], [*CONTROLS, *METHODS]):
        of_start = chosen[chosen["start"] == start]
        for source in in_order(of_start["source"], SOURCES):
            group = of_start[of_start["source"] == source]
            agrees = spread(group["agreement"], 2) if source in SOURCES else ""
            rows.append(
                [
                    f"`{start}`",
                    SOURCES.get(source, "no data"),
                    agrees,
                    f"{group['learning_rate'].iloc[0]:g}",
                    spread(group["test_forget_probability"], 3),
                    spread(100 * group["test_kept"], 1) + " %",
                    spread(group["test_forget_quality_log10"], 2),
                    spread(group["test_balance"], 3),
                ]
            )
    headings = [
        "start", "divided by", "agreement with the retain set's map", "learning rate", "forget probability", "kept",
        "forget quality, log10 p", "balance",
    ]  # fmt: skip
    return f"**{title}**\n\n" + markdown_table(headings, rows)


def figures(table: pandas.DataFrame) -> Mapping[str, Figure]:
    """Balance by source, a panel a method; and with and without a retain set in training."""
    chosen = _chosen(table)
    usual = chosen[chosen["training"] == "retain"]
    methods = in_order(usual[~usual["start"].isin(CONTROLS)]["start"], METHODS)
    drawn: dict[str, Figure] = {}
    if methods:
        drawn["sources"] = _sources_figure(usual, methods)
    if len(chosen[chosen["training"] == "own_samples"]):
        drawn["without"] = _without_figure(chosen)
    return drawn


def _sources_figure(usual: pandas.DataFrame, methods: Sequence[str]) -> Figure:
    figure, panels = new_figure(
        "What the forget set's statistics are divided by (bar: smallest to largest seed; lines: starts without data)",
        width=2.4 * len(methods) + 2.4,
        height=3.0,
        columns=len(methods),
        share_y=True,
    )
    for axes, method in zip(panels, methods, strict=True):
        of_method = usual[usual["start"] == method]
        groups = {name: of_method[of_method["source"] == source]["test_balance"] for source, name in SOURCES.items()}
        draw_ranges(axes, groups, colours={SOURCES["retain"]: COLOURS[2]})
        for control, line in zip(CONTROLS, (":", "--"), strict=True):
            balances = usual[usual["start"] == control]["test_balance"]
            if len(balances):
                axes.axvline(balances.mean(), color=COLOURS[1], linestyle=line, label=control)
        axes.set(title=method, xlabel="balance (1 is best)", xlim=_around(usual["test_balance"]))
        axes.tick_params(labelleft=axes is panels[0])
    if panels[-1].get_legend_handles_labels()[1]:
        figure.legend(*panels[-1].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def _around(values: Iterable[float]) -> tuple[float, float]:
    """The range of all panels, with a margin."""
    found = list(values)
    margin = 0.05 * (max(found) - min(found)) + 0.005
    return min(found) - margin, max(found) + margin


def _without_figure(chosen: pandas.DataFrame) -> Figure:
    figure, (axes,) = new_figure(
        "With the retain set (blue) and with the model's own samples in its place everywhere (orange)", height=3.0
    )
    starts = in_order(chosen[chosen["training"] == "own_samples"]["start"], [*CONTROLS, *METHODS])
    for training, source, colour in (("retain", "retain", COLOURS[0]), ("own_samples", "own_samples", COLOURS[1])):
        rows = chosen[(chosen["training"] == training) & chosen["source"].isin([source, "control"])]
        groups = {start: rows[rows["start"] == start]["test_balance"] for start in starts}
        draw_ranges(axes, groups, colours=dict.fromkeys(starts, colour))
    axes.set(xlabel="balance of forgetting and keeping (1 is best)")
    return figure


STUDY = Study(
    name="retain_free",
    settings=RetainFreeSettings,
    quick={
        "world": TINY_WORLD.model_dump(),
        "seeds": [0],
        "methods": ["marginal", "contrast_inputs"],
        "sources": ["retain", "base"],
        "without": ["contrast_inputs"],
        "examples": 8,
        "learning_rates": [8e-3],
        "rates_without": [8e-3],
        "epochs": 1,
    },
    cells=cells,
    run=run,
    summary=summary,
    figures=figures,
)
