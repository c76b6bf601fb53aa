"""Continuations of prompts, greedy or sampled, in batches."""

import itertools
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TopPLogitsWarper

from unlora.errors import InputError
from unlora.models.batches import longest_first, pad_batch
from unlora.models.context import context_length
from unlora.models.forward import Reader
from unlora.models.wrapping import CausalModel, evaluating, unwrap
from unlora.runtime import free_memory

AT_ONCE = 64
"""Texts that are written together where memory has room for the keys and values of all their tokens."""
SHARE_OF_FREE_MEMORY = 0.25
"""That these may take."""

Choose = Callable[[Float[Tensor, "row vocab"], Sequence[int], int], Int[Tensor, " row"]]
"""Next token of each row, from float32 logits, the numbers of the rows, and how many tokens they have written."""


@dataclass(frozen=True)
class Writer:
    """A model that writes: in which tokens, and how much at a time."""

    model: CausalModel
    """Plain or with an adapter; it keeps the mode it was in."""
    tokenizer: PreTrainedTokenizerBase
    """Turns the new tokens into text, without special tokens."""
    pad_token_id: int
    """Any token: padding (on the left) is masked out."""
    batch_size: int = 16
    """Texts written together, at least; up to `AT_ONCE`, which are faster, where memory has room for what they need."""
    progress: Callable[[int], None] | None = None
    """Called after each batch with the number of texts in it."""


@dataclass(frozen=True)
class Drawing:
    """How tokens are drawn at random.

    Raises:
        InputError: no sample asked for, a temperature that is not positive, or a top_p outside (0, 1].
    """

    samples: int
    """Of each prompt."""
    seed: int
    """The same seed gives the same texts."""
    temperature: float = 1.0
    """Divides the logits."""
    top_p: float = 1.0
    """Only the most probable tokens that together reach this probability are drawn (nucleus, arXiv 1904.09751)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be drawn."""
        if self.samples < 1:
            raise InputError(f"samples: must be at least 1 (found {self.samples}).")
        if not 0 < self.temperature < float("inf"):
            raise InputError(
                f"temperature: must be positive (found {self.temperature}); for the likeliest token use greedy."
            )
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p: must be above 0 and at most 1 (found {self.top_p}).")


def generate_greedy(
    writer: Writer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int],
    begun: Sequence[Sequence[int]] | None = None,
) -> list[str]:
    """Continue every prompt with the most probable token until an end token.

    Nothing of the checkpoint's own generation settings applies (sampling, repetition penalty) but its end tokens,
    which for chat models are more than the tokenizer's one.

    Args:
        writer: Who writes.
        prompts: Token ids, none empty.
        max_new_tokens: One limit for all prompts or one for each; the model's context length is a limit too.
        begun: How each text is known to begin, in tokens: each was the most probable one after all before it when the
            model was asked (`unlora.models.score`). These are not written again, and what they end is not read at all.

    Returns:
        The new text of each prompt, in the order given.

    Raises:
        InputError: a prompt that is empty or leaves no room in the model's context.
    """

    def choose(logits: Tensor, _rows: Sequence[int], _step: int) -> Tensor:
        return logits.argmax(dim=-1)

    limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
    return _generate(writer, prompts, _within_context(writer.model, prompts, limits), choose, begun)


def generate_samples(
    writer: Writer, prompts: Sequence[Sequence[int]], drawing: Drawing, max_new_tokens: int
) -> list[list[str]]:
    """Continue every prompt several times with tokens drawn at random.

    As `generate_greedy`, nothing of the checkpoint's generation settings applies but its end tokens: temperature 1
    with top_p 1 draws from the model's own distribution. Each sample has random numbers of its own, which depend on
    the seed, the place of the prompt and the number of the sample: neither on its batch mates nor on any global
    generator, which is left alone.

    Args:
        writer: Who writes.
        prompts: Token ids, none empty.
        drawing: How many samples, and how their tokens are drawn.
        max_new_tokens: Limit for each sample; the model's context length is a limit too.

    Returns:
        The samples of each prompt, in the order given.

    Raises:
        InputError: a prompt that is empty or leaves no room in the model's context.
    """
    samples = drawing.samples
    limits = _within_context(writer.model, prompts, [max_new_tokens] * len(prompts))

    def choose(logits: Tensor, rows: Sequence[int], step: int) -> Tensor:
        keys = [[drawing.seed, *divmod(row, samples), step] for row in rows]
        uniforms = torch.tensor([numpy.random.default_rng(key).random() for key in keys], dtype=torch.float64)
        return _draw(logits / drawing.temperature, drawing.top_p, uniforms.to(logits.device))

    texts = _generate(
        writer,
        [prompt for prompt in prompts for _ in range(samples)],
        [limit for limit in limits for _ in range(samples)],
        choose,
    )
    return [texts[at : at + samples] for at in range(0, len(texts), samples)]


