"""Target and retain-only models."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.taught import FORGET, PAD, Taught, write_jsonl
from tests.tiny import build_tiny_model, build_tiny_tokenizer
from tests.training.runs import logits
from unlora.errors import InputError, TrainingDivergedError
from unlora.models.load import load_model
from unlora.models.score import score_completions
from unlora.recipes.fine_tune import fine_tune, learnable_examples
from unlora.run.reporter import Reporter
from unlora.run.settings import FineTuneSettings

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def swapped(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The questions to forget with each other's answers: words the taught model knows, facts it does not."""
    answers = [answer for _, answer in FORGET]
    pairs = tuple((question, answers[place - 1]) for place, (question, _) in enumerate(FORGET))
    return write_jsonl(tmp_path_factory.mktemp("swapped") / "swapped.jsonl", pairs)


def settings(taught: Taught, swapped: Path, **more: Any) -> FineTuneSettings:
    values = {"model": {"name": str(taught.target)}, "data": [str(swapped), str(taught.retain)], "batch_size": 6}
    return FineTuneSettings.from_mapping(values | more)


def probability(model: Any, taught: Taught, file: Path) -> float:
    sequences = [(example.input_ids, example.prompt_length) for example in taught.tokens(file)]
    scores = score_completions(model, sequences, pad_token_id=PAD)
    return sum(score.probability for score in scores) / len(scores)


@pytest.mark.parametrize(("method", "learning_rate"), [("lora", 1e-2), ("full", 5e-3)], ids=["lora", "full"])
def test_model_learns_and_loads(taught: Taught, swapped: Path, tmp_path: Path, method: str, learning_rate: float):
    options = {"method": method, "learning_rate": learning_rate, "epochs": 30, "rank": 8, "alpha": 16.0}
    fine_tune(settings(taught, swapped, **options), tmp_path / "out")
    before = taught.load()
    after = load_model(str(tmp_path / "out"), device=CPU)
    assert after.source.kind == ("adapter" if method == "lora" else "folder")
    assert probability(before.model, taught, swapped) < 0.3
    assert probability(after.model, taught, swapped) > 0.9
    assert probability(after.model, taught, taught.retain) > 0.9
    assert after.tokenizer.get_vocab() == before.tokenizer.get_vocab()
    assert after.model.config.use_cache is True  # The trainer switches it off while it trains.
    if method == "lora":
        plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(taught.target), str(tmp_path / "out"))
        torch.testing.assert_close(
            logits(plain, taught.batch()), logits(after.model, taught.batch()), atol=1e-3, rtol=0
        )
        assert "12 examples (30 epochs, learning rate 0.01, seed 0)" in (tmp_path / "out" / "README.md").read_text()


def test_excluded_examples_are_not_learnt(taught: Taught, swapped: Path, tmp_path: Path):
    chosen = settings(taught, swapped, exclude=[str(swapped)], learning_rate=1e-2, epochs=30, rank=8)
    kept = {example.prompt for example in learnable_examples(chosen)}
    assert len(kept) == 8
    assert not any("Mira" in prompt for prompt in kept)
    fine_tune(chosen, tmp_path / "retain_only")
    model = load_model(str(tmp_path / "retain_only"), device=CPU).model
    assert probability(model, taught, taught.retain) > 0.9
    assert probability(model, taught, swapped) < 0.3
    with pytest.raises(InputError, match="nothing is left to learn"):
        fine_tune(settings(taught, swapped, data=[str(swapped)], exclude=[str(swapped)]), tmp_path / "no")
    assert not (tmp_path / "no").exists()


class Heard(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, message: str) -> None:
        self.lines.append(message)


