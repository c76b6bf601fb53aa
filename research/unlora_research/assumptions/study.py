"""The study: its cells, what they run, and how their rows are read."""

from unlora_research.assumptions.coverage import coverage_rows
from unlora_research.assumptions.figures import figures
from unlora_research.assumptions.grid import AssumptionsCell, AssumptionsSettings, cells
from unlora_research.assumptions.questions import theorem_rows
from unlora_research.assumptions.summary import summary
from unlora_research.engine import Row, Study, Workplace
from unlora_research.small_world import TINY_WORLD


def run(cell: AssumptionsCell, place: Workplace) -> list[Row]:
    """Errors of the theorem, or a row a learning rate."""
    return theorem_rows(cell, place) if cell.part == "theorem" else coverage_rows(cell, place)


STUDY = Study(
    name="assumptions",
    settings=AssumptionsSettings,
    quick={
        "world": TINY_WORLD.model_dump(),
        "seeds": [0],
        "distributions": ["gaussian", "student_t3"],
        "ranks": [1, 8],
        "sigmas": [0.4],
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
