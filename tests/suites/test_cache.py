"""Scores are found again by content, and by nothing less."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file
from torch import ones

from tests.suites.asking import score_model
from tests.suites.tofu.made_scores import made_score
from tests.tiny import build_tiny_model, build_tiny_tokenizer
from unlora.data.records import Example, ExampleSet
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError
from unlora.models.fingerprint import adapter_sha256
from unlora.suites import questioner as suite
from unlora.suites.cache import ScoreCache
from unlora.suites.scores import ModelScores
from unlora.suites.tofu.protocols import PROTOCOLS
from unlora.suites.tofu.scores import TOFU_FILE, ExampleScore

TOKENISER = ExampleTokeniser(build_tiny_tokenizer(), template="plain", max_length=64)
MODEL = build_tiny_model("llama", vocab_size=len(TOKENISER.tokenizer))
BORN = Example(
    "question_answer", "Where was Mira born?", "In Bergen.", "a.jsonl, line 1", perturbed_answers=("In Oslo.",)
)
SETS = {
    "forget": ExampleSet("forget", (BORN,)),
    "retain": ExampleSet("retain", (Example("question_answer", "Who is Ada?", "A painter.", "b.jsonl, line 1"),)),
}
SCORES = (made_score(0, right=0.5, wrong=(0.25,)), made_score(1, rouge_l_recall=math.nan))


def cache_in(
    folder: Path, fingerprint: str = "f", adapter: str | None = None, ends: tuple[int, ...] = (0,)
) -> ScoreCache:
    return ScoreCache(folder, TOFU_FILE, fingerprint=fingerprint, adapter=adapter, writes={"ends": ends})


def test_saved_scores_come_back_and_nan_stays_unscored(tmp_path: Path) -> None:
    cache_in(tmp_path).save("key", "forget", SCORES)
    assert repr(cache_in(tmp_path).load("key")) == repr(SCORES)  # NaN differs from itself, its text does not
    assert cache_in(tmp_path).load("other") is None


def test_everything_that_decides_scores_is_in_the_key(tmp_path: Path) -> None:
    keys = [
        cache_in(tmp_path).key("asked", {"batch_size": 4}),
        cache_in(tmp_path).key("asked otherwise", {"batch_size": 4}),
        cache_in(tmp_path).key("asked", {"batch_size": 8}),
        cache_in(tmp_path, fingerprint="g").key("asked", {"batch_size": 4}),
        cache_in(tmp_path, adapter="a").key("asked", {"batch_size": 4}),
        cache_in(tmp_path, ends=(0, 7)).key("asked", {"batch_size": 4}),
    ]
    assert len(set(keys)) == len(keys)
    assert keys[0] == cache_in(tmp_path / "elsewhere").key("asked", {"batch_size": 4})


def test_a_corrupt_or_foreign_file_is_ignored_and_rewritten(tmp_path: Path) -> None:
    cache = cache_in(tmp_path)
    cache.save("key", "forget", SCORES)
    file = tmp_path / "key.jsonl"
    whole = file.read_text()
    cut = whole[: len(whole) // 2]
    fewer = "".join(whole.splitlines(keepends=True)[:-1])
    assert "0.25" in whole
    other_number, text = whole.replace("0.25", "0.75"), whole.replace("0.25", '"0.25"')
    for content in ("", "no scores", cut, fewer, whole.replace('"key": "key"', '"key": "other"'), other_number, text):
        file.write_text(content)
        assert cache.load("key") is None
    cache.save("key", "forget", SCORES)
    assert file.read_text() == whole
    assert [path.name for path in tmp_path.iterdir()] == ["key.jsonl"]


def test_a_folder_that_cannot_be_written_does_no_harm(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = cache_in(tmp_path / "file")
    cache.save("key", "forget", SCORES)
    assert cache.load("key") is None


def test_adapter_s_hash_is_of_its_tensors_and_of_what_scales_them(tmp_path: Path) -> None:
    def write(alpha: int, base: str, value: float) -> str:
        (tmp_path / "adapter_config.json").write_text(
            json.dumps({"lora_alpha": alpha, "base_model_name_or_path": base})
        )
        save_file({"a": value * ones(2)}, tmp_path / "adapter_model.safetensors")
        return adapter_sha256(tmp_path)

    first = write(8, "here", 1.0)
    assert write(8, "there", 1.0) == first
    assert len({first, write(16, "here", 1.0), write(8, "here", 2.0)}) == 3
    (tmp_path / "adapter_model.safetensors").unlink()
    with pytest.raises(InputError, match="not a complete adapter"):
        adapter_sha256(tmp_path)


class Asked:
    """Counts what a model is asked, and fails on request."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.batches: list[int] = []
        self.fail_at = 0
        original = suite.score_completions

        def count(model: Any, sequences: Any, **options: Any) -> Any:
            self.batches.append(len(sequences))
            if len(self.batches) == self.fail_at:
                raise KeyboardInterrupt
            return original(model, sequences, **options)

        monkeypatch.setattr(suite, "score_completions", count)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    return Asked(monkeypatch)


