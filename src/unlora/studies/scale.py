"""How the cost of extraction, initialisation and unlearning grows, and how far FILA is behind.

The paper says that VILA extracts 40 times faster than FILA and stores 100 times less. Cost depends on shapes, not on
what was learnt, so random weights and random tokens suffice. One axis at a time leaves the base point. In a cell all
methods have their turn in every round, with a plain LoRA forward and backward pass over the same tokens among them:
ratios are within a round. The released arithmetic is run for one of its ten passes and its seconds are counted ten
times; what the released code adds, a copy of every gradient to host memory in each step, is in docs/performance.md.
"""

import math
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import pandas
import torch
from matplotlib.figure import Figure
from peft import PeftModel
from pydantic import Field, field_validator
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from unlora.adapters import attach_anchored_adapter, attach_plain_adapter
from unlora.adapters.contrast import contrast_factors
from unlora.adapters.initialise import initial_factors
from unlora.config import Config
from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.importance import ImportanceMap, estimate_importance
from unlora.importance.contrast_map import SKETCH_COLUMNS, ContrastMap, estimate_contrast
from unlora.importance.published import estimate_published_importance
from unlora.models.quiet import quiet
from unlora.models.target_modules import find_target_modules
from unlora.studies.engine import Row, Study, Workplace
from unlora.studies.figures import draw_lines, new_figure
from unlora.studies.tables import in_order, markdown_table, spread

AXES = ("examples", "length", "rank", "width", "depth")
EXTRACTION = {
    "marginal": "marginal",
    "vila": "vila",
    "contrast_inputs": "contrast_inputs",
    "fila": "FILA, one pass",
    "vila_published": "VILA as released, ten passes",
    "fila_published": "FILA as released, ten passes",
}
OTHERS = {
    "initialise vila": "initialise from vila",
    "initialise marginal": "initialise from marginal",
    "initialise contrast_inputs": "initialise from contrast_inputs",
    "initialise fila": "initialise from FILA",
    "pass plain": "training pass, plain LoRA",
    "pass anchored": "training pass, anchored (vila, marginal, fila)",
    "pass frozen A": "training pass, A frozen (contrast_inputs)",
}
RELEASED_PASSES = 10
BATCH_SIZE, VOCABULARY, HEAD = 8, 1024, 32
SCALING = 2.0


class Point(Config):
    """Sizes of one measurement."""

    examples: int = Field(default=16, ge=2 * BATCH_SIZE)
    """In each set."""
    length: int = Field(default=32, ge=4)
    """Tokens of an example; the second half is scored."""
    rank: int = Field(default=8, ge=1)
    width: int = Field(default=256, ge=HEAD)
    """Of the model, a multiple of 32."""
    depth: int = Field(default=4, ge=1)
    """Blocks."""


