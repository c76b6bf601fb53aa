"""Continuations of prompts, greedy or sampled, in batches."""

import itertools
import sys
from collections.abc import Callable, Collection, Sequence

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TopPLogitsWarper

from unlora.errors import InputError
from unlora.models.batches import longest_first, pad_batch
from unlora.models.forward import Reader
from unlora.models.wrapping import CausalModel, evaluating, unwrap

Choose = Callable[[Float[Tensor, "row vocab"], Sequence[int], int], Int[Tensor, " row"]]
"""Next token of each row, from float32 logits, the numbers of the rows, and how many tokens they have written."""


def generate_greedy(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    pad_token_id: int,
    max_new_tokens: int | Sequence[int],
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[str]:
    """Continue every prompt with the most probable token until an end token; the model keeps the mode it was in.

    Nothing of the checkpoint's own generation settings applies (sampling, repetition penalty) but its end tokens,
    which for chat models are more than the tokenizer's one.

    Args:
        model: Plain or with an adapter.
        prompts: Token ids, none empty.
        tokenizer: Turns the new tokens into text, without special tokens.
        pad_token_id: Any token: padding (on the left) is masked out.
        max_new_tokens: One limit for all prompts or one for each; the model's context length is a limit too.
        batch_size: Prompts generated together; a large batch is faster, as long as memory holds the keys and values of
            all its tokens.
        progress: Called after each batch with the number of prompts it held.

    Returns:
        The new text of each prompt, in the order given.

    Raises:
        InputError: a prompt that is empty or leaves no room in the model's context.
    """

    def choose(logits: Tensor, _rows: Sequence[int], _step: int) -> Tensor:
        return logits.argmax(dim=-1)

    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    limits = _within_context(model, prompts, limits)
    return _generate(model, prompts, limits, choose, tokenizer, pad_token_id, batch_size, progress)


def generate_samples(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    *,
    tokenizer: PreTrainedTokenizerBase,
    pad_token_id: int,
    max_new_tokens: int,
    samples: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[list[str]]:
    """Continue every prompt several times with tokens drawn at random.

    As `generate_greedy`, nothing of the checkpoint's generation settings applies but its end tokens: temperature 1
    with top_p 1 draws from the model's own distribution. Each sample has random numbers of its own, which depend on
    the seed, the place of the prompt and the number of the sample: neither on its batch mates nor on any global
    generator, which is left alone.

    Args:
        model: Plain or with an adapter.
        prompts: Token ids, none empty.
        tokenizer: Turns the new tokens into text, without special tokens.
        pad_token_id: Any token: padding (on the left) is masked out.
        max_new_tokens: Limit for each sample; the model's context length is a limit too.
        samples: Samples of each prompt.
        temperature: Divides the logits.
        top_p: Only the most probable tokens that together reach this probability are drawn (nucleus sampling,
            arXiv 1904.09751).
        seed: The same seed gives the same texts.
        batch_size: Samples generated together, as in `generate_greedy`.
        progress: Called after each batch with the number of samples it held.

    Returns:
        The samples of each prompt, in the order given.

    Raises:
        InputError: a prompt that is empty or leaves no room in the model's context, no sample asked for, a
            temperature that is not positive, or a top_p outside (0, 1].
    """
    _check_sampling(samples, temperature, top_p)
    limits = _within_context(model, prompts, [max_new_tokens] * len(prompts))

    def choose(logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        keys = [[seed, *divmod(row, samples), step] for row in rows]
        uniforms = torch.tensor([numpy.random.default_rng(key).random() for key in keys], dtype=torch.float64)
        return _draw(logits / temperature, top_p, uniforms.to(logits.device))

    texts = _generate(
        model,
        [prompt for prompt in prompts for _ in range(samples)],
        [limit for limit in limits for _ in range(samples)],
        choose,
        tokenizer,
        pad_token_id,
        batch_size,
        progress,
    )
    return [texts[at : at + samples] for at in range(0, len(texts), samples)]


def _check_sampling(samples: int, temperature: float, top_p: float) -> None:
    if samples < 1:
        raise InputError(f"samples: must be at least 1 (found {samples}).")
    if not 0 < temperature < float("inf"):
        raise InputError(f"temperature: must be positive (found {temperature}); for the likeliest token use greedy.")
    if not 0 < top_p <= 1:
        raise InputError(f"top_p: must be above 0 and at most 1 (found {top_p}).")


def _draw(scores: Float[Tensor, "row vocab"], top_p: float, uniforms: Float[Tensor, " row"]) -> Int[Tensor, " row"]:
    """Invert the cumulative distribution at `uniforms`, numbers in [0, 1)."""
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)  # pyright: ignore[reportArgumentType]  ids are not looked at
    cumulative = scores.double().softmax(dim=-1).cumsum(dim=-1)
    drawn = torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return drawn.clamp(max=scores.shape[-1] - 1)


def _within_context(model: CausalModel, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> list[int]:
    """Lower each prompt's limit to the room that it leaves in the model's context."""
    context = getattr(unwrap(model).config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
    for number, prompt in enumerate(prompts):
        if not 0 < len(prompt) < context:
            raise InputError(
                f"prompt {number}: has {len(prompt)} tokens; must have at least 1 and less than {context}."
            )
    return [min(limit, context - len(prompt)) for prompt, limit in zip(prompts, limits, strict=True)]


def _generate(
    model: CausalModel,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    choose: Choose,
    tokenizer: PreTrainedTokenizerBase,
    pad_token_id: int,
    batch_size: int,
    progress: Callable[[int], None] | None,
) -> list[str]:
    plain = unwrap(model)
    end_tokens = _end_tokens(plain, tokenizer)
    texts: dict[int, str] = {}
    with evaluating(plain), torch.no_grad():
        for batch in longest_first([len(prompt) for prompt in prompts], batch_size):
            reader, logits = _read_prompts(plain, [prompts[row] for row in batch], pad_token_id)
            written = _write(reader, logits, {row: limits[row] for row in batch}, choose, end_tokens)
            for row, tokens in written.items():
                texts[row] = str(tokenizer.decode(tokens, skip_special_tokens=True))
            if progress is not None:
                progress(len(batch))
    return [texts[row] for row in range(len(prompts))]


def _read_prompts(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], pad_token_id: int
) -> tuple[Reader, Float[Tensor, "row vocab"]]:
    """Read prompts, equal ones once, and return a reader with a row for each and the logits that follow it."""
    places = {prompt: place for place, prompt in enumerate(dict.fromkeys(map(tuple, prompts)))}
    input_ids, attention_mask = pad_batch(list(places), pad_token_id=pad_token_id, side="left", device=model.device)
    reader = Reader(model)
    logits = reader.read(input_ids, attention_mask, keep=1, more=True)[:, -1]
    rows = [places[tuple(prompt)] for prompt in prompts]
    reader.select(rows)
    return reader, logits[rows]


def _write(
    reader: Reader,
    logits: Float[Tensor, "row vocab"],
    limits: dict[int, int],
    choose: Choose,
    end_tokens: Collection[int],
) -> dict[int, list[int]]:
    """Write on every row until an end token, which is left out, or its limit.

    A row that is done leaves the batch, where `generate` pads it until the last one is done: on tofu-mini, whose
    answers have 10 to 68 tokens, SmolLM2 on two cores takes 57 s instead of 63 in batches of 16 and 32 instead of 44
    in batches of 64.
    """
    written: dict[int, list[int]] = {row: [] for row in limits}
    rows = list(limits)
    for step in itertools.count():
        tokens = choose(logits.float(), rows, step)
        going: list[int] = []
        for place, (row, token) in enumerate(zip(rows, tokens.tolist(), strict=True)):
            if step < limits[row] and token not in end_tokens:
                written[row].append(token)
                if step + 1 < limits[row]:
                    going.append(place)
        if not going:
            break
        if len(going) < len(rows):
            reader.select(going)
            rows, tokens = [rows[place] for place in going], tokens[going]
        logits = reader.read(tokens[:, None], torch.ones_like(tokens[:, None]), keep=1, more=True)[:, -1]
    return written


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    checkpoint = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = checkpoint if isinstance(checkpoint, list) else [checkpoint]
    return {int(token) for token in [*listed, tokenizer.eos_token_id] if token is not None}
