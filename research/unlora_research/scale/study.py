"""The grid of the study, and what a cell does."""

import statistics

from pydantic import Field, field_validator

from unlora.config import Config
from unlora_research.engine import Row, Study, Workplace
from unlora_research.scale.costs import bytes_on_disk, seconds_in_turn
from unlora_research.scale.figures import figures
from unlora_research.scale.names import AXES
from unlora_research.scale.subjects import HEAD, Point, subject
from unlora_research.scale.summary import summary
from unlora_research.scale.works import extraction_works, other_works


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
    seed: int = Field(default=0, ge=0)
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


def run(cell: ScaleCell, place: Workplace) -> list[Row]:
    """Time every method in turn; a row a method."""
    one = subject(cell.point, cell.seed, place.device)
    works = extraction_works(one, cell.point.rank, cell.seed)
    measured = {name: work() for name, work in works.items()}  # Warms up, and gives what the others start from.
    others = other_works(one, cell.point.rank, measured)
    for work in others.values():
        work()
    seconds = seconds_in_turn(works | others, cell.rounds)
    rows: list[Row] = []
    for name, taken in seconds.items():
        ratios = [mine / plain for mine, plain in zip(taken, seconds["pass plain"], strict=True)]
        rows.append(
            {
                "method": name,
                "seconds": statistics.median(taken),
                "ratio": statistics.median(ratios),
                "ratio_low": min(ratios),
                "ratio_high": max(ratios),
                "disk_bytes": bytes_on_disk(measured[name]) if name in measured else None,
            }
        )
    return rows


STUDY = Study(
    name="scale",
    settings=ScaleSettings,
    quick={
        "base": {"examples": 16, "length": 8, "width": 64, "depth": 1},
        "examples": [],
        "length": [],
        "rank": [4, 8],
        "width": [],
        "depth": [],
        "rounds": 1,
    },
    cells=cells,
    run=run,
    summary=summary,
    figures=figures,
)
