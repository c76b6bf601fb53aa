"""Which start helps: every start with the same search over learning rates, under each loss, in several worlds.

The rows of the paper's Table 4 (FILA, variance alone, LoRA factors alone, both), marginals and contrast, and the
controls: uniform weights, the same weights in random order, and plain LoRA. The learning rate of each is chosen by its
mean over seeds on every other question; the other half is reported.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import pandas
from matplotlib.figure import Figure
from pydantic import Field, NonNegativeInt, model_validator

from unlora.config import Config
from unlora_research.engine import Row, Study, Workplace
from unlora_research.fields import Rates
from unlora_research.figures import COLOURS, draw_ranges, new_figure
from unlora_research.recipe import recipe
from unlora_research.small_world import TINY_WORLD, SmallWorld, build_small_world
from unlora_research.tables import markdown_table, paired_differences, spread
from unlora_research.unlearning import best_rates, small_world_run, tofu_mini_run, unlearn_at_rates

STARTS = (
    "plain", "uniform", "shuffled", "fila", "variance_full", "second_moment_lora", "vila", "marginal", "contrast",
    "contrast_inputs",
)  # fmt: skip
CONTROLS = ("plain", "uniform", "shuffled")
QUESTIONS = (
    ("variance against second moment, full weights", "variance_full", "fila"),
    ("variance against second moment, LoRA factors", "vila", "second_moment_lora"),
    ("LoRA factors against full weights", "vila", "variance_full"),
    ("importance against the same rows in random order", "marginal", "shuffled"),
    ("importance against uniform weights", "marginal", "uniform"),
    ("importance against plain LoRA", "marginal", "plain"),
    ("VILA against plain LoRA", "vila", "plain"),
    ("contrast against plain LoRA", "contrast", "plain"),
    ("contrast of inputs alone against plain LoRA", "contrast_inputs", "plain"),
)
"""What is asked, of which two starts."""


class AblationSettings(Config):
    """The grid."""

    scale: Literal["small", "tofu-mini"] = "small"
    """A small world for each seed (seconds a run), or SmolLM2 (minutes a run)."""
    world: SmallWorld = SmallWorld()
    """scale small; seeds change its seed."""
    data: str | None = None
    """scale tofu-mini: folder with target/, retain_only/, forget_perturbed.jsonl, retain.jsonl and held_out.jsonl."""
    seeds: tuple[NonNegativeInt, ...] = Field(default=(0, 1, 2), min_length=1)
    """Of world and training."""
    losses: tuple[str, ...] = ("ihl", "npo", "gd")
    """Forget terms."""
    starts: tuple[str, ...] = STARTS
    """Starts; any that trains an adapter (docs/results/starts.md has more of them)."""
    learning_rates: Rates = (1e-3, 2e-3, 4e-3, 8e-3)
    """Searched for every start and loss."""
    retain_weight: float = Field(default=1.6, ge=0)
    """Of every run."""
    epochs: int = Field(default=10, ge=1)
    """Of unlearning."""

    @model_validator(mode="after")
    def _what_there_is(self) -> "AblationSettings":
        if self.scale == "tofu-mini" and self.data is None:
            raise ValueError("scale 'tofu-mini' needs data, a folder (docs/studies/ablation.md says what is in it)")
        for start in self.starts:
            recipe(start)
        return self


class AblationCell(Config):
    """One start under one loss, over all learning rates."""

    loss: str
    start: str
    seed: int
    scale: str
    world: SmallWorld | None
    data: str | None
    learning_rates: tuple[float, ...]
    retain_weight: float
    epochs: int


def cells(settings: AblationSettings) -> list[AblationCell]:
    """All combinations."""
    small = settings.scale == "small"
    return [
        AblationCell(
            loss=loss,
            start=start,
            seed=seed,
            scale=settings.scale,
            world=settings.world.model_copy(update={"seed": seed}) if small else None,
            data=settings.data,
            learning_rates=settings.learning_rates,
            retain_weight=settings.retain_weight,
            epochs=settings.epochs,
        )
        for loss in settings.losses
        for start in settings.starts
        for seed in settings.seeds
    ]


def run(cell: AblationCell, place: Workplace) -> list[Row]:
    """Search the learning rates; a row each."""
    if cell.world is not None:
        base = small_world_run(build_small_world(cell.world), place.device, epochs=cell.epochs)
    else:
        base = tofu_mini_run(Path(cell.data or ""), place.device, epochs=cell.epochs)
    objective: dict[str, Any] = {"forget": cell.loss, "retain_weight": cell.retain_weight}
    return unlearn_at_rates(base, cell.start, {"objective": objective}, cell.learning_rates, cell.seed, place)


def summary(table: pandas.DataFrame) -> str:
    """The questions, then a table a loss, best balance first."""
    chosen = best_rates(table, ["loss", "start"])
    parts = [_questions(chosen)]
    for loss in dict.fromkeys(chosen["loss"]):
        parts.append(f"**{loss.upper()}**\n\n{_table_of_loss(chosen[chosen['loss'] == loss], table)}")
    return "\n\n".join(part for part in parts if part)


def _questions(chosen: pandas.DataFrame) -> str:
    rows = []
    for question, one, other in QUESTIONS:
        for loss in dict.fromkeys(chosen["loss"]):
            differences = paired(chosen[chosen["loss"] == loss], one, other)
            if differences:
                wins = sum(value > 0 for value in differences)
                rows.append([question, loss.upper(), spread(differences, 3), f"{wins} of {len(differences)}"])
    return (
        markdown_table(["question", "loss", "difference in balance, same world", "seeds in favour"], rows)
        if rows
        else ""
    )


def paired(chosen: pandas.DataFrame, one: str, other: str) -> list[float]:
    """Differences in balance between two starts in the same world, for each seed that both have."""
    return paired_differences(chosen, "test_balance", one, other, by="start", within="seed")


def _table_of_loss(chosen: pandas.DataFrame, table: pandas.DataFrame) -> str:
    known = table.drop_duplicates(["seed"])
    rows = []
    for name in ("target", "retain_only"):
        kept = 100 * known[f"{name}_retain_probability"] / known["target_retain_probability"]
        rows.append([name.replace("_", "-"), "", *_measures(known, name, kept), ""])
    order = chosen.groupby("start")["test_balance"].mean().sort_values(ascending=False)
    for start in order.index:
        group = chosen[chosen["start"] == start]
        rate = f"{group['learning_rate'].iloc[0]:g}"
        rows.append(
            [f"`{start}`", rate, *_measures(group, "test", 100 * group["test_kept"]), spread(group["test_balance"], 3)]
        )
    headings = [
        "start", "learning rate", "forget probability", "kept", "forget quality, log10 p", "extraction strength",
        "balance",
    ]  # fmt: skip
    return markdown_table(headings, rows)


def _measures(group: pandas.DataFrame, prefix: str, kept: Iterable[float]) -> list[str]:
    return [
        spread(group[f"{prefix}_forget_probability"], 3),
        spread(kept, 1) + " %",
        spread(group[f"{prefix}_forget_quality_log10"], 2),
        spread(group[f"{prefix}_extraction_strength"], 3),
    ]


def figures(table: pandas.DataFrame) -> Mapping[str, Figure]:
    """Balance of every start, a panel a loss."""
    chosen = best_rates(table, ["loss", "start"])
    losses = list(dict.fromkeys(chosen["loss"]))
    first = chosen[chosen["loss"] == losses[0]].groupby("start")["test_balance"].mean()
    order = list(first.sort_values(ascending=False).index)
    figure, panels = new_figure(
        "Every start at its own best learning rate\n(controls in orange; bar: smallest to largest seed)",
        width=3.2 * len(losses) + 1.5,
        height=1.7 + 0.26 * len(order),
        columns=len(losses),
        share_y=True,
    )
    colours: dict[str, str] = {name: COLOURS[1] for name in CONTROLS}
    for axes, loss in zip(panels, losses, strict=True):
        of_loss = chosen[chosen["loss"] == loss]
        draw_ranges(
            axes, {start: of_loss[of_loss["start"] == start]["test_balance"] for start in order}, colours=colours
        )
        axes.set(title=loss.upper(), xlabel="balance (1 is best)")
        axes.tick_params(labelleft=axes is panels[0])
    return {"ablation": figure}


STUDY = Study(
    name="ablation",
    settings=AblationSettings,
    quick={
        "world": TINY_WORLD.model_dump(),
        "seeds": [0],
        "losses": ["ihl"],
        "starts": ["plain", "contrast_inputs"],
        "learning_rates": [2e-3, 1e-2],
        "epochs": 1,
    },
    cells=cells,
    run=run,
    summary=summary,
    figures=figures,
)
