"""Greedy generation against a plain loop that recomputes everything for every token."""

import pytest
import torch
from transformers import GenerationConfig, PreTrainedModel

from tests.tiny import ARCHITECTURES, Architecture, build_tiny_model, build_tiny_tokenizer
from unlora.errors import InputError
from unlora.models.generate import generate_greedy

TOKENIZER = build_tiny_tokenizer()
PROMPTS = [TOKENIZER(text)["input_ids"] for text in ("Mira", "Where was Tomas Okafor born?", "a b", "Who? " * 9)]
NEW_TOKENS = 8


def model_of(arch: Architecture) -> PreTrainedModel:
    return build_tiny_model(arch, vocab_size=len(TOKENIZER))


@torch.no_grad()
def plain_loop(model: PreTrainedModel, prompt: list[int], limit: int = NEW_TOKENS) -> list[int]:
    tokens = list(prompt)
    while len(tokens) - len(prompt) < limit:
        tokens.append(int(model(input_ids=torch.tensor([tokens])).logits[0, -1].argmax()))
        if tokens[-1] == TOKENIZER.eos_token_id:
            break
    return tokens[len(prompt) :]


def text_of(tokens: list[int]) -> str:
    return str(TOKENIZER.decode(tokens, skip_special_tokens=True))


def generate(model: PreTrainedModel, prompts: list[list[int]] = PROMPTS, **options: object) -> list[str]:
    settings = {"tokenizer": TOKENIZER, "pad_token_id": 1, "max_new_tokens": NEW_TOKENS} | options
    return generate_greedy(model, prompts, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_text_equals_a_plain_loop_at_every_batch_size(arch: Architecture, batch_size: int):
    model = model_of(arch)
    assert generate(model, batch_size=batch_size) == [text_of(plain_loop(model, prompt)) for prompt in PROMPTS]


def test_settings_of_the_checkpoint_do_not_count():
    model = model_of("llama")
    expected = generate(model)
    own = GenerationConfig(do_sample=True, temperature=5.0, repetition_penalty=9.0, max_length=3, num_beams=2)
    model.generation_config = own
    assert generate(model) == expected
    assert model.generation_config is own


def test_end_tokens_of_the_checkpoint_end_the_text():
    model = model_of("llama")
    tokens = plain_loop(model, PROMPTS[1])
    end = tokens[3]
    model.generation_config = GenerationConfig(eos_token_id=[end, 0])
    assert generate(model)[1] == text_of(tokens[: tokens.index(end)])


def test_pad_token_after_the_end_is_not_text():
    model = model_of("llama")
    tokens = plain_loop(model, PROMPTS[1])
    model.generation_config = GenerationConfig(eos_token_id=[tokens[3]])
    ordinary = TOKENIZER("a")["input_ids"][0]
    assert generate(model, pad_token_id=ordinary) == generate(model)


def test_each_prompt_has_its_own_limit():
    model = model_of("gpt2")
    limits = [2, 7, 1, 5]
    expected = [text_of(plain_loop(model, prompt, limit)) for prompt, limit in zip(PROMPTS, limits, strict=True)]
    assert generate(model, max_new_tokens=limits) == expected


def test_context_length_ends_the_text():
    model = model_of("gpt2")
    prompt = (PROMPTS[3] * 20)[:252]
    assert generate(model, [prompt]) == [text_of(plain_loop(model, prompt, limit=4))]


@pytest.mark.parametrize("prompt", [[], [2] * 256])
def test_prompt_without_room_is_refused(prompt: list[int]):
    with pytest.raises(InputError, match="prompt 1: has"):
        generate(model_of("gpt2"), [[2, 3], prompt])


def test_training_mode_is_kept_and_progress_adds_up():
    model = model_of("llama").train()
    counts: list[int] = []
    generate(model, batch_size=3, progress=counts.append)
    assert model.training
    assert counts == [3, 1]
