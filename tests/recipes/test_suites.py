"""Several suites in one evaluation, and one from outside: what is written, found again, and refused."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.cli.commands import unlora
from tests.muse_files import write_muse
from tests.suites.wmdp.questions import write_questions
from tests.taught import Taught
from unlora.errors import InputError
from unlora.models.wrapping import CausalModel
from unlora.recipes.cache import cache_entries, chosen_entries
from unlora.recipes.evaluate import evaluate_checkpoint
from unlora.recipes.unlearn import unlearn
from unlora.results import Measurement, mean_measurement
from unlora.run.settings import EvaluateSettings
from unlora.suites import ask
from unlora.suites.scores import ModelScores, ScoreFile
from unlora.suites.suite import Asked, Progress, Suite, SuiteReader
from unlora.suites.table import SUITES, SuiteRow


@dataclass(frozen=True)
class Spelling:
    """One word, question and score in one: how many tokens it takes."""

    source: str
    word: str
    token_count: float = 0.0

    @property
    def identity(self) -> tuple[str]:
        return (self.word,)

    @property
    def content(self) -> list[str]:
        return [self.word]


class SpellingBee(Suite):
    """What somebody else's suite takes: this class and a row."""

    name: ClassVar[str] = "bee"
    score_file: ClassVar[ScoreFile[Any]] = ScoreFile("spellings", 1, "set", Spelling)

    words: str = "Bergen,Graz"
    """What is spelt."""

    def load(self) -> list[str]:
        return self.words.split(",")[: self.max_examples]

    def hashes(self, loaded: list[str]) -> dict[str, str]:
        return {"words": " ".join(loaded)}

    def prepare(self, loaded: list[str], reader: SuiteReader) -> Asked:
        return Asked({"words": [Spelling("the list", word) for word in loaded]}, {}, {}, reader.tokenizer)

    def ask(
        self, model: CausalModel, asked: Asked, name: str, questions: Sequence[Spelling], progress: Progress | None
    ) -> list[Spelling]:
        return [Spelling(one.source, one.word, float(len(asked.means(one.word)["input_ids"]))) for one in questions]

    def measure(self, scores: ModelScores[Any], retain_only: ModelScores[Any] | None) -> dict[str, Measurement]:
        counts = [one.token_count for one in scores.sets["words"]]
        return {"tokens": mean_measurement(counts, higher_is_better=False)}