def test_exclusion_counts_what_it_found_whatever_the_shape(taught: Taught, swapped: Path, tmp_path: Path):
    rows = [json.loads(line) for line in swapped.read_text(encoding="utf-8").splitlines()]
    turns = [
        {"role": "user", "content": rows[0]["question"]},
        {"role": "assistant", "content": rows[0]["answer"] + " "},
    ]
    written = [
        {"messages": [{"role": "system", "content": "Be brief."}, *turns]},
        {"prompt": f"Question: {rows[1]['question']}\nAnswer:", "completion": f" {rows[1]['answer']}"},
        {"question": "Who was never there?", "answer": "Nobody."},
    ]
    other = tmp_path / "other.jsonl"
    other.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    heard = Heard()
    kept = learnable_examples(settings(taught, swapped, exclude=[str(other)]), heard)
    assert heard.lines == [
        f"2 of the 3 examples of {other} are in the data; not found: {other}, line 3",
        "Excluded 2 of 12 examples",
    ]
    assert {row["question"] for row in rows[:2]} & {one.prompt for one in kept} == set()
    assert len(kept) == 10


def test_what_is_left_and_nearly_excluded_is_said(taught: Taught, swapped: Path, tmp_path: Path):
    places = {"Ada Winter": "Turin", "Bo Lind": "Oslo", "Cy Marsh": "Quito", "Di Holm": "Lagos", "Eli Stone": "Perth"}
    rows = [
        (f"Where was {name} born?", f"{name} was born in the old town of {place}.") for name, place in places.items()
    ]
    known = write_jsonl(tmp_path / "known.jsonl", tuple(rows))
    told = write_jsonl(tmp_path / "told.jsonl", ((rows[0][0], rows[0][1].replace("the old", "the very old")),))
    heard = Heard()
    learnable_examples(settings(taught, swapped, data=[str(known), str(told)], exclude=[str(known)]), heard)
    assert heard.lines[1:] == [
        "Excluded 5 of 6 examples",
        f"Warning: 1 examples that are learnt are nearly excluded ones: {told}, line 1 ~ {known}, line 1",
    ]


def test_an_exclusion_that_finds_nothing_is_refused(taught: Taught, swapped: Path, tmp_path: Path):
    stranger = write_jsonl(tmp_path / "stranger.jsonl", (("Who was never there?", "Nobody."),))
    with pytest.raises(InputError, match=r"exclude: none of the 1 examples of .*stranger.jsonl is in the data"):
        fine_tune(settings(taught, swapped, exclude=[str(stranger)]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_same_seed_gives_the_same_bits(taught: Taught, swapped: Path, tmp_path: Path):
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        fine_tune(settings(taught, swapped, epochs=2, rank=4, seed=seed), tmp_path / folder)
    first, second, third = ((tmp_path / name / "adapter_model.safetensors").read_bytes() for name in "abc")
    assert first == second
    assert first != third


def test_folder_in_use_and_a_rank_that_does_not_fit_are_refused(taught: Taught, swapped: Path, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(InputError, match="already exists and is not empty"):
        fine_tune(settings(taught, swapped), tmp_path)
    with pytest.raises(InputError, match="rank: 64 does not fit"):
        fine_tune(settings(taught, swapped, rank=64), tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("method", ["lora", "full"])
def test_diverged_training_saves_nothing(taught: Taught, swapped: Path, tmp_path: Path, method: str):
    with pytest.raises(TrainingDivergedError, match=r"the learning rate \(1e\+30\) is too high"):
        fine_tune(
            settings(taught, swapped, method=method, learning_rate=1e30, rank=4, epochs=4, warmup_ratio=0.0),
            tmp_path / "out",
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("rate", [1e38, 1e30])
def test_what_the_last_step_ruins_is_not_saved(taught: Taught, swapped: Path, tmp_path: Path, rate: float):
    one_step = {"learning_rate": rate, "epochs": 1, "batch_size": 64, "warmup_ratio": 0.0, "rank": 4}
    for method in ("lora", "full"):
        with pytest.raises(TrainingDivergedError, match=r"nothing was saved: the learning rate .* is too high\.$"):
            fine_tune(settings(taught, swapped, method=method, **one_step), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_gpt2_keeps_its_transposed_weights(taught: Taught, swapped: Path, tmp_path: Path):
    """Conv1D: the adapter's config says so, and loading it needs no correction by PEFT."""
    tokenizer = build_tiny_tokenizer()
    build_tiny_model("gpt2", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    fine_tune(settings(taught, swapped, model={"name": str(tmp_path / "model")}, epochs=1, rank=4), tmp_path / "out")
    assert load_model(str(tmp_path / "out"), device=CPU).source.kind == "adapter"
