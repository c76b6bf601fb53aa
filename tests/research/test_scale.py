"""Slopes of curves that are known, and methods that are really timed on the tokens they say."""

import math
from pathlib import Path
from typing import Any

import pandas
import pytest

from unlora_research.engine import Workplace
from unlora_research.scale.figures import figures
from unlora_research.scale.names import EXTRACTION, OTHERS
from unlora_research.scale.study import ScaleCell, run
from unlora_research.scale.subjects import Point, subject
from unlora_research.scale.summary import slope, summary


def test_slopes_of_known_curves():
    assert slope([1, 2, 4, 8], [3, 6, 12, 24]) == pytest.approx(1)
    assert slope([1, 2, 4], [5, 20, 80]) == pytest.approx(2)
    assert slope([1, 2, 4], [7, 7, 7]) == pytest.approx(0)
    assert math.isnan(slope([3], [1]))


def test_a_point_is_what_it_says():
    point = Point(examples=16, length=12, width=64, depth=3)
    one, again = subject(point, 0, "cpu"), subject(point, 0, "cpu")
    assert one.model.config.num_hidden_layers == 3
    embeddings = [found.model.get_parameter("model.embed_tokens.weight") for found in (one, again)]
    assert embeddings[0].shape[1] == 64
    assert embeddings[0].equal(embeddings[1])
    assert {len(example.input_ids) for example in (*one.forget, *one.retain)} == {12}
    assert sum(batch["labels"].shape[0] for part in one.batches() for batch in part) == 32


def test_every_method_is_timed_and_maps_have_the_sizes_of_their_arrays(tmp_path: Path):
    point = Point(examples=16, length=8, width=64, depth=1)
    cell = ScaleCell(axis="depth", value=1, point=point, rounds=1, seed=0)
    rows: dict[Any, dict[str, Any]] = {row["method"]: row for row in run(cell, Workplace(tmp_path, "cpu"))}
    assert set(rows) == set(EXTRACTION) | set(OTHERS)
    assert rows["pass plain"]["ratio"] == 1
    model = subject(point, 0, "cpu").model
    shapes = [p.shape for name, p in model.named_parameters() if "proj" in name]
    weights = sum(d_out * d_in for d_out, d_in in shapes)
    edges = sum(d_out + d_in for d_out, d_in in shapes)
    header = 20_000
    # Two sets, 4 bytes a number; what else is in a file are its evidence, a few numbers a layer, and its header.
    assert 0 <= rows["fila"]["disk_bytes"] - 8 * weights < header + 16 * edges
    assert 0 <= rows["vila"]["disk_bytes"] - 8 * 8 * edges < header + 16 * edges


def test_summary_and_figure_of_a_made_table():
    rows = [
        {"axis": "width", "value": width, "cell": f"c{width}", "method": method, "ratio": 1.0,
         "seconds": factor * width**power, "disk_bytes": factor * width if method in EXTRACTION else None}
        for width in (128, 256)
        for method, factor, power in (
            ("vila", 1, 1), ("marginal", 2, 1), ("fila", 10, 2), ("fila_published", 40, 2), ("pass plain", 1, 1),
        )
    ]  # fmt: skip
    text = summary(pandas.DataFrame(rows))
    assert "FILA as released takes 7680.0 [5120.0, 10240.0] times the seconds of `vila`" in text
    assert "10240.0 at the largest width) and 40 [40, 40] times" in text
    assert "| FILA, one pass | 2.00 |" in text
    assert [axes.get_xlabel() for axes in figures(pandas.DataFrame(rows))["scale"].axes] == ["width"]


def test_a_slope_of_nought_has_no_sign():
    rows = [
        {"axis": "rank", "value": rank, "cell": f"c{rank}", "method": "marginal", "ratio": 1.0, "seconds": 1.0,
         "disk_bytes": 1.0 - 1e-6 * rank}
        for rank in (4, 8, 16)
    ]  # fmt: skip
    assert "| marginal | 0.00 |" in summary(pandas.DataFrame(rows)).partition("on disk, bytes")[2]
