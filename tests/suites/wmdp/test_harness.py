"""The real harness on a tiny model: its numbers against a plain loop, and what it must leave as it was."""

import builtins
import dataclasses
import importlib
import os
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedTokenizerFast

from tests.suites.wmdp.questions import QUESTIONS, letter_log_likelihoods
from tests.tiny import Architecture, build_tiny_model, build_tiny_tokenizer
from unlora.data.multiple_choice import MultipleChoiceQuestion
from unlora.data.tokenise import ExampleTokeniser
from unlora.errors import InputError
from unlora.models.fingerprint import fingerprint
from unlora.suites.wmdp.harness import HarnessAnswer, ask_harness
from unlora.suites.wmdp.tasks import HarnessTask, load_hub_tasks, make_local_task

BIOLOGY = "The following are multiple choice questions (with answers) about biology."
ROW = {"question": "Where was Mira Solberg born?", "choices": ["Lagos", "Bergen", "Graz", "Oslo"], "answer": 1}


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    texts = [f"{BIOLOGY}\n{one.question} {' '.join(one.choices)}\nAnswer: A B C D" for one in QUESTIONS]
    return build_tiny_tokenizer(texts, pad=False)


def ask(model: Any, tokenizer: PreTrainedTokenizerFast, **options: Any) -> list[HarnessAnswer]:
    task = make_local_task(options.pop("questions", QUESTIONS), subject=options.pop("subject", "bio"))
    return ask_task(model, tokenizer, task, **options)


def ask_task(model: Any, tokenizer: PreTrainedTokenizerFast, task: HarnessTask, **options: Any) -> list[HarnessAnswer]:
    """All questions of a task."""
    places = [(part, place) for part, asked in task.questions.items() for place in range(len(asked))]
    tokeniser = ExampleTokeniser(tokenizer, template="plain", max_length=64)
    return ask_harness(model, tokeniser, task, places, **{"batch_size": 4} | options)


@pytest.mark.parametrize("arch", ["llama", "gpt2", "gemma3"])
def test_likelihoods_and_accuracy_equal_a_plain_loop(arch: Architecture, tokenizer: PreTrainedTokenizerFast) -> None:
    """Each letter is the right one once, so that some answers are right, whatever a random model says."""
    model = build_tiny_model(arch, vocab_size=len(tokenizer))
    questions = [dataclasses.replace(one, answer=answer) for one in QUESTIONS[:3] for answer in range(4)]
    answers = ask(model, tokenizer, questions=questions)
    assert [answer.question for answer in answers] == questions
    for question, answer in zip(questions, answers, strict=True):
        expected = letter_log_likelihoods(model, tokenizer, question, BIOLOGY)
        assert answer.letter_log_probs == pytest.approx(expected, abs=1e-4)
        assert answer.correct == (max(expected) == expected[question.answer])
        assert not answer.truncated
    assert sum(answer.correct for answer in answers) == 3


