"""Scores against a plain loop: one forward pass a token, nothing padded."""

import math

import numpy
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import PreTrainedModel

from tests.tiny import ARCHITECTURES, Architecture, build_tiny_model
from unlora.errors import InputError
from unlora.models.score import _score_tokens, score_completions

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


def answers_to_questions() -> list[tuple[list[int], int]]:
    """Five answers to each of three questions, in turn, and the lone sequences between them."""
    generator = torch.Generator().manual_seed(2)

    def draw(size: int) -> list[int]:
        return torch.randint(128, (size,), generator=generator).tolist()

    questions = [draw(size) for size in (5, 21, 2)]
    asked = [(question + draw(2 + answer), len(question)) for answer in range(5) for question in questions]
    return [*asked[:10], *sequences()[:3], *asked[10:]]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_answers_to_one_question_score_as_if_each_were_alone(arch: Architecture, batch_size: int):
    model = build_tiny_model(arch)
    scores = score_completions(model, answers_to_questions(), pad_token_id=3, batch_size=batch_size)
    for score, (tokens, prompt_length) in zip(scores, answers_to_questions(), strict=True):
        log_probs, matches = plain_loop(model, tokens, prompt_length)
        numpy.testing.assert_allclose(score.token_log_probs, log_probs, atol=2e-5)
        assert score.argmax_match.tolist() == matches


def test_a_question_is_read_once_for_all_its_answers():
    model = build_tiny_model("llama")
    counts: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda _module, inputs: counts.append(inputs[0].shape[:2].numel()))
    question = list(range(40))
    score_completions(model, [([*question, answer, answer], 40) for answer in range(8)], pad_token_id=0)
    assert counts == [39, 8 * 3]


@pytest.mark.parametrize("batch_size", [1, 16])
def test_vocabulary_moments_equal_a_float64_loop(batch_size: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("unlora.models.score.TOKENS_AT_ONCE", 5)
    model = build_tiny_model("qwen2")
    scores = score_completions(
        model, answers_to_questions(), pad_token_id=3, batch_size=batch_size, vocabulary_moments=True
    )
    for score, (tokens, prompt_length) in zip(scores, answers_to_questions(), strict=True):
        start = max(prompt_length, 1)
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([tokens])).logits[0, start - 1 : -1].double().numpy()
        means, stds = [], []
        for row in logits:
            log_p = row - row.max() - math.log(sum(math.exp(value - row.max()) for value in row))
            mean = sum(math.exp(value) * value for value in log_p)
            means.append(mean)
            stds.append(math.sqrt(sum(math.exp(value) * (value - mean) ** 2 for value in log_p)))
        numpy.testing.assert_allclose(score.vocabulary_means, means, rtol=1e-4)
        numpy.testing.assert_allclose(score.vocabulary_stds, stds, rtol=1e-4)


def test_entries_that_are_ruled_out_do_not_spoil_the_moments():
    model = build_tiny_model("llama")

    def rule_out(_module: object, _inputs: object, logits: torch.Tensor) -> torch.Tensor:
        logits[..., 2:] = -torch.inf
        return logits

    model.lm_head.register_forward_hook(rule_out)
    (score,) = score_completions(model, [([7, 8, 1], 2)], pad_token_id=0, vocabulary_moments=True)
    p = score.probability
    mean = p * math.log(p) + (1 - p) * math.log(1 - p)
    assert score.vocabulary_means == pytest.approx([mean], rel=1e-4)
    assert score.vocabulary_stds == pytest.approx([math.sqrt(p * (1 - p)) * abs(math.log(p / (1 - p)))], rel=1e-4)


def test_vocabulary_moments_are_left_out_unless_asked_for():
    (score,) = score_completions(build_tiny_model("llama"), [([1, 2, 3], 1)], pad_token_id=0)
    assert score.vocabulary_means is None
    assert score.vocabulary_stds is None


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


def test_a_nearly_certain_token_of_a_large_vocabulary_keeps_its_loss():
    """49,151 others at e^-17 of it: log(1 + 49151 e^-17) is lost, by a sixteenth or more, in a log_softmax on a CPU."""
    logits = torch.full((1, 49152), -17.0)
    logits[0, 7] = 0.0
    for moments in (False, True):
        score = _score_tokens(logits, torch.tensor([7]), moments)
        assert score.token_log_probs[0] == pytest.approx(-math.log1p(49151 * math.exp(-17)), rel=1e-3)


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
    counts.clear()
    score_completions(build_tiny_model("llama"), answers_to_questions(), pad_token_id=0, progress=counts.append)
    assert sum(counts) == len(answers_to_questions())


@pytest.mark.parametrize("unscorable", [([1, 2], 2), ([1], 0), ([], 0)])
def test_sequence_without_completion_is_refused(unscorable: tuple[list[int], int]):
    with pytest.raises(InputError, match="sequence 1: has no completion token"):
        score_completions(build_tiny_model("llama"), [([1, 2], 1), unscorable], pad_token_id=0)
