"""docs/models.md is what docs/models.json says, which the command of the map wrote, and it holds what is promised."""

import json
from collections import Counter
from pathlib import Path

from unlora_research.model_map.page import page
from unlora_research.model_map.verdict import read_map

DOCS = Path(__file__).resolve().parents[2] / "docs"
LEAST_THAT_WORK = 0.95
"""Of the classes that transformers builds."""


def test_page_is_what_the_map_says():
    record = json.loads((DOCS / "models.json").read_text(encoding="utf-8"))
    assert page(record, read_map(record)) == (DOCS / "models.md").read_text(encoding="utf-8")


def test_nearly_all_classes_work_and_none_is_wrong_without_a_word():
    record = json.loads((DOCS / "models.json").read_text(encoding="utf-8"))
    verdicts = read_map(record)
    assert [one.kind for one in verdicts if one.wrong or one.outcome in ("wrong", "error")] == []
    counts = Counter(one.outcome for one in verdicts)
    assert record["known"] == len(verdicts)
    assert counts["works"] + counts["partly"] >= LEAST_THAT_WORK * (len(verdicts) - counts["not built"])
    told = [one for one in verdicts if one.outcome in ("works", "partly")]
    assert all(one.plan_difference is not None and one.score_difference is not None for one in told)
    assert not any(one.outcome == "refused" and not one.line for one in verdicts)
