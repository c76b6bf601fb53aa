"""Facts that unlearning has seen, beside those that it has not."""

import json
import math
from pathlib import Path

import pytest

from tests.cli.commands import unlora
from tests.taught import FORGET, Taught, teach, write_jsonl
from tests.tiny import build_tiny_model, build_tiny_tokenizer
from unlora.data.facts import FactSplit
from unlora.data.settings import DataSettings
from unlora.data.sources import load_examples
from unlora.errors import InputError
from unlora.suites.held_out.suite import HeldOut
from unlora.suites.scores import ModelScores
from unlora.suites.suite import SuiteReader


def held_out(forget: str, retain: Path | None = None) -> HeldOut:
    return HeldOut(data=DataSettings(forget=forget, retain=str(retain) if retain else None))


def test_a_model_that_knows_one_part_alone_is_told(tmp_path: Path):
    """Taught exactly what is seen, it knows that, and of what is held out nothing."""
    file = write_jsonl(tmp_path / "forget.jsonl", FORGET)
    divided = FactSplit().divide(load_examples(str(file)))
    seen = write_jsonl(tmp_path / "seen.jsonl", tuple((one.prompt, one.completion) for one in divided.seen))
    tokenizer = build_tiny_tokenizer([f"Question: {question}\nAnswer: {answer}" for question, answer in FORGET])
    model = build_tiny_model("llama", vocab_size=len(tokenizer))
    teach(model, tokenizer, [seen])
    suite = held_out(f"facts:seen@{file}")
    asked = suite.prepare(suite.load(), SuiteReader.of(model, tokenizer))
    scores = {name: tuple(suite.ask(model, asked, name, questions, None)) for name, questions in asked.sets.items()}
    found = {name: one.value for name, one in suite.measure(ModelScores(scores, asked.protocol), None).items()}
    assert set(found) == {
        f"{part}_{name}" for part in ("seen", "held_out") for name in ("probability", "rouge_l_recall")
    }
    assert found["seen_probability"] == pytest.approx(
        sum(math.exp(one.mean_log_prob) for one in scores["seen"]) / len(divided.seen)
    )
    assert found["seen_probability"] > 0.9  # pyright: ignore[reportOptionalOperand]
    assert found["seen_rouge_l_recall"] == 1
    assert found["held_out_probability"] < 0.5  # pyright: ignore[reportOptionalOperand]
    assert asked.protocol["split"] == {"share": 0.5, "by": "records", "seed": 0}


def test_a_run_forgets_one_part_and_tells_both(taught: Taught, tmp_path: Path):
    output = tmp_path / "run"
    config = tmp_path / "config.yaml"
    settings = taught.settings(
        data={"forget": f"facts:seen@{taught.forget}"}, evaluation={"suites": ["tofu", "held_out"]}
    )
    config.write_text(settings.to_yaml())
    result = unlora("unlearn", str(config), "--output", output)
    assert result.exit_code == 0, result.output
    metrics = json.loads((output / "evaluation.json").read_text())["others"]["held_out"]["models"]
    for role in ("target", "unlearned"):
        assert [metrics[role]["metrics"][f"{part}_probability"]["example_count"] for part in ("seen", "held_out")] == [
            2,
            2,
        ]
    before, after = (metrics[role]["metrics"]["seen_probability"]["value"] for role in ("target", "unlearned"))
    assert before > 0.9 > after
    record = json.loads((output / "record.json").read_text())
    assert {"held_out: seen_sha256", "held_out: held_out_sha256"} <= set(record["evaluation_data"])


def test_what_is_held_out_must_not_be_taught(tmp_path: Path):
    file = write_jsonl(tmp_path / "forget.jsonl", FORGET)
    held = FactSplit().divide(load_examples(str(file))).held_out.examples[0]
    retain = write_jsonl(
        tmp_path / "retain.jsonl", (("Who?", "Somebody else entirely."), (held.prompt, held.completion))
    )
    with pytest.raises(InputError, match=rf"{held.source} is held out, and the retain set teaches it .*line 2"):
        held_out(f"facts:seen@{file}", retain).load()


def test_another_forget_set_is_refused_in_one_line(taught: Taught, tmp_path: Path):
    for forget in (str(taught.forget), f"facts:held_out@{taught.forget}"):
        words = ("--suite", "held_out", "--model", taught.target, "--forget", forget, "--output", tmp_path / "out")
        result = unlora("evaluate", *words)
        assert result.exit_code == 2
        line = f"held_out: the forget set is {forget}, and must be a part that is seen, facts:seen@SET."
        assert result.output.splitlines()[1:] == [f"error: {line}"]
