"""OpenUnlearning's MUSE files: what it would have written, worked out by hand, and read back."""

import json
from pathlib import Path

import pytest

from tests.suites.muse.test_metrics import answers, made, texts
from unlora.errors import InputError
from unlora.suites.muse.metrics import measure_muse
from unlora.suites.muse.open_unlearning import muse_logs, read_muse_log, write_open_unlearning_muse
from unlora.suites.muse.suite import Muse


def test_membership_is_in_its_orientation_and_leakage_against_the_retain_only_model() -> None:
    """AUC 0.75 here, 0.25 of the model that never saw the texts: (0.25 - 0.75) / (1 - 0.25)."""
    retain_only = made(texts(-3.0, -5.0), texts(-2.0, -4.0))
    logs = muse_logs(made(), retain_only)
    assert logs["mia_min_k"]["agg_value"] == logs["mia_min_k"]["auc"] == 0.75
    assert logs["mia_min_k"]["forget"]["value_by_index"] == {"0": {"score": 1.0}, "1": {"score": 3.0}}
    assert logs["mia_min_k"]["holdout"]["agg_value"] == 3.0
    assert logs["privleak"]["agg_value"] == pytest.approx(-0.5 / 0.75 * 100)
    assert logs["privleak"]["agg_value"] == pytest.approx(
        measure_muse(made(), retain_only=retain_only)["privacy_leakage"].value
    )
    assert "privleak" not in muse_logs(made(), None)


def test_rouge_is_stemmed_as_its_own() -> None:
    (score,) = answers(0.0)
    stemmed = type(score)(score.source, "q", "two novels", "two novel", 0.5, -1.0, False)
    logs = muse_logs(made(verbatim=(stemmed,)), None)
    assert logs["forget_verbmem_ROUGE"]["agg_value"] == 1.0
    assert logs["forget_verbmem_ROUGE"]["value_by_index"]["0"]["generation"] == "two novel"


def test_what_is_written_is_read_back_as_a_retain_only_model(tmp_path: Path) -> None:
    scores, retain_only = made(), made(texts(-3.0, -5.0), texts(-2.0, -4.0))
    write_open_unlearning_muse(tmp_path, retain_only, retain_only)
    read = read_muse_log(tmp_path / "MUSE_EVAL.json")
    expected = measure_muse(scores, retain_only=retain_only)["privacy_leakage"]
    assert measure_muse(scores, retain_only=read)["privacy_leakage"] == expected
    Muse(corpus="news").check_comparable(scores, read)
    summary = json.loads((tmp_path / "MUSE_SUMMARY.json").read_text())
    assert summary["privleak"] == pytest.approx(0)
    assert "mia_min_k" not in summary


def test_log_of_other_texts_is_refused(tmp_path: Path) -> None:
    write_open_unlearning_muse(tmp_path, made(texts(-1.0)), None)
    with pytest.raises(InputError, match="forget_texts has 2 items, and 1 in the log"):
        Muse(corpus="news").check_comparable(made(), read_muse_log(tmp_path / "MUSE_EVAL.json"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"forget_truth_ratio": {}}, "holds no mia_min_k"),
        ({"mia_min_k": {"forget": {"agg_value": 1.0}}}, "no value_by_index"),
        ({"mia_min_k": {"forget": {"value_by_index": {"0": {"score": "high"}}}}}, "must hold a number, found 'high'"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: dict, said: str) -> None:
    (tmp_path / "MUSE_EVAL.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=said):
        read_muse_log(tmp_path / "MUSE_EVAL.json")
