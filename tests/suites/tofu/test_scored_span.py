"""Scores of chats are those of the answer alone: each is computed here by hand, in a plain loop over tokens."""

import math

import pytest
import torch
from transformers import PreTrainedModel

from tests.data.chat_templates import ANSWER, CASES, QUESTION, tokenizer_with
from tests.suites.asking import TOFU, score_model
from tests.tiny import build_tiny_model
from unlora.data.records import Example, ExampleSet
from unlora.data.tokenise import ExampleTokeniser
from unlora.suites.record import evaluation_record

NEW_TOKENS = 6
BY_HAND = {
    "qwen3_like": (
        f"<|turn|>user\n{QUESTION}<|stop|>\n<|turn|>assistant\n<think>\n\n</think>\n\n",
        f"{ANSWER}<|stop|>",
    ),
    "deepseek_r1_like": (f"<|user|>{QUESTION}<|assistant|>", f"{ANSWER}<|end|>"),
    "channels": (
        f"<|turn|>user<|message|>{QUESTION}<|stop|><|turn|>assistant<|channel|>final<|message|>",
        f"{ANSWER}<|done|>",
    ),
    "phi3_like": (f"<|turn|>user\n{QUESTION}<|stop|>\n<|turn|>assistant\n", f"{ANSWER}<|stop|>"),
}
"""What a model is given, and what of its text is the answer."""


def _log_prob(model: PreTrainedModel, given: list[int], wanted: list[int]) -> float:
    """Mean log-probability of `wanted` after `given`, one token at a time."""
    total = 0.0
    for place, token in enumerate(wanted):
        logits = model(torch.tensor([given + wanted[:place]])).logits[0, -1].double()
        total += float(torch.log_softmax(logits, dim=-1)[token])
    return total / len(wanted)


def _greedy(model: PreTrainedModel, given: list[int], stops: set[int]) -> list[int]:
    new: list[int] = []
    while len(new) < NEW_TOKENS:
        token = int(model(torch.tensor([given + new])).logits[0, -1].argmax())
        if token in stops:
            break
        new.append(token)
    return new


@pytest.mark.parametrize("name", BY_HAND)
@torch.no_grad()
def test_probability_and_generated_answer_are_those_of_the_answer_alone(name: str) -> None:
    tokenizer = tokenizer_with(CASES[name].template)
    model = build_tiny_model("llama", vocab_size=len(tokenizer), seed=3)
    example = Example(
        "question_answer",
        QUESTION,
        ANSWER,
        "x, line 1",
        paraphrased_answer="Cusco.",
        perturbed_answers=("In Oslo.", " In Porto. "),
    )
    tokeniser = ExampleTokeniser(tokenizer, max_length=200)
    forget = ExampleSet("x", (example,))
    scores = score_model(model, tokeniser, {"forget": forget}, max_new_tokens=NEW_TOKENS, batch_size=4)
    (score,) = scores.sets["forget"]

    prompt, completion = BY_HAND[name]
    given, wanted = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, completion))
    expected = _log_prob(model, given, wanted)
    assert score.token_count == len(wanted)
    assert score.mean_log_prob == pytest.approx(expected, abs=1e-5)
    metrics = evaluation_record(TOFU, {"target": scores})["models"]["target"]["metrics"]
    assert metrics["forget_probability"]["value"] == pytest.approx(math.exp(expected), rel=1e-4)
    for answer, found in zip(("In Oslo.", "In Porto."), score.perturbed_log_probs, strict=True):
        other = tokenizer(completion.replace(ANSWER, answer), add_special_tokens=False)["input_ids"]
        if answer == "In Oslo.":  # the blanks around the other one are text of its own
            assert found == pytest.approx(_log_prob(model, given, other), abs=1e-5)
    new = _greedy(model, given, {int(model.generation_config.eos_token_id), tokenizer.eos_token_id})
    assert score.generated == tokenizer.decode(new, skip_special_tokens=True).strip()


def test_a_long_text_is_measured_to_its_end_and_what_is_cut_is_said_beside_the_metrics() -> None:
    tokenizer = tokenizer_with(None)
    model = build_tiny_model("llama", vocab_size=len(tokenizer))
    tokeniser = ExampleTokeniser(tokenizer, max_length=64)
    text = " ".join(f"Noor {number}" for number in range(100)) + " The secret is Cusco."
    long = Example("question_answer", "Who?", "Noor, " * 200, "x, line 2")
    forget = ExampleSet("x", (Example("text", "", text, "x, line 1"), long))
    scores = score_model(model, tokeniser, {"forget": forget}, max_new_tokens=2, batch_size=8)
    *pieces, answer = scores.sets["forget"]
    assert " ".join(piece.answer for piece in pieces) == text
    assert [piece.source for piece in pieces][-1] == f"x, line 1, part {len(pieces)} of {len(pieces)}"
    assert sum(piece.token_count for piece in pieces) == sum(
        len(tokenizer(piece.answer)["input_ids"]) - 1 for piece in pieces
    )
    assert answer.source == "x, line 2"
    whole = len(tokenizer(f"Question: Who?\nAnswer: {'Noor, ' * 200}")["input_ids"]) + 1
    texts = sum(len(tokenizer(piece.answer)["input_ids"]) for piece in pieces)
    count = len(pieces) + 1
    assert evaluation_record(TOFU, {"target": scores})["notes"] == [
        f"forget: 2 examples were measured in {count} pieces of at most 64 tokens",
        f"forget: 1 of {count} examples were cut at 64 tokens: {texts + whole:,} tokens, {texts + 64:,} used",
    ]
