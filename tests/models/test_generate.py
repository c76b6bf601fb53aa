"""Generation against a plain loop that recomputes everything for every token, and samples against the softmax."""

import collections
from typing import Any

import numpy
import pytest
import scipy.stats
import torch
from transformers import GenerationConfig, PreTrainedModel

from tests.tiny import ARCHITECTURES, Architecture, build_tiny_model, build_tiny_tokenizer
from unlora.errors import InputError
from unlora.models.generate import Drawing, Writer, generate_greedy, generate_samples

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


def generate(
    model: PreTrainedModel,
    prompts: list[list[int]] = PROMPTS,
    max_new_tokens: int | list[int] = NEW_TOKENS,
    **options: Any,
) -> list[str]:
    """Options are the writer's."""
    writer = Writer(model, **({"tokenizer": TOKENIZER, "pad_token_id": 1} | options))
    return generate_greedy(writer, prompts, max_new_tokens)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_text_equals_a_plain_loop_at_every_batch_size(arch: Architecture, batch_size: int):
    model = model_of(arch)
    assert generate(model, batch_size=batch_size) == [text_of(plain_loop(model, prompt)) for prompt in PROMPTS]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("known", [[0, 3, 8, 1], [8, 8, 8, 9]])
def test_a_text_whose_beginning_is_known_is_the_same(arch: Architecture, known: list[int]):
    """Of none, some and all of its tokens, and of more than its limit asks for."""
    model = model_of(arch)
    whole = [plain_loop(model, prompt, 9) for prompt in PROMPTS]
    begun = [tokens[:count] for tokens, count in zip(whole, known, strict=True)]
    writer = Writer(model, TOKENIZER, 1, batch_size=2)
    assert generate_greedy(writer, PROMPTS, NEW_TOKENS, begun) == generate(model)


def test_what_is_known_is_not_read_where_it_ends_the_text_and_once_where_it_does_not():
    model = model_of("llama")
    tokens = plain_loop(model, PROMPTS[1])
    end = tokens[3]
    model.generation_config = GenerationConfig(eos_token_id=[end, 0])
    known = [tokens[: tokens.index(end) + 1], plain_loop(model, PROMPTS[2])]
    expected, rows, told = generate(model), [], []
    model.model.layers[0].register_forward_pre_hook(lambda _module, inputs: rows.append(tuple(inputs[0].shape[:2])))
    writer = Writer(model, TOKENIZER, 1, progress=told.append)
    assert generate_greedy(writer, PROMPTS[1:3], NEW_TOKENS, known) == expected[1:3]
    assert (rows, told) == ([], [2])
    assert generate_greedy(writer, [PROMPTS[1]], NEW_TOKENS, [tokens[:1]]) == [expected[1]]
    assert rows == [(1, len(PROMPTS[1]) + 1)] + [(1, 1)] * (tokens.index(end) - 1)


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


def test_full_context_ends_no_other_text():
    model = model_of("gpt2")
    full, short = (PROMPTS[3] * 20)[:252], PROMPTS[0]
    assert generate(model, [full, short]) == [
        text_of(plain_loop(model, full, limit=4)),
        text_of(plain_loop(model, short)),
    ]


def test_finished_text_costs_nothing_more():
    model = model_of("llama")
    rows: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda _module, inputs: rows.append(inputs[0].shape[0]))
    generate(model, max_new_tokens=[2, 7, 1, 5])
    assert rows == [4, 3, 2, 2, 2, 1, 1]


@pytest.mark.parametrize("prompt", [[], [2] * 256])
def test_prompt_without_room_is_refused(prompt: list[int]):
    with pytest.raises(InputError, match="prompt 1: has"):
        generate(model_of("gpt2"), [[2, 3], prompt])


def test_training_mode_is_kept():
    model = model_of("llama").train()
    generate(model)
    assert model.training


@pytest.mark.parametrize(
    ("free", "counts"),
    [
        (0, [3, 3, 2]),  # never fewer than the batch size
        (5, [5, 3]),
        (10**6, [8]),
    ],
)
def test_as_many_texts_are_written_together_as_free_memory_has_room_for(
    monkeypatch: pytest.MonkeyPatch, free: int, counts: list[int]
):
    """`free` is in texts that a quarter of it holds: keys and values of all their tokens, in every layer."""
    model = model_of("llama")
    longest = max(map(len, PROMPTS)) + NEW_TOKENS
    config = model.config
    heads = config.num_key_value_heads * config.head_dim
    a_text = 2 * 4 * config.num_hidden_layers * heads * longest
    monkeypatch.setattr("unlora.models.generate.free_memory", lambda _device: 4 * a_text * free + 1)
    seen: list[int] = []
    texts = generate(model, PROMPTS * 2, batch_size=3, progress=seen.append)
    assert seen == counts
    assert texts == [text_of(plain_loop(model, prompt)) for prompt in PROMPTS] * 2


