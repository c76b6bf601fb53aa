"""Scores against a plain loop: one forward pass a token, nothing padded."""

import math

import numpy
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from tests.tiny import ARCHITECTURES, Architecture, build_tiny_model
from unlora.errors import InputError
from unlora.models.score import score_completions

# Lengths and prompt lengths differ, one sequence has no prompt, one has a single completion token.
SHAPES = [(9, 4), (5, 0), (12, 11), (30, 7), (3, 1), (9, 8)]


def sequences() -> list[tuple[list[int], int]]:
    generator = torch.Generator().manual_seed(1)
    return [(torch.randint(128, (size,), generator=generator).tolist(), prompt) for size, prompt in SHAPES]


@torch.no_grad()
def plain_loop(model: PreTrainedModel, tokens: list[int], prompt_length: int) -> tuple[list[float], list[bool]]:
    log_probs, matches = [], []
    for position in range(max(prompt_length, 1), len(tokens)):
        logits = model(input_ids=torch.tensor([tokens[:position]])).logits[0, -1].double()
        log_probs.append(logits.log_softmax(0)[tokens[position]].item())
        matches.append(logits.argmax().item() == tokens[position])
    return log_probs, matches


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_scores_equal_a_plain_loop_at_every_batch_size(arch: Architecture, batch_size: int):
    model = build_tiny_model(arch)
    scores = score_completions(model, sequences(), pad_token_id=3, batch_size=batch_size)
    for score, (tokens, prompt_length) in zip(scores, sequences(), strict=True):
        log_probs, matches = plain_loop(model, tokens, prompt_length)
        numpy.testing.assert_allclose(score.token_log_probs, log_probs, atol=2e-5)
        assert score.argmax_match.tolist() == matches


def test_argmax_match_is_true_on_the_greedy_continuation():
    model = build_tiny_model("llama")
    tokens = [5, 9]
    with torch.no_grad():
        for _ in range(6):
            tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
    changed = [*tokens[:-1], (tokens[-1] + 1) % 128]
    greedy, other = score_completions(model, [(tokens, 2), (changed, 2)], pad_token_id=0)
    assert greedy.argmax_match.tolist() == [True] * 6
    assert other.argmax_match.tolist() == [True] * 5 + [False]


def test_means_follow_from_the_token_scores():
    (score,) = score_completions(build_tiny_model("phi"), [([1, 2, 3, 4], 2)], pad_token_id=0)
    assert score.mean_log_prob == pytest.approx(score.token_log_probs.sum() / 2)
    assert score.probability == pytest.approx(math.prod(numpy.exp(score.token_log_probs)) ** 0.5)


def test_model_without_logits_to_keep_gives_the_same_scores(monkeypatch: pytest.MonkeyPatch):
    model = build_tiny_model("qwen2")
    expected = score_completions(model, sequences(), pad_token_id=0)
    forward = model.forward
    monkeypatch.setattr(
        model,
        "forward",
        lambda input_ids, attention_mask, use_cache: forward(input_ids=input_ids, attention_mask=attention_mask),
    )
    for score, other in zip(score_completions(model, sequences(), pad_token_id=0), expected, strict=True):
        numpy.testing.assert_allclose(score.token_log_probs, other.token_log_probs, atol=1e-6)


def test_adapter_counts_and_training_mode_is_kept():
    model = build_tiny_model("llama")
    before = score_completions(model, sequences(), pad_token_id=0)
    wrapped = get_peft_model(model, LoraConfig(target_modules=["q_proj"], init_lora_weights=False, lora_dropout=0.5))
    wrapped.train()
    first, second = (score_completions(wrapped, sequences(), pad_token_id=0) for _ in range(2))
    assert wrapped.training
    assert first[3].mean_log_prob == second[3].mean_log_prob != before[3].mean_log_prob
    with wrapped.disable_adapter():
        off = score_completions(wrapped, sequences(), pad_token_id=0)
    assert [score.mean_log_prob for score in off] == [score.mean_log_prob for score in before]


def test_progress_adds_up_to_the_number_of_sequences():
    counts: list[int] = []
    score_completions(build_tiny_model("llama"), sequences(), pad_token_id=0, batch_size=4, progress=counts.append)
    assert counts == [4, 2]


@pytest.mark.parametrize("unscorable", [([1, 2], 2), ([1], 0), ([], 0)])
def test_sequence_without_completion_is_refused(unscorable: tuple[list[int], int]):
    with pytest.raises(InputError, match="sequence 1: has no completion token"):
        score_completions(build_tiny_model("llama"), [([1, 2], 1), unscorable], pad_token_id=0)
