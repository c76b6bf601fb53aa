"""MUSE on a target, an unlearned and a retain-only model: what is written, going on, and what is refused."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.muse_files import FORGET_TEXTS, HOLDOUT_TEXTS, learn_texts, write_json, write_muse
from tests.tiny import build_tiny_model, build_tiny_tokenizer
from unlora.errors import InputError
from unlora.recipes.evaluate import evaluate_checkpoint, settings_of_one
from unlora.recipes.unlearn import unlearn
from unlora.run.settings import CheckpointSettings, UnlearnSettings
from unlora.suites.ask import ask_model
from unlora.suites.muse.suite import Muse

MuseSettings = settings_of_one(Muse)


class Place(NamedTuple):
    """Where everything lies."""

    muse: Path
    target: Path
    retain_only: Path
    run: Path

    def settings(self, **values: Any) -> CheckpointSettings:
        """The target alone, unless `values` say more."""
        given = {"model": {"name": str(self.target)}, "corpus": "news", "folder": str(self.muse)} | values
        return MuseSettings.from_mapping(given)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A target that knows the forget texts, one that does not, and a run that made the first forget. Read only."""
    folder = tmp_path_factory.mktemp("place")
    muse = write_muse(folder / "muse")
    tokenizer = build_tiny_tokenizer((*FORGET_TEXTS, *HOLDOUT_TEXTS))
    model = build_tiny_model("llama", vocab_size=len(tokenizer))
    for name, steps in (("retain_only", 0), ("target", 40)):
        learn_texts(model, tokenizer, FORGET_TEXTS, steps)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    settings = UnlearnSettings.from_mapping(
        {
            "model": {"name": str(folder / "target")},
            "data": {"forget": f"muse:news/forget@{muse}", "retain": f"muse:news/retain1@{muse}"},
            "adapter": {"rank": 4, "alpha": 8.0},
            "training": {"learning_rate": 1e-2, "epochs": 16, "batch_size": 4},
            "evaluation": {"skip": True},
        }
    )
    unlearn(settings, folder / "run")
    return Place(muse, folder / "target", folder / "retain_only", folder / "run")


