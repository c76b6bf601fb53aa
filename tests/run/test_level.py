"""The level that unlearning aims at: whose it is, that the adapter ends there, and what is refused."""

import json
import math
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import torch

from tests.recipes.test_unlearn import Lines
from tests.taught import PAD, Taught, teach
from tests.tiny import build_tiny_model
from unlora.adapters.export import load_trained_adapter
from unlora.errors import InputError
from unlora.level import Level, LevelSource, Settled
from unlora.models.load import load_tokenizer
from unlora.models.score import score_completions
from unlora.recipes.unlearn import unlearn
from unlora.run import level
from unlora.run.job import Run
from unlora.run.level import level_source, with_fixed_source
from unlora.run.settings import TrainingSettings, UnlearnSettings


def forget_probability(taught: Taught, adapter: Path | None = None, model: Path | None = None) -> float:
    """Mean over the forget set, by a load of its own."""
    loaded = taught.load().model if model is None else taught._replace(target=model).load().model
    scored = loaded if adapter is None else load_trained_adapter(loaded, adapter)
    sequences = [(one.input_ids, one.prompt_length) for one in taught.tokens(taught.forget)]
    scores = score_completions(scored, sequences, pad_token_id=PAD)
    return sum(one.probability for one in scores) / len(scores)


@pytest.fixture(scope="module")
def control(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model taught in haste: it stands for any model that knows the forget set less well than the target."""
    folder = tmp_path_factory.mktemp("control")
    tokenizer = load_tokenizer(str(taught.target))
    model = build_tiny_model("llama", vocab_size=len(tokenizer), hidden=32)
    with torch.random.fork_rng(devices=[]):
        teach(model, tokenizer, [taught.forget, taught.retain], steps=24)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def test_the_saved_adapter_has_the_controls_forget_probability(taught: Taught, control: Path, tmp_path: Path):
    settings = taught.settings(level={"aim": "auto"}, evaluation={"retain_only": str(control), "skip": True})
    lines = Lines()
    unlearn(settings, tmp_path / "run", reporter=lines)
    record = json.loads((tmp_path / "run" / "record.json").read_text())["level"]
    expected = forget_probability(taught, model=control)
    assert record["level"]["source"] == {"kind": "control", "name": str(control), "base": None}
    assert record["level"]["probability"] == pytest.approx(expected, rel=1e-5)
    assert record["level"]["low"] <= expected <= record["level"]["high"]
    reached = forget_probability(taught, tmp_path / "run" / "adapter")
    assert reached == pytest.approx(record["as_left"], rel=1e-4)
    assert reached == pytest.approx(expected, rel=0.1)
    assert record["as_trained"] < 0.8 * expected < 0.8 * forget_probability(taught)  # Else there was nothing to settle.
    assert any(line.startswith("Level: forget probability") for line in lines.lines)


def test_a_number_is_reached_and_one_out_of_reach_is_said(taught: Taught, tmp_path: Path):
    for aim, short in ((0.5, False), (1e-9, True)):
        lines = Lines()
        unlearn(taught.settings(level={"aim": aim}, evaluation={"skip": True}), tmp_path / str(aim), reporter=lines)
        said = next(line for line in lines.lines if line.startswith("Level: forget probability"))
        assert ("short of the level" in said) == short
        reached = forget_probability(taught, tmp_path / str(aim) / "adapter")
        assert (reached == pytest.approx(aim, rel=0.1)) != short


@pytest.mark.parametrize(
    ("as_left", "strength", "advice"),
    [
        (0.10, 1.0, ""),
        (0.10, 1.2, ""),
        (0.10, 1.9, "; strengthened far past its training, which takes from what is kept: train longer"),
        (0.30, 1.5, "; short of the level: train longer"),
    ],
)
def test_a_line_says_what_to_do_about_training_that_fell_short(as_left: float, strength: float, advice: str):
    level = Level(LevelSource("number", "0.1"), 0.1, 0.1, 0.1)
    said = Settled(level, as_trained=0.4, as_left=as_left, strength=strength).sentence()
    assert said.partition(f"of its strength {as_left:.3f}")[2].removesuffix(" (--set training.epochs=N)") == advice


def test_earlier_requests_are_no_model_before(taught: Taught, tmp_path: Path):
    """On an adapter that carries them, the base under it knows everything."""
    plain = with_fixed_source(taught.settings(level={"aim": "auto"}))
    assert plain.level.aim == "none"
    shutil.copytree(taught.target, tmp_path / "adapter")
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "the/base"}))
    adapter = taught.settings(model={"name": str(tmp_path / "adapter")}, level={"aim": "auto"})
    fixed = with_fixed_source(adapter).level
    assert (fixed.aim, fixed.before) == ("auto", "the/base")
    control = taught.settings(level={"aim": "auto"}, evaluation={"retain_only": "a/control"})
    assert with_fixed_source(control) == control


def test_an_adapter_target_aims_at_its_base_and_a_plain_one_at_nothing(taught: Taught, tmp_path: Path):
    assert level_source(taught.settings(level={"aim": "auto"})) is None
    (tmp_path / "adapter_config.json").write_text('{"base_model_name_or_path": "somewhere/base"}')
    source = level_source(taught.settings(model={"name": str(tmp_path)}, level={"aim": "auto"}))
    assert source is not None
    assert (source.kind, source.name) == ("before", "somewhere/base")
    named = level_source(taught.settings(level={"aim": "before", "before": "other/base"}))
    assert named is not None
    assert named.name == "other/base"


@pytest.mark.parametrize(("aim", "word"), [("control", "--retain-only"), ("before", "level.before")])
def test_an_aim_that_nothing_can_tell_is_refused_before_anything_is_written(
    taught: Taught, tmp_path: Path, aim: str, word: str
):
    with pytest.raises(InputError, match=word):
        unlearn(taught.settings(level={"aim": aim}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("aim", [0.0, 1.0, "often"])
def test_an_aim_that_is_none_is_refused_by_its_key(taught: Taught, aim: object):
    with pytest.raises(InputError, match=r"level\.aim"):
        taught.settings(level={"aim": aim})


def test_an_automatic_aim_that_fails_leaves_the_adapter_as_trained_and_says_so(taught: Taught, tmp_path: Path):
    broken = tmp_path / "broken"
    broken.mkdir()
    settings = taught.settings(level={"aim": "auto", "before": str(broken)}, evaluation={"skip": True})
    lines = Lines()
    unlearn(settings, tmp_path / "run", reporter=lines)
    plain = taught.settings(evaluation={"skip": True})
    unlearn(plain, tmp_path / "plain")
    assert any(line.startswith("Level: none (") for line in lines.lines)
    assert forget_probability(taught, tmp_path / "run" / "adapter") == forget_probability(
        taught, tmp_path / "plain" / "adapter"
    )


def test_training_stops_at_the_level_and_a_run_that_is_stopped_there_ends_the_same(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    changes = {"level": {"aim": 0.5, "stop": True}, "evaluation": {"skip": True}}
    settings = taught.settings(training={"epochs": 10, "save_steps": 1}, **changes)
    unlearn(settings, tmp_path / "whole")
    record = json.loads((tmp_path / "whole" / "record.json").read_text())["level"]
    log = [json.loads(line) for line in (tmp_path / "whole" / "train_log.jsonl").read_text().splitlines()]
    assert 1 < record["stopped"] == log[-1]["step"]
    assert record["as_trained"] <= 0.5
    assert f"stopped at step {record['stopped']}" in (tmp_path / "whole" / "adapter" / "README.md").read_text()

    def fail(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("unlora.recipes.unlearn.settle", fail)
        with pytest.raises(KeyboardInterrupt):
            unlearn(settings, tmp_path / "again")
    unlearn(settings, tmp_path / "again")
    assert json.loads((tmp_path / "again" / "record.json").read_text())["level"] == record
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_the_forget_set_is_read_only_where_a_step_says_that_it_may_be_at_the_level(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The run ends as the one that reads it after every pass, having read it less often."""
    changes = {"level": {"aim": 0.2, "stop": True}, "evaluation": {"skip": True}}
    settings = taught.settings(training={"epochs": 20, "learning_rate": 2e-3, "save_steps": 100}, **changes)
    seen: list[float | None] = []

    class Watched(level.AtLevel):
        def __call__(self, probability: float | None) -> bool:
            seen.append(probability)
            return super().__call__(probability)

    monkeypatch.setattr("unlora.recipes.unlearn.AtLevel", Watched)
    reads = {}
    for far in (level.FAR, math.inf):
        seen.clear()
        with monkeypatch.context() as patch:
            patch.setattr(level, "FAR", far)
            counted = Mock(wraps=level.score_completions)
            patch.setattr(level, "score_completions", counted)
            unlearn(settings, tmp_path / str(far))
        reads[far] = counted.call_count
    assert all(one is not None for one in seen)
    far_off = sum(one > level.FAR * 0.2 for one in seen if one is not None)
    assert 0 < far_off == reads[math.inf] - reads[level.FAR] < len(seen)
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "inf" / name).read_bytes() == (tmp_path / str(level.FAR) / name).read_bytes()


