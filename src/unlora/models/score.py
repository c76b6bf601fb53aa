"""How probable a model finds given completions, token by token (teacher forcing)."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from unlora.errors import InputError
from unlora.models.batches import longest_first, pad_batch
from unlora.models.forward import Reader, takes_past
from unlora.models.wrapping import CausalModel, evaluating, unwrap

Sequences = Sequence[tuple[Sequence[int], int]]

TOKENS_AT_ONCE = 64
"""Positions whose whole vocabulary is held in float32 together: bounds the memory (25 MB for 100 000 entries)."""


@dataclass(frozen=True, eq=False)
class CompletionScore:
    """What the model says about one completion, given everything before each of its tokens."""

    token_log_probs: Float[numpy.ndarray, " completion_token"]
    """Natural logarithm of each token's probability, float64."""
    argmax_match: Bool[numpy.ndarray, " completion_token"]
    """Whether the token is the one the model finds most probable at its place."""
    vocabulary_means: Float[numpy.ndarray, " completion_token"] | None = None
    """Mean over the vocabulary of log p under p itself (minus the entropy) at each place, in nats; None unless asked.

    With `vocabulary_stds` it standardises log-probabilities in Min-K%++ (arXiv 2404.02936).
    """
    vocabulary_stds: Float[numpy.ndarray, " completion_token"] | None = None
    """Standard deviation over the vocabulary of log p under p itself at each place, in nats; None unless asked."""

    @property
    def mean_log_prob(self) -> float:
        """Mean of the token log-probabilities, in nats a token."""
        return float(self.token_log_probs.mean())

    @property
    def probability(self) -> float:
        """Geometric mean of the token probabilities, P(y|x)^(1/|y|) of TOFU (arXiv 2401.06121, section 2.2)."""
        return math.exp(self.mean_log_prob)


def score_completions(
    model: CausalModel,
    sequences: Sequences,
    *,
    pad_token_id: int,
    batch_size: int = 16,
    vocabulary_moments: bool = False,
    progress: Callable[[int], None] | None = None,
) -> list[CompletionScore]:
    """Score the completion of every sequence; the model is left in the mode it was in.

    Args:
        model: Plain or with an adapter.
        sequences: Pairs (input_ids, prompt_length). Tokens from prompt_length on are the completion; the very first
            token of a sequence follows nothing and is never scored.
        pad_token_id: Any token: padding is masked out.
        batch_size: Sequences in one forward pass; results do not depend on it beyond floating-point rounding.
        vocabulary_moments: Whether to fill `vocabulary_means` and `vocabulary_stds` too.
        progress: Called after each batch with the number of sequences it held.

    Returns:
        One score per sequence, in the order given.

    Raises:
        InputError: a sequence without a completion token to score.
    """
    for number, (input_ids, prompt_length) in enumerate(sequences):
        if len(input_ids) <= max(prompt_length, 1):
            raise InputError(f"sequence {number}: has no completion token to score.")
    plain = unwrap(model)
    scores: dict[int, CompletionScore] = {}
    with evaluating(plain), torch.no_grad():
        for batch in _batches(sequences, batch_size, share=takes_past(plain)):
            for index, logits, tokens in _read(plain, sequences, batch, pad_token_id):
                scores[index] = _score_tokens(logits, tokens, vocabulary_moments)
            if progress is not None:
                progress(sum(len(group.members) for group in batch))
    return [scores[index] for index in range(len(sequences))]


class _Group(NamedTuple):
    """Sequences with one beginning, which is read once for all of them."""

    shared: tuple[int, ...]
    """The prompt but for its last token, which predicts the first one of the completion; empty for those alone."""
    members: list[int]