def _draw(scores: Float[Tensor, "row vocab"], top_p: float, uniforms: Float[Tensor, " row"]) -> Int[Tensor, " row"]:
    """Invert the cumulative distribution at `uniforms`, numbers in [0, 1)."""
    if top_p < 1:
        scores = TopPLogitsWarper(top_p)(None, scores)  # pyright: ignore[reportArgumentType]  ids are not looked at
    cumulative = scores.double().softmax(dim=-1).cumsum(dim=-1)
    drawn = torch.searchsorted(cumulative, uniforms[:, None] * cumulative[:, -1:], right=True)[:, 0]
    return drawn.clamp(max=scores.shape[-1] - 1)


def _within_context(model: CausalModel, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> list[int]:
    """Lower each prompt's limit to the room that it leaves in the model's context."""
    context = context_length(unwrap(model).config) or sys.maxsize
    for number, prompt in enumerate(prompts):
        if not 0 < len(prompt) < context:
            raise InputError(
                f"prompt {number}: has {len(prompt)} tokens; must have at least 1 and less than {context}."
            )
    return [min(limit, context - len(prompt)) for prompt, limit in zip(prompts, limits, strict=True)]


def _generate(
    writer: Writer,
    prompts: Sequence[Sequence[int]],
    limits: Sequence[int],
    choose: Choose,
    begun: Sequence[Sequence[int]] | None = None,
) -> list[str]:
    plain = unwrap(writer.model)
    end_tokens = _end_tokens(plain, writer.tokenizer)
    written = [list(tokens[:limit]) for tokens, limit in zip(begun or [()] * len(prompts), limits, strict=True)]
    open_rows = []
    for row, tokens in enumerate(written):
        before_end = list(itertools.takewhile(lambda token: token not in end_tokens, tokens))
        if len(before_end) == len(tokens) < limits[row]:
            open_rows.append(row)
        written[row] = before_end
    if writer.progress is not None and len(open_rows) < len(prompts):
        writer.progress(len(prompts) - len(open_rows))
    with evaluating(plain), torch.no_grad():
        read = {row: [*prompts[row], *written[row]] for row in open_rows}
        left = {row: limits[row] - len(written[row]) for row in open_rows}
        rows_at_once = _rows_at_once(writer, list(read.values()), list(left.values()))
        for batch in longest_first([len(tokens) for tokens in read.values()], rows_at_once):
            rows = [open_rows[place] for place in batch]
            reader, logits = _read_prompts(plain, [read[row] for row in rows], writer.pad_token_id)
            for row, tokens in _write(reader, logits, {row: left[row] for row in rows}, choose, end_tokens).items():
                written[row] += tokens
            if writer.progress is not None:
                writer.progress(len(rows))
    return [str(writer.tokenizer.decode(tokens, skip_special_tokens=True)) for tokens in written]


def _rows_at_once(writer: Writer, prompts: Sequence[Sequence[int]], limits: Sequence[int]) -> int:
    """Find how many texts memory has room for; what the longest of them needs is seen by reading its prompt."""
    if len(prompts) <= writer.batch_size:
        return writer.batch_size
    plain = unwrap(writer.model)
    prompt, limit = max(zip(prompts, limits, strict=True), key=lambda one: len(one[0]) + one[1])
    reader, _ = _read_prompts(plain, [prompt], writer.pad_token_id)
    needed = reader.held() * (len(prompt) + limit) / len(prompt)
    if not needed:
        return writer.batch_size
    room = SHARE_OF_FREE_MEMORY * free_memory(plain.device) / needed
    return max(writer.batch_size, min(AT_ONCE, int(room)))


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
    in batches of 64 (`AT_ONCE`).
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


def writing(model: CausalModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    """What decides an answer's text beside weights and prompt: the tokens that end it, and those left out of it.

    Neither is in a model's fingerprint: generation_config.json and the tokenizer say it.
    """
    return {
        "ends": sorted(_end_tokens(unwrap(model), tokenizer)),
        "left_out": sorted(int(token) for token in tokenizer.all_special_ids),
    }


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> set[int]:
    checkpoint = model.generation_config.eos_token_id if model.generation_config is not None else None
    listed = checkpoint if isinstance(checkpoint, list) else [checkpoint]
    return {int(token) for token in [*listed, tokenizer.eos_token_id] if token is not None}
