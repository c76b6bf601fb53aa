"""What a table says, in Markdown."""

import math
from pathlib import Path

import pandas
import pytest

from unlora.errors import InputError
from unlora_research.tables import in_order, markdown_table, paired_differences, read_table, spread
from unlora_research.unlearning import best_rates


def test_spread_counts_what_is_missing():
    assert spread([1.0, 2.0, 6.0], 1) == "3.0 [1.0, 6.0]"
    assert spread([2.0], 2) == "2.00"
    assert spread([1.0, math.nan, 2.0], 1) == "1.5 [1.0, 2.0] (2 of 3)"
    assert spread([math.nan], 1) == "none"


def test_markdown():
    assert markdown_table(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"
    assert in_order(["x", "b", "a", "b"], ["a", "b", "c"]) == ["a", "b", "x"]


def test_differences_are_paired_by_place_and_nothing_without_a_pair():
    rows = [
        ("vila", 0, 0.9),
        ("vila", 1, 0.8),
        ("vila", 2, 0.7),
        ("plain", 0, 0.6),
        ("plain", 1, 0.7),
        ("fila", 3, 0.5),
    ]
    table = pandas.DataFrame(rows, columns=["start", "seed", "balance"])
    pairs = {"by": "start", "within": "seed"}
    assert paired_differences(table, "balance", "vila", "plain", **pairs) == pytest.approx([0.3, 0.1])
    assert paired_differences(table, "balance", "vila", "fila", **pairs) == []
    assert paired_differences(table, "balance", "vila", "uniform", **pairs) == []


def test_what_is_no_table_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="is no table of a study"):
        read_table(tmp_path / "table.csv")


def test_the_rate_is_chosen_by_its_mean_over_seeds_and_a_diverged_run_counts_as_nought():
    columns = ["start", "learning_rate", "seed", "validation_balance"]
    rows = [
        ("plain", 1.0, 0, 0.7), ("plain", 1.0, 1, 0.7), ("plain", 2.0, 0, 0.9), ("plain", 2.0, 1, math.nan),
        ("vila", 1.0, 0, 0.2), ("vila", 1.0, 1, 0.9), ("vila", 2.0, 0, 0.6), ("vila", 2.0, 1, 0.6),
    ]  # fmt: skip
    chosen = best_rates(pandas.DataFrame(rows, columns=columns), ["start"])
    assert chosen.groupby("start")["learning_rate"].unique().map(list).to_dict() == {"plain": [1.0], "vila": [2.0]}
    assert len(chosen) == 4
