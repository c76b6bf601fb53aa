"""Relearning and model utility of a finished cell, against the pieces they are made of."""

import math
from pathlib import Path

import pytest

from tests.studies.test_comparison import files, setting  # noqa: F401  fixtures
from unlora.artifacts import read_json
from unlora.data.sources import load_examples
from unlora.evaluation.scores import load_scores
from unlora.metrics import model_utility
from unlora.studies import lasting
from unlora.studies.comparison import GridPoint, Row, Setting, folder_of, run_cell
from unlora.studies.lasting import relearned, utility
from unlora.studies.small_world import SmallWorldFiles

POINT = GridPoint(2e-2, 1.0)


def test_what_comes_back_and_what_is_left(
    setting: Setting,  # noqa: F811
    files: SmallWorldFiles,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    run_cell(setting, Row("plain", "plain", {}), POINT, 0, tmp_path)
    run = folder_of(tmp_path, "plain", POINT, 0) / "run"

    back = relearned(run)
    estimates = read_json(run / "audit" / "audit.json")["attacks"]["relearning"]["estimates"]
    for variant in ("few", "full"):
        gain = estimates[f"{variant}_recovery"]["value"] - estimates[f"{variant}_control"]["value"]
        assert getattr(back, variant) == pytest.approx(gain, abs=1e-6)
    assert back.full != 0

    # Any sets with wrong answers will do; three different ones show that each is asked.
    sets = {
        "retain": load_examples(str(files.held_out)),
        "real_authors": load_examples(str(files.retain)),
        "world_facts": load_examples(str(files.forget)),
    }
    found = utility(run, sets)
    for role in ("target", "unlearned"):
        metrics = read_json(run / "utility.json")["models"][role]["metrics"]
        parts = {
            f"{name}_{kind}": metrics[f"{name}_{kind}"]["value"]
            for name in sets
            for kind in ("probability", "rouge_l_recall", "truth_ratio")
        }
        assert found[role] == pytest.approx(model_utility(parts), rel=1e-6)
        asked = load_scores(run / "utility_scores" / f"{role}.jsonl").sets
        assert {name: len(examples) for name, examples in asked.items()} == {
            name: len(examples) for name, examples in sets.items()
        }
    # Forgetting cost something: "world_facts" is the forget set here.
    assert found["unlearned"] < found["target"]
    assert not math.isnan(found["target"])

    # Asked again, nothing is computed.
    monkeypatch.setattr(lasting, "load", lambda *_: pytest.fail("computed again"))
    assert utility(run, sets) == found