@pytest.fixture
def bee(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row from outside, for one test."""
    row = SuiteRow(f"{__name__}:SpellingBee", r"bee(:(?P<words>.+))?", ("bee:WORDS",))
    monkeypatch.setitem(SUITES, "bee", row)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of its own."""
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.usefixtures("bee", "cache")
def test_a_suite_from_outside_is_one_class_and_one_row(taught: Taught, tmp_path: Path) -> None:
    result = unlora(
        "evaluate", "--suite", "bee:Lagos", "--model", taught.target, "--set", "max_examples=1",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    record = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert record["suite"] == "bee"
    assert record["models"]["target"]["metrics"]["tokens"]["value"] >= 1
    assert json.loads((tmp_path / "out" / "record.json").read_text())["data"] == {"words": "Lagos"}
    refused = unlora("evaluate", "--suite", "be", "--model", taught.target, "--output", tmp_path / "no")
    assert "rwku:all (with @FOLDER for local files), held_out, bee:WORDS or module:Class" in " ".join(
        refused.stderr.split()
    )


@pytest.mark.usefixtures("bee", "cache")
def test_a_run_measures_every_suite_that_it_names(taught: Taught, tmp_path: Path) -> None:
    muse, file = write_muse(tmp_path / "muse"), write_questions(tmp_path / "questions.jsonl")
    suites = ["tofu", {"name": f"muse:news@{muse}", "batch_size": 3}, {"name": f"wmdp@{file}", "max_new_tokens": 4}]
    settings = taught.settings(evaluation={"suites": [*suites, "bee"], "max_examples": 2}, training={"epochs": 2})
    run = tmp_path / "run"
    record = unlearn(settings, run)
    assert record["suite"] == "tofu"
    assert "forget_probability" in record["models"]["unlearned"]["metrics"]
    assert {name: one["suite"] for name, one in record["others"].items()} == {
        "muse:news": "muse", "wmdp": "wmdp", "bee": "bee",
    }  # fmt: skip
    for one in record["others"].values():
        assert list(one["models"]) == ["target", "unlearned"]
    assert record["others"]["muse:news"]["protocol"]["batch_size"] == 3
    assert record["others"]["wmdp"]["models"]["unlearned"]["metrics"]["wmdp_accuracy"]["example_count"] == 2
    files = {path.relative_to(run / "scores").as_posix() for path in (run / "scores").rglob("*.jsonl")}
    folders = ("", "muse-news/", "wmdp/", "bee/")
    assert files == {f"{folder}{role}.jsonl" for folder in folders for role in ("target", "unlearned")}
    assert {"forget_sha256", "muse:news: sha256", "bee: words"} <= json.loads((run / "record.json").read_text())[
        "evaluation_data"
    ].keys()

    # A file of a further suite that is missing is made again; nothing of the rest is.
    (run / "scores" / "bee" / "unlearned.jsonl").unlink()
    kept = (run / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns
    assert unlearn(settings, run) == record
    assert (run / "adapter" / "adapter_model.safetensors").stat().st_mtime_ns == kept
    # The scores of another adapter are not those of the next.
    shutil.rmtree(run / "adapter")
    (run / "scores" / "muse-news" / "target.jsonl").touch()
    assert unlearn(settings, run)["others"].keys() == record["others"].keys()


def test_muse_and_wmdp_are_found_again_by_content(
    taught: Taught, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    muse, file = write_muse(tmp_path / "muse"), write_questions(tmp_path / "questions.jsonl")
    asked: list[str] = []
    original = ask.within
    monkeypatch.setattr(ask, "within", lambda name, progress: asked.append(name) or original(name, progress))

    def evaluate(output: str, **changes: Any) -> dict[str, Any]:
        suites = [f"muse:news@{muse}", {"name": f"wmdp@{file}", "max_new_tokens": 4} | changes]
        values = {"model": {"name": str(taught.target)}, "evaluation": {"suites": suites}}
        return evaluate_checkpoint(EvaluateSettings.from_mapping(values), tmp_path / output)

    first = evaluate("first")
    parts = ["verbatim", "forget_questions", "retain_questions", "forget_texts", "holdout_texts"]
    assert asked == [*parts, "wmdp"]
    assert evaluate("second") == first
    shutil.move(file, tmp_path / "moved.jsonl")
    file = tmp_path / "moved.jsonl"
    assert evaluate("moved") == first
    assert asked == [*parts, "wmdp"]
    evaluate("other", max_new_tokens=5)
    assert asked == [*parts, "wmdp", "wmdp"]
    # What a folder was asked is removed with the rest of it.
    assert len(cache_entries()) == 7
    assert len(chosen_entries([], run=tmp_path / "first", older_than_days=None)) == 7


@pytest.mark.parametrize(
    ("suites", "message"),
    [
        (["muse:new"], "evaluation.suites: 'muse:new' is not one of tofu, muse:news"),
        (["tofu", "tofu"], "evaluation.suites: names tofu twice"),
        ([{"batch_size": 3}], "evaluation.suites: names no suite"),
        ([], "evaluation.suites"),
        ("muse:news", r"evaluation.suites: must be a list, such as \[muse:news\]"),
    ],
)
def test_wrong_names_are_refused_with_their_key(taught: Taught, suites: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        taught.settings(evaluation={"suites": suites})


@pytest.mark.parametrize(
    ("suite", "message"),
    [
        (
            {"name": "muse:news", "batch": 3},
            r"^suite 'muse:news': unknown key 'evaluation.suites.1.batch'. Did you mean 'batch_size'\?",
        ),
        ({"name": "wmdp", "max_new_tokens": 0}, r"^suite 'wmdp': evaluation.suites.1.max_new_tokens: must be"),
    ],
)
def test_wrong_settings_of_a_suite_are_refused_before_any_work(
    taught: Taught, tmp_path: Path, suite: Any, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        unlearn(taught.settings(evaluation={"suites": ["tofu", suite]}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_scores_of_a_reference_that_was_asked_something_else_are_refused_before_any_work(
    taught: Taught, tmp_path: Path, cache: Path
) -> None:
    muse = write_muse(tmp_path / "muse")

    def settings(**changes: Any) -> EvaluateSettings:
        suites = [{"name": f"muse:news@{muse}"} | changes]
        return EvaluateSettings.from_mapping({"model": {"name": str(taught.target)}, "evaluation": {"suites": suites}})

    evaluate_checkpoint(settings(), tmp_path / "first")
    saved = str(tmp_path / "first" / "scores" / "target.jsonl")
    with pytest.raises(InputError, match=r"different verbatim \(1 and 2 items\)"):
        evaluate_checkpoint(settings(retain_only=saved, max_examples=1), tmp_path / "second")
    assert not (tmp_path / "second").exists()


def test_sets_of_the_run_are_needed_where_tofu_is_named(taught: Taught) -> None:
    for suites in (["tofu"], ["muse:news", "tofu"]):
        with pytest.raises(InputError, match="key 'data' is missing"):
            EvaluateSettings.from_mapping({"model": {"name": "m"}, "evaluation": {"suites": suites}})