class ScaleSettings(Config):
    """The axes."""

    base: Point = Point()
    examples: tuple[int, ...] = (16, 32, 64, 128)
    length: tuple[int, ...] = (16, 32, 64, 128)
    rank: tuple[int, ...] = (4, 8, 16, 32)
    width: tuple[int, ...] = (128, 256, 512, 1024)
    depth: tuple[int, ...] = (2, 4, 8, 16)
    rounds: int = Field(default=3, ge=1)
    """After one that warms up."""
    seed: int = 0
    """Of weights and tokens."""

    @field_validator("width")
    @classmethod
    def _whole_heads(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        if any(width % HEAD for width in value):
            raise ValueError(f"must be multiples of {HEAD}")
        return value


class ScaleCell(Config):
    """All methods at one point."""

    axis: str
    value: int
    point: Point
    rounds: int
    seed: int


def cells(settings: ScaleSettings) -> list[ScaleCell]:
    """One axis at a time."""
    return [
        ScaleCell(
            axis=axis,
            value=value,
            point=Point.from_mapping(settings.base.model_dump() | {axis: value}),
            rounds=settings.rounds,
            seed=settings.seed,
        )
        for axis in AXES
        for value in getattr(settings, axis)
    ]


class Subject(NamedTuple):
    """A random model and two sets of random tokens."""

    model: PreTrainedModel
    forget: list[TokenisedExample]
    retain: list[TokenisedExample]

    def batches(self) -> tuple[list[dict[str, torch.Tensor]], list[dict[str, torch.Tensor]]]:
        """Both sets on the model's device."""
        forget, retain = (
            [
                {key: value.to(self.model.device) for key, value in collate(part[at : at + BATCH_SIZE], 0).items()}
                for at in range(0, len(part), BATCH_SIZE)
            ]
            for part in (self.forget, self.retain)
        )
        return forget, retain


def subject(point: Point, seed: int, device: str) -> Subject:
    """Draw weights and tokens."""
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=point.width,
        intermediate_size=8 * point.width // 3 // 32 * 32,
        num_hidden_layers=point.depth,
        num_attention_heads=point.width // HEAD,
        max_position_embeddings=2 * point.length,
        bos_token_id=1,
        eos_token_id=1,
        pad_token_id=0,
    )
    draw = numpy.random.default_rng(seed)
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(seed)
        model = LlamaForCausalLM(config)
    model.requires_grad_(False).eval()
    tokens = draw.integers(2, VOCABULARY, size=(2 * point.examples, point.length))
    examples = [
        TokenisedExample(tuple(map(int, row)), point.length // 2, truncated=False, source=f"random {number}")
        for number, row in enumerate(tokens)
    ]
    return Subject(model, examples[: point.examples], examples[point.examples :])


def run(cell: ScaleCell, place: Workplace) -> list[Row]:
    """Time every method in turn; a row a method."""
    one = subject(cell.point, cell.seed, place.device)
    works = extraction_works(one, cell.point.rank, cell.seed)
    measured = {name: work() for name, work in works.items()}  # warms up, and gives what the others start from
    works |= other_works(one, cell.point.rank, measured)
    for name in OTHERS:
        works[name]()
    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(cell.rounds):
        for name, work in works.items():
            times = RELEASED_PASSES if name.endswith("published") else 1
            start = time.perf_counter()
            work()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            seconds[name].append(times * (time.perf_counter() - start))
    plain = seconds["pass plain"]
    rows: list[Row] = []
    for name, taken in seconds.items():
        ratios = [mine / base for mine, base in zip(taken, plain, strict=True)]
        row: Row = {"method": name, "seconds": statistics.median(taken), "ratio": statistics.median(ratios)}
        row |= {"ratio_low": min(ratios), "ratio_high": max(ratios)}
        kept = measured.get(name)
        rows.append(row | {"disk_bytes": bytes_on_disk(kept) if kept is not None else None})
    return rows


def extraction_works(one: Subject, rank: int, seed: int) -> dict[str, Callable[[], Any]]:
    """Every way to measure."""
    forget, retain = one.batches()
    columns = max(SKETCH_COLUMNS, rank)

    def ours(preset: str) -> Callable[[], ImportanceMap]:
        return lambda: estimate_importance(one.model, forget, retain, preset=preset, rank=rank, seed=seed)

    def released(space: Any) -> Callable[[], ImportanceMap]:
        return lambda: estimate_published_importance(
            one.model, one.forget, one.retain, space=space, pad_token_id=0, rank=rank, passes=1, seed=seed
        )

    def contrast() -> ContrastMap:
        return estimate_contrast(
            one.model, forget, retain, rank=rank, inputs_only=True, sketch_columns=columns, seed=seed
        )

    return {
        "marginal": ours("marginal"),
        "vila": ours("vila"),
        "contrast_inputs": contrast,
        "fila": ours("fila"),
        "vila_published": released("lora_factors"),
        "fila_published": released("full_weights"),
    }


def other_works(one: Subject, rank: int, measured: Mapping[str, Any]) -> dict[str, Callable[[], Any]]:
    """Starting factors from what was measured, and a training pass over both sets with each kind of adapter."""
    targets = find_target_modules(one.model)
    batches = [batch for part in one.batches() for batch in part]

    def rows_of(name: str) -> Callable[[], Any]:
        return lambda: initial_factors(targets, measured[name], rank=rank, scaling=SCALING)

    def contrast() -> Any:
        return contrast_factors(targets, measured["contrast_inputs"], rank=rank, scaling=SCALING, inputs_only=True)

    anchored, inputs = rows_of("marginal")(), contrast()

    def trained(attach: Callable[[], PeftModel]) -> Callable[[], None]:
        def one_pass() -> None:
            with adapted(attach) as model:
                for batch in batches:
                    model(**batch, use_cache=False).loss.backward()

        return one_pass

    def start(factors: Any, *, freeze_a: bool = False) -> Callable[[], PeftModel]:
        return lambda: attach_anchored_adapter(
            one.model, rank=rank, alpha=SCALING * rank, factors=factors, freeze_a=freeze_a
        )

    return {
        "initialise vila": rows_of("vila"),
        "initialise marginal": rows_of("marginal"),
        "initialise contrast_inputs": contrast,
        "initialise fila": rows_of("fila"),
        "pass plain": trained(lambda: attach_plain_adapter(one.model, targets, rank=rank, alpha=SCALING * rank)),
        "pass anchored": trained(start(anchored)),
        "pass frozen A": trained(start(inputs, freeze_a=True)),
    }


@contextmanager
def adapted(attach: Callable[[], PeftModel]) -> Iterator[PeftModel]:
    """The model with an adapter, which is taken off again."""
    with quiet():
        model = attach()
    model.train()
    try:
        yield model
    finally:
        model.unload().requires_grad_(False).eval()


def bytes_on_disk(measured: ImportanceMap | ContrastMap) -> int:
    """Size of the file it is saved to."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "map.safetensors"
        measured.save(file)
        return file.stat().st_size


def slope(values: Sequence[int | float], measured: Sequence[int | float]) -> float:
    """Of the straight line through the logarithms: 1 is proportional, 0 does not grow; NaN for a single point."""
    if len(values) < 2:
        return math.nan
    return float(numpy.polyfit(numpy.log(numpy.asarray(values, float)), numpy.log(numpy.asarray(measured)), 1)[0])


def summary(table: pandas.DataFrame) -> str:
    """FILA against the rest over all points, then slopes along every axis."""
    wide = table.pivot_table(index="cell", columns="method", values="seconds", sort=False)
    disk = table.pivot_table(index="cell", columns="method", values="disk_bytes", sort=False)
    lines = []
    for other, name in (("fila_published", "FILA as released"), ("fila", "FILA in one pass")):
        for ours in ("vila", "marginal"):
            if other in wide and ours in wide:
                times, sizes = wide[other] / wide[ours], disk[other] / disk[ours]
                widest = table[table["axis"] == "width"].sort_values("value")["cell"].iloc[-1:]
                lines.append(
                    f"- {name} takes {spread(times, 1)} times the seconds of `{ours}` (mean over all points, smallest "
                    f"and largest; {spread(times.loc[widest], 1)} at the largest width) and {spread(sizes, 0)} times "
                    f"its bytes on disk ({spread(sizes.loc[widest], 0)} at the largest width)."
                )
    return (
        "\n".join(lines)
        + "\n\n"
        + _slopes(table, "extraction and training, seconds", "seconds")
        + ("\n\n" + _slopes(table.dropna(subset="disk_bytes"), "on disk, bytes", "disk_bytes"))
    )


def _slopes(table: pandas.DataFrame, what: str, column: str) -> str:
    axes = in_order(table["axis"], AXES)
    names = EXTRACTION | OTHERS
    rows = []
    for method in in_order(table["method"], list(names)):
        own = table[table["method"] == method]
        cells_of_row = [names[method]]
        for axis in axes:
            along = own[own["axis"] == axis].sort_values("value")
            found = slope(list(along["value"]), list(along[column]))
            cells_of_row.append("" if math.isnan(found) else f"{found:.2f}")
        if column == "seconds":
            cells_of_row.append(spread(own["ratio"], 2))
        rows.append(cells_of_row)
    headings = [f"{what}: slope along", *axes] + (["over a plain pass, all points"] if column == "seconds" else [])
    return markdown_table(headings, rows)


def figures(table: pandas.DataFrame) -> Mapping[str, Figure]:
    """Extraction over the plain pass, a panel an axis."""
    axes_there = in_order(table["axis"], AXES)
    figure, panels = new_figure(
        "Seconds of extraction over one plain LoRA pass on the same tokens",
        width=3.0 * len(axes_there) + 1.0,
        height=4.0,
        columns=len(axes_there),
        share_y=True,
    )
    for axes, axis in zip(panels, axes_there, strict=True):
        draw_lines(axes, table[table["axis"] == axis], "value", "ratio", by="method", names=EXTRACTION)
        axes.set(xscale="log", yscale="log", xlabel=axis)
        values = sorted(set(table[table["axis"] == axis]["value"]))
        axes.set_xticks(values, [str(value) for value in values])
        axes.minorticks_off()
    panels[0].set_ylabel("times a plain pass")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return {"scale": figure}


STUDY = Study(
    name="scale",
    settings=ScaleSettings,
    quick={
        "base": {"examples": 16, "length": 16, "width": 64, "depth": 2},
        "examples": [16],
        "length": [16],
        "rank": [4, 8],
        "width": [64],
        "depth": [2],
        "rounds": 1,
    },
    cells=cells,
    run=run,
    summary=summary,
    figures=figures,
)
