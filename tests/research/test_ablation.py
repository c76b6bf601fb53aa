"""The questions of the ablation, answered from a table whose answers are known."""

from typing import Any

import pandas
import pytest

from unlora_research.ablation import AblationSettings, cells, figures, paired, summary


def row(start: str, seed: int, rate: float, balance: float, *, loss: str = "ihl") -> dict[str, Any]:
    measures = {"forget_probability": 0.1, "retain_probability": 0.9, "forget_quality_log10": -1.0,
                "extraction_strength": 0.2}  # fmt: skip
    known = {f"{name}_{key}": value for name in ("target", "retain_only", "test") for key, value in measures.items()}
    return known | {
        "loss": loss, "start": start, "seed": seed, "learning_rate": rate, "validation_balance": balance,
        "test_balance": balance - 0.1, "test_kept": 0.95,
    }  # fmt: skip


TABLE = pandas.DataFrame(
    [row("plain", seed, rate, 0.8 - 0.1 * (rate != 2) + 0.01 * seed) for seed in (0, 1) for rate in (1, 2)]
    + [row("vila", seed, rate, 0.9 - 0.2 * (rate != 1)) for seed in (0, 1) for rate in (1, 2)]
)


def test_pairs_are_differences_in_the_same_world():
    chosen = TABLE[((TABLE["start"] == "plain") & (TABLE["learning_rate"] == 2)) | (
        (TABLE["start"] == "vila") & (TABLE["learning_rate"] == 1))]  # fmt: skip
    assert paired(chosen, "vila", "plain") == pytest.approx([0.1, 0.09])
    assert paired(chosen, "vila", "fila") == []


def test_summary_reports_the_chosen_rates_on_the_test_half_and_the_questions():
    text = summary(TABLE)
    lines = [line for line in text.splitlines() if line.startswith("| `")]
    assert [line.split(" | ")[0] for line in lines] == ["| `vila`", "| `plain`"]  # best first
    assert lines[0].endswith("| 0.800 [0.800, 0.800] |")
    assert lines[1].startswith("| `plain` | 2 | ")
    assert lines[1].endswith("| 0.705 [0.700, 0.710] |")
    assert "| VILA against plain LoRA | IHL | 0.095 [0.090, 0.100] | 2 of 2 |" in text
    assert "contrast against" not in text  # not in this table


def test_every_seed_has_a_world_of_its_own_and_the_hashes_differ():
    grid = cells(AblationSettings(losses=("ihl",), starts=("plain", "vila")))
    assert [(cell.start, cell.seed, cell.world.seed if cell.world else None) for cell in grid] == [
        (start, seed, seed) for start in ("plain", "vila") for seed in (0, 1, 2)
    ]
    assert len({cell.sha256() for cell in grid}) == 6


def test_figure_has_a_panel_a_loss():
    two = pandas.concat([TABLE, TABLE.assign(loss="npo")])
    figure = figures(two)["ablation"]
    assert [axes.get_title() for axes in figure.axes] == ["IHL", "NPO"]
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["plain", "vila"]