def test_what_stopped_training_is_what_the_model_gives_and_is_not_asked_again(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    found: list[float] = []

    def settle(run: Run, at_level: level.AtLevel, **others: Any) -> None:
        assert at_level.found is not None
        found.extend((at_level.found, at_level.probability()))
        with patch.context() as inner:
            asked = Mock(wraps=level.score_completions)
            inner.setattr(level, "score_completions", asked)
            level.settle(run, at_level, **others)
        found.append(asked.call_count)

    with monkeypatch.context() as patch:
        patch.setattr("unlora.recipes.unlearn.settle", settle)
        aimed = {"aim": 0.5, "stop": True}
        unlearn(taught.settings(training={"epochs": 10}, level=aimed, evaluation={"skip": True}), tmp_path / "run")
    record = json.loads((tmp_path / "run" / "record.json").read_text())["level"]
    assert found[0] == found[1] == record["as_trained"]
    assert (found[2] > 0) == (record["strength"] != 1)


def test_the_step_that_passes_the_level_is_found_from_any_checkpoint(
    taught: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Within a pass of four steps; a run that was ended before it reads at the same steps, and stops there too."""
    training = {"epochs": 20, "batch_size": 1, "learning_rate": 1e-3, "save_steps": 1}
    stopped: dict[object, int] = {}

    def settings(stop: bool | str) -> UnlearnSettings:
        return taught.settings(training=training, level={"aim": 0.3, "stop": stop}, evaluation={"skip": True})

    for stop in (True, "exactly"):
        unlearn(settings(stop), tmp_path / str(stop))
        record = json.loads((tmp_path / str(stop) / "record.json").read_text())["level"]
        stopped[stop] = record["stopped"]
        assert record["as_trained"] <= 0.3
    assert stopped["exactly"] < stopped[True]
    assert stopped[True] % 4 == 0

    def fail(*_args: object, **_kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("unlora.recipes.unlearn.settle", fail)
        with pytest.raises(KeyboardInterrupt):
            unlearn(settings("exactly"), tmp_path / "again")
    unlearn(settings("exactly"), tmp_path / "again")
    name = "adapter/adapter_model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "exactly" / name).read_bytes()


def test_a_level_is_worth_more_passes_than_training_without_one(taught: Taught, tmp_path: Path):
    """At a rate at which 25 steps, of all records each, fall short; who names a number of passes gets it."""

    def steps(name: str, **changes: dict[str, object]) -> int:
        training = {"epochs": None, "learning_rate": 1e-3} | changes.pop("training", {})
        unlearn(taught.settings(training=training, evaluation={"skip": True}, **changes), tmp_path / name)
        return len((tmp_path / name / "train_log.jsonl").read_text().splitlines())

    aimed: dict[str, object] = {"aim": 0.3, "stop": True}
    assert steps("without") == 25
    assert steps("past", level=aimed | {"stop": False}) == 25
    assert steps("named", level=aimed, training={"epochs": 2}) == 2
    assert 25 < steps("to level", level=aimed) < 100
    assert "at most 100 epochs" in (tmp_path / "to level" / "adapter" / "README.md").read_text()
    assert " 25 epochs" in (tmp_path / "without" / "adapter" / "README.md").read_text()


@pytest.mark.parametrize(
    ("examples", "to_level", "passes"),
    [
        (200, False, 5),  # 125 steps
        (40, False, 5),  # 25 steps
        (4, False, 50),  # 25 steps, each of them reads the four twice
        (40, True, 20),  # 100 steps
        (4, True, 200),
        (1, False, 200),
    ],
)
def test_few_records_make_as_many_steps_as_forty(examples: int, to_level: bool, passes: int):
    assert TrainingSettings().passes(examples, to_level=to_level) == passes
    assert TrainingSettings(epochs=3).passes(examples, to_level=to_level) == 3
    halved = TrainingSettings(batch_size=4, gradient_accumulation_steps=2)
    assert halved.passes(examples, to_level=to_level) == passes
