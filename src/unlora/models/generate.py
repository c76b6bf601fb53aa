"""Greedy continuations of prompts, in batches."""

import itertools
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from unlora.errors import InputError
from unlora.models.batches import batches_by_length, pad_batch
from unlora.models.wrapping import CausalModel, evaluating, unwrap


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
        batch_size: Prompts generated together.
        progress: Called after each batch with the number of prompts it held.

    Returns:
        The new text of each prompt, in the order given.

    Raises:
        InputError: a prompt that is empty or leaves no room in the model's context.
    """
    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
    plain = unwrap(model)
    room = _room(plain, prompts)
    end_tokens = _end_tokens(plain, tokenizer)
    texts: dict[int, str] = {}
    with evaluating(plain), _blank_generation_config(plain), torch.no_grad():
        for batch in batches_by_length([len(prompt) for prompt in prompts], batch_size):
            # Rows of a batch stop together at the latest, so the fullest context limits all of them.
            length = min(max(limits[index] for index in batch), *(room[index] for index in batch))
            settings = GenerationConfig(
                do_sample=False, max_new_tokens=length, eos_token_id=end_tokens, pad_token_id=pad_token_id
            )
            new_tokens = _continue(plain, [prompts[index] for index in batch], settings)
            for index, tokens in zip(batch, new_tokens, strict=True):
                answer = _until_end(tokens[: limits[index]], end_tokens)
                texts[index] = str(tokenizer.decode(answer, skip_special_tokens=True))
            if progress is not None:
                progress(len(batch))
    return [texts[index] for index in range(len(prompts))]


def _room(model: PreTrainedModel, prompts: Sequence[Sequence[int]]) -> list[int]:
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or sys.maxsize
    for number, prompt in enumerate(prompts):
        if not 0 < len(prompt) < context:
            raise InputError(
                f"prompt {number}: has {len(prompt)} tokens; must have at least 1 and less than {context}."
            )
    return [context - len(prompt) for prompt in prompts]


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    checkpoint = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = checkpoint if isinstance(checkpoint, list) else [checkpoint]
    return sorted({int(token) for token in [*listed, tokenizer.eos_token_id] if token is not None})


@contextmanager
def _blank_generation_config(model: PreTrainedModel) -> Iterator[None]:
    # `generate` fills every unset option from the model's own configuration, so an explicit one is not enough.
    own = model.generation_config
    model.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = own


def _continue(model: PreTrainedModel, prompts: Sequence[Sequence[int]], settings: GenerationConfig) -> list[list[int]]:
    pad_token_id = settings.pad_token_id
    input_ids, attention_mask = pad_batch(prompts, pad_token_id=pad_token_id, side="left", device=model.device)
    output = model.generate(  # pyright: ignore[reportCallIssue]  added to every causal model by a mixin
        input_ids, attention_mask=attention_mask, generation_config=settings
    )
    return output[:, input_ids.shape[1] :].tolist()


def _until_end(tokens: Sequence[int], end_tokens: Sequence[int]) -> list[int]:
    return list(itertools.takewhile(lambda token: token not in end_tokens, tokens))