@pytest.fixture(scope="module")
def whole(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All three models measured, nobody interrupting."""
    folder = tmp_path_factory.mktemp("muse") / "whole"
    settings = place.settings(adapter=str(place.run / "adapter"), retain_only=str(place.retain_only))
    record = evaluate_checkpoint(settings, folder)
    assert record == json.loads((folder / "evaluation.json").read_text())
    return folder


def metric(record: dict[str, Any], role: str, name: str) -> float:
    return record["models"][role]["metrics"][name]["value"]


def test_three_models_side_by_side(whole: Path) -> None:
    """Untouched: strongly negative; unlearned: knows less and leaks less; retain-only: zero by definition."""
    record = json.loads((whole / "evaluation.json").read_text())
    assert record["suite"] == "muse"
    assert list(record["models"]) == ["target", "unlearned", "retain_only"]
    assert metric(record, "target", "privacy_leakage") == pytest.approx(-100)
    assert metric(record, "unlearned", "privacy_leakage") > -80
    assert metric(record, "retain_only", "privacy_leakage") == 0
    assert metric(record, "target", "verbatim_memorisation") > 90
    assert metric(record, "unlearned", "verbatim_memorisation") < 50
    assert sorted(path.name for path in (whole / "scores").iterdir()) == [
        "retain_only.jsonl",
        "target.jsonl",
        "unlearned.jsonl",
    ]
    run = json.loads((whole / "record.json").read_text())
    assert run["finished"] is True
    assert run["data"]["corpus"] == "news"


def test_saved_scores_stand_for_the_retain_only_model(place: Place, whole: Path, tmp_path: Path) -> None:
    settings = place.settings(retain_only=str(whole / "scores" / "retain_only.jsonl"))
    record = evaluate_checkpoint(settings, tmp_path / "out")
    assert list(record["models"]) == ["target", "retain_only"]
    expected = json.loads((whole / "evaluation.json").read_text())
    assert metric(record, "target", "privacy_leakage") == metric(expected, "target", "privacy_leakage")
    first = place.settings(retain_only=settings.retain_only, max_examples=1)
    with pytest.raises(InputError, match="different verbatim"):
        evaluate_checkpoint(first, tmp_path / "first")


def test_open_unlearning_s_log_stands_for_the_retain_only_model(place: Place, whole: Path, tmp_path: Path) -> None:
    """It names neither corpus nor texts: their numbers are compared, and nothing else."""
    log = whole / "open_unlearning" / "retain_only" / "MUSE_EVAL.json"
    record = evaluate_checkpoint(place.settings(retain_only=str(log)), tmp_path / "out")
    assert list(record["models"]) == ["target", "retain_only"]
    expected = json.loads((whole / "evaluation.json").read_text())
    assert metric(record, "target", "privacy_leakage") == pytest.approx(metric(expected, "target", "privacy_leakage"))
    with pytest.raises(InputError, match="verbatim has 1 items, and 2 in the log"):
        evaluate_checkpoint(place.settings(retain_only=str(log), max_examples=1), tmp_path / "first")
    assert not (tmp_path / "first").exists()


def test_interrupted_evaluation_goes_on_where_it_stopped(
    place: Place, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(shutil.copytree(whole, tmp_path / "out"))
    (out / "evaluation.json").unlink()
    (out / "scores" / "unlearned.jsonl").unlink()
    scored = []
    monkeypatch.setattr(
        "unlora.run.suites.ask_model", lambda *args, **options: scored.append(1) or ask_model(*args, **options)
    )
    settings = place.settings(adapter=str(place.run / "adapter"), retain_only=str(place.retain_only))
    assert evaluate_checkpoint(settings, out) == json.loads((whole / "evaluation.json").read_text())
    assert len(scored) == 1
    with pytest.raises(InputError, match="holds another run"):
        evaluate_checkpoint(place.settings(), out)


def test_other_data_under_the_same_name_is_refused(place: Place, tmp_path: Path) -> None:
    muse = write_muse(tmp_path / "muse")
    settings = place.settings(folder=str(muse), max_examples=1)
    evaluate_checkpoint(settings, tmp_path / "out")
    write_json(muse / "news" / "privleak" / "holdout.json", ["Another text altogether, and a longer one."])
    with pytest.raises(InputError, match="started with another data"):
        evaluate_checkpoint(settings, tmp_path / "out")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"corpus": "books"}, "holds neither books/ nor one of"),
        ({"folder": "nowhere"}, "nowhere: no such folder"),
        ({"adapter": "nowhere"}, "nowhere: no such folder"),
        ({"retain_only": "nowhere"}, "nowhere"),
        ({"retain_only": "nowhere.jsonl"}, r"nowhere\.jsonl: cannot be read"),
        ({"retain_only_base": "embedded", "retain_only": "target"}, "is only for an adapter"),
        ({"model": {"name": "no/such/model"}}, "no such folder"),
    ],
)
def test_what_cannot_be_measured_is_refused_and_nothing_is_written(
    place: Place, tmp_path: Path, values: dict[str, Any], message: str
) -> None:
    if values.get("retain_only") == "target":
        values = values | {"retain_only": str(place.target)}
    with pytest.raises(InputError, match=message):
        evaluate_checkpoint(place.settings(**values), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_settings_refuse_what_does_not_exist() -> None:
    with pytest.raises(InputError, match=r"corpus: .*'news' or 'books'.* Did you mean 'books'"):
        MuseSettings.from_mapping({"model": {"name": "m"}, "corpus": "book"})
    with pytest.raises(InputError, match="max_examples"):
        MuseSettings.from_mapping({"model": {"name": "m"}, "corpus": "news", "max_examples": 0})