def _batches(sequences: Sequences, batch_size: int, *, share: bool) -> list[list[_Group]]:
    # TOFU gives seven answers to each question, and prompts are a third of all tokens: read once, tofu-mini takes
    # SmolLM2 99 s instead of 115 on two cores. What answers have in common beyond the prompt is read for each.
    by_prompt: defaultdict[tuple[int, ...], list[int]] = defaultdict(list)
    for index, (input_ids, prompt_length) in enumerate(sequences):
        by_prompt[tuple(input_ids[: max(prompt_length - 1, 0)])].append(index)
    alone: list[_Group] = []
    together: list[_Group] = []
    for shared, members in by_prompt.items():
        if not share or not shared or len(members) == 1:
            alone += [_Group((), [index]) for index in members]
        else:
            parts = (members[at : at + batch_size] for at in range(0, len(members), batch_size))
            together += [_Group(shared, part) for part in parts]

    def batches(groups: list[_Group]) -> list[list[_Group]]:
        lengths = [max(len(sequences[index][0]) for index in group.members) - len(group.shared) for group in groups]
        sizes = [len(group.members) for group in groups]
        return [[groups[i] for i in batch] for batch in longest_first(lengths, batch_size, sizes=sizes)]

    return [*batches(alone), *batches(together)]


def _read(
    model: PreTrainedModel, sequences: Sequences, batch: Sequence[_Group], pad_token_id: int
) -> Iterator[tuple[int, Float[Tensor, "completion_token vocab"], Int[Tensor, " completion_token"]]]:
    """Yield each sequence's number, the logits that predict its completion, and the completion."""
    reader = Reader(model)
    if batch[0].shared:
        prompts = pad_batch(
            [group.shared for group in batch], pad_token_id=pad_token_id, side="left", device=model.device
        )
        reader.read(*prompts, keep=1, more=True)
        reader.select([place for place, group in enumerate(batch) for _ in group.members])
    rows = [(index, len(group.shared)) for group in batch for index in group.members]
    unread = [sequences[index][0][begin:] for index, begin in rows]
    input_ids, attention_mask = pad_batch(unread, pad_token_id=pad_token_id, side="right", device=model.device)
    # The logits at position t predict token t + 1; those before the shortest prompt's last token are never needed.
    starts = [max(sequences[index][1], 1) - begin for index, begin in rows]
    first = min(starts) - 1
    logits = reader.read(input_ids, attention_mask, keep=input_ids.shape[1] - first, more=False)
    for row, (index, _) in enumerate(rows):
        start, end = starts[row], len(unread[row])
        yield index, logits[row, start - 1 - first : end - 1 - first], input_ids[row, start:end]


def _score_tokens(
    logits: Float[Tensor, "completion_token vocab"], tokens: Int[Tensor, " completion_token"], moments: bool
) -> CompletionScore:
    # A few tokens at a time in float32: a whole batch of full-vocabulary log-probabilities would dominate memory.
    parts = zip(logits.split(TOKENS_AT_ONCE), tokens.split(TOKENS_AT_ONCE), strict=True)
    columns = zip(*(_score_part(logits.float(), tokens, moments) for logits, tokens in parts), strict=True)
    chosen, match, *moment_columns = (torch.cat(column).cpu() for column in columns)
    return CompletionScore(
        chosen.double().numpy(), match.numpy(), *(column.double().numpy() for column in moment_columns)
    )


def _score_part(
    logits: Float[Tensor, "token vocab"], tokens: Int[Tensor, " token"], moments: bool
) -> tuple[Float[Tensor, " token"] | Bool[Tensor, " token"], ...]:
    # Not log_softmax: on a CPU its sum loses what is small beside the most likely token, and gives a token that is
    # nearly certain a loss that is a sixteenth or an eighth too small (findings/torch-log-softmax-tail.sh).
    total = logits.logsumexp(dim=-1)
    chosen = logits.gather(1, tokens[:, None])[:, 0] - total
    match = logits.argmax(dim=-1) == tokens
    if not moments:
        return chosen, match
    log_probs = logits - total[:, None]
    probs = log_probs.exp()
    log_probs.masked_fill_(probs == 0, 0.0)  # Entries that a model rules out (-inf) have no part in the mean.
    mean = (probs * log_probs).sum(dim=-1, keepdim=True)
    variance = (probs * (log_probs - mean).square_()).sum(dim=-1)
    return chosen, match, mean[:, 0], variance.sqrt()