def test_what_reads_its_rows_again_from_their_start_is_not_given_more_of_them(monkeypatch: pytest.MonkeyPatch):
    model = model_of("llama")
    monkeypatch.setattr("unlora.models.forward._can_continue", lambda _cache, _count: False)
    seen: list[int] = []
    generate(model, PROMPTS * 2, batch_size=3, progress=seen.append)
    assert seen == [3, 3, 2]


def sample(
    model: PreTrainedModel, prompts: list[list[int]] = PROMPTS, max_new_tokens: int = NEW_TOKENS, **options: Any
) -> list[list[str]]:
    """Options are the writer's and the drawing's."""
    batches = {key: options.pop(key) for key in ("batch_size", "progress") if key in options}
    drawing = Drawing(**({"samples": 3, "seed": 0} | options))
    return generate_samples(Writer(model, TOKENIZER, 1, **batches), prompts, drawing, max_new_tokens)


@torch.no_grad()
def next_token_probs(model: PreTrainedModel, prompt: list[int], temperature: float = 1.0) -> numpy.ndarray:
    logits = model(input_ids=torch.tensor([prompt])).logits[0, -1].double()
    return (logits / temperature).softmax(0).numpy()


def first_texts(model: PreTrainedModel, prompt: list[int], **options: object) -> collections.Counter[str]:
    """How often each text of one token was drawn."""
    (texts,) = sample(model, [prompt], max_new_tokens=1, samples=4000, batch_size=500, **options)
    return collections.Counter(texts)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_first_tokens_are_drawn_with_the_probabilities_of_the_model(temperature: float):
    model = model_of("llama")
    model.generation_config = GenerationConfig(do_sample=True, temperature=9.0, top_k=1, top_p=0.1)
    counts = first_texts(model, PROMPTS[1], temperature=temperature)
    expected: collections.Counter[str] = collections.Counter()
    for token, probability in enumerate(next_token_probs(model, PROMPTS[1], temperature)):
        expected[text_of([token])] += 4000 * probability
    common = [text for text, count in expected.items() if count >= 5]
    assert len(common) > 20
    observed = [counts[text] for text in common]
    usual = [expected[text] for text in common]
    rest = (4000 - sum(observed), 4000 - sum(usual))
    assert scipy.stats.chisquare([*observed, rest[0]], [*usual, rest[1]]).pvalue > 0.001


def test_top_p_draws_from_the_nucleus_only():
    model = model_of("llama")
    probs = next_token_probs(model, PROMPTS[1])
    order = numpy.argsort(-probs)
    size = int(numpy.searchsorted(probs[order].cumsum(), 0.5)) + 1
    assert set(first_texts(model, PROMPTS[1], top_p=0.5)) == {text_of([token]) for token in order[:size]}


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_samples_depend_on_the_seed_and_on_nothing_else(arch: Architecture):
    model = model_of(arch)
    state = torch.get_rng_state()
    first = sample(model, batch_size=16)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert sample(model, batch_size=1) == first
    assert sample(model, batch_size=5) == first
    assert sample(model, seed=1) != first
    assert len({text for texts in first for text in texts}) == 12


def test_low_temperature_is_greedy():
    model = model_of("phi")
    assert sample(model, temperature=1e-4) == [[text] * 3 for text in generate(model)]


def test_samples_of_a_prompt_read_it_once_and_progress_adds_up():
    model = model_of("llama")
    rows: list[int] = []
    counts: list[int] = []
    model.model.layers[0].register_forward_pre_hook(lambda _module, inputs: rows.append(inputs[0].shape[0]))
    sample(model, PROMPTS[:1], samples=6, batch_size=4, max_new_tokens=2, progress=counts.append)
    assert rows == [1, 1, 6]  # the first finds out how much of it memory has room for
    assert counts == [6]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"samples": 0}, "samples: must be at least 1"),
        ({"temperature": 0.0}, "temperature: must be positive"),
        ({"temperature": float("nan")}, "temperature: must be positive"),
        ({"top_p": 0.0}, "top_p: must be above 0"),
        ({"top_p": 1.5}, "top_p: must be above 0"),
    ],
)
def test_impossible_sampling_is_refused(setting: dict[str, float], message: str):
    with pytest.raises(InputError, match=message):
        sample(model_of("llama"), **setting)