def ask(folder: Path, sets: dict[str, ExampleSet] = SETS, **options: Any) -> ModelScores:
    return score_model(
        MODEL, TOKENISER, sets, **{"max_new_tokens": 3, "batch_size": 4, "cache": cache_in(folder)} | options
    )


def test_a_model_that_was_asked_is_not_asked_again(tmp_path: Path, asked: Asked) -> None:
    first = ask(tmp_path)
    assert asked.batches == [2, 1]
    again = ask(tmp_path)
    assert asked.batches == [2, 1]
    assert repr(again) == repr(first) == repr(ask(tmp_path, cache=None))


def test_an_interrupted_evaluation_loses_one_set(tmp_path: Path, asked: Asked) -> None:
    asked.fail_at = 2
    with pytest.raises(KeyboardInterrupt):
        ask(tmp_path)
    resumed = ask(tmp_path)
    assert asked.batches == [2, 1, 1]  # forget, retain (interrupted), retain
    assert repr(resumed) == repr(ask(tmp_path, cache=None))


@pytest.mark.parametrize(
    "changed",
    [
        {"batch_size": 2},
        {"max_new_tokens": 2},
        {"protocol": PROTOCOLS["open_unlearning"]},
        {"sets": {"forget": ExampleSet("forget", (dataclasses.replace(BORN, perturbed_answers=("In Rome.",)),))}},
        {"sets": {"forget": ExampleSet("forget", (dataclasses.replace(BORN, paraphrased_answer="Bergen."),))}},
        {"sets": {"forget": ExampleSet("forget", (BORN, BORN))}},
    ],
    ids=["batch size", "answer length", "protocol", "wrong answer", "paraphrase", "count"],
)
def test_what_is_asked_in_another_way_is_asked(tmp_path: Path, asked: Asked, changed: dict[str, Any]) -> None:
    only_forget = {"forget": SETS["forget"]}
    ask(tmp_path, only_forget)
    ask(tmp_path, **{"sets": only_forget} | changed)
    assert len(asked.batches) == 2


def test_the_same_questions_are_known_again_from_another_file_and_set_and_protocol_name(
    tmp_path: Path, asked: Asked
) -> None:
    ask(tmp_path, {"forget": SETS["forget"]})
    moved = ExampleSet("elsewhere", (dataclasses.replace(BORN, source="c.jsonl, line 9"),))
    named = dataclasses.replace(PROTOCOLS["unlora"], max_examples=1, overridden=("max_examples",))
    scores = ask(tmp_path, {"retain": moved}, protocol=named)
    assert asked.batches == [2]
    assert [one.source for one in scores.sets["retain"]] == ["c.jsonl, line 9"]
    assert scores.protocol["overridden"] == ["max_examples"]
    assert scores.protocol["sets"]["retain"]["name"] == "elsewhere"
    assert isinstance(scores.sets["retain"][0], ExampleScore)