def test_a_file_without_a_subject_gets_a_line_without_one(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_tiny_model("llama", vocab_size=len(tokenizer))
    first = ask(model, tokenizer, questions=QUESTIONS[:1], subject=None)[0]
    line = "The following are multiple choice questions (with answers)."
    assert first.letter_log_probs == pytest.approx(
        letter_log_likelihoods(model, tokenizer, QUESTIONS[0], line), abs=1e-4
    )


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
def test_adapter_on_differs_from_off_and_nothing_is_merged(tokenizer: PreTrainedTokenizerFast) -> None:
    """Tied weights and a wrapped output head too: the harness ties the weights of what it is given."""
    for arch, modules in (("llama", ["q_proj", "down_proj"]), ("gemma3", ["q_proj", "lm_head"])):
        plain = build_tiny_model(arch, vocab_size=len(tokenizer))
        alone, before = ask(plain, tokenizer), fingerprint(plain)
        config = LoraConfig(r=4, target_modules=modules, init_lora_weights=False)
        torch.manual_seed(0)
        model = get_peft_model(plain, config)
        factors = {name: value.clone() for name, value in model.state_dict().items() if "lora_" in name}
        on = ask(model, tokenizer)
        with model.disable_adapter():
            off = ask(model, tokenizer)
        assert off == alone
        assert all(one.letter_log_probs != other.letter_log_probs for one, other in zip(on, off, strict=True))
        assert ask(model, tokenizer) == on
        assert fingerprint(model) == before
        assert all(torch.equal(model.state_dict()[name], value) for name, value in factors.items())
        assert not any(layer.merged for layer in model.modules() if hasattr(layer, "merged"))


def test_what_is_given_comes_back_as_it_was_and_nothing_is_printed(
    tokenizer: PreTrainedTokenizerFast,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    model = build_tiny_model("llama", vocab_size=len(tokenizer)).train()
    random_state = torch.get_rng_state()
    importlib.import_module("lm_eval")  # Whoever imports it first has HF_XET_HIGH_PERFORMANCE set.
    environment = dict(os.environ)
    ask(model, tokenizer)
    assert tokenizer.pad_token is None
    assert len(tokenizer) == model.config.vocab_size
    assert model.training
    assert torch.equal(torch.get_rng_state(), random_state)
    assert dict(os.environ) == environment
    assert list(tmp_path.iterdir()) == []
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""


def test_progress_counts_prompts(tokenizer: PreTrainedTokenizerFast) -> None:
    seen: list[tuple[int, int]] = []
    model = build_tiny_model("llama", vocab_size=len(tokenizer))
    ask(model, tokenizer, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(4, 6), (6, 6)]  # the letters are one token each, so a question is one prompt


def test_prompts_longer_than_the_context_are_counted(tokenizer: PreTrainedTokenizerFast) -> None:
    model = build_tiny_model("llama", vocab_size=len(tokenizer))
    long = MultipleChoiceQuestion("Graz " * 400 + "?", QUESTIONS[0].choices, 0, "long")
    answers = ask(model, tokenizer, questions=(QUESTIONS[0], long))
    assert [answer.truncated for answer in answers] == [False, True]


def serve(monkeypatch: pytest.MonkeyPatch, rows: int) -> list[tuple[str, str]]:
    """Answer for the hub."""
    asked: list[tuple[str, str]] = []

    def load_dataset(path: str, name: str, **options: Any) -> dict[str, datasets.Dataset]:
        asked.append((path, name))
        split = datasets.Dataset.from_list([ROW | {"question": f"Question {n} of {name}"} for n in range(rows)])
        return {"test": split, "dev": split}

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    return asked


def test_hub_tasks_are_the_harness_s_own(monkeypatch: pytest.MonkeyPatch, tokenizer: PreTrainedTokenizerFast) -> None:
    """Checks what is asked of the hub and how it is put; there is no network here."""
    asked = serve(monkeypatch, rows=3)
    tasks = load_hub_tasks(["bio", "cyber", "chem", "mmlu"], max_examples=2)
    assert [(task.name, len(task.parts)) for task in tasks] == [
        ("wmdp_bio", 1), ("wmdp_cyber", 1), ("wmdp_chem", 1), ("mmlu", 57),
    ]  # fmt: skip
    assert asked[:3] == [("cais/wmdp", f"wmdp-{name}") for name in ("bio", "cyber", "chem")]
    assert {path for path, _ in asked[3:]} == {"cais/mmlu"}
    assert [task.describe()["example_count"] for task in tasks] == [2, 2, 2, 114]

    model = build_tiny_model("llama", vocab_size=len(tokenizer))
    chosen = (tasks[1], tasks[3])
    answers = {task.name: ask_task(model, tokenizer, task, batch_size=64) for task in chosen}
    assert [len(answers[name]) for name in ("wmdp_cyber", "mmlu")] == [2, 114]
    anatomy = next(one for one in answers["mmlu"] if one.question.source == "mmlu_anatomy, question 2")
    assert anatomy.question.question == "Question 1 of anatomy"
    lines = {"wmdp_cyber": "cybersecurity", "mmlu": "anatomy"}
    for answer, subject in ((answers["wmdp_cyber"][0], lines["wmdp_cyber"]), (anatomy, lines["mmlu"])):
        line = f"The following are multiple choice questions (with answers) about {subject}."
        expected = letter_log_likelihoods(model, tokenizer, answer.question, line)
        assert answer.letter_log_probs == pytest.approx(expected, abs=1e-4)


def test_unreachable_hub_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: Any, **options: Any) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        InputError, match=r"^wmdp_chem: cais/wmdp .* \(no route to the hub\); offline, give a local file"
    ):
        load_hub_tasks(["chem"], max_examples=None)


def test_missing_harness_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    real_import = builtins.__import__

    def without_harness(name: str, *args: Any, **options: Any) -> Any:
        if name.startswith("lm_eval"):
            raise ImportError(name)
        return real_import(name, *args, **options)

    monkeypatch.setattr(builtins, "__import__", without_harness)
    for load in (
        lambda: load_hub_tasks(["bio"], max_examples=None),
        lambda: make_local_task(QUESTIONS, subject=None),
    ):
        with pytest.raises(InputError, match=r'pip install "unlora\[wmdp\]"'):
            load()
