"""How probable a model finds given completions, token by token (teacher forcing)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import PreTrainedModel

from unlora.errors import InputError
from unlora.models.batches import batches_by_length, pad_batch
from unlora.models.forward import takes_logits_to_keep
from unlora.models.wrapping import CausalModel, evaluating, unwrap


@dataclass(frozen=True, eq=False)
class CompletionScore:
    """What the model says about one completion, given everything before each of its tokens."""

    token_log_probs: Float[numpy.ndarray, " completion_token"]
    """Natural logarithm of each token's probability, float64."""
    argmax_match: Bool[numpy.ndarray, " completion_token"]
    """Whether the token is the one the model finds most probable at its place."""

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
    sequences: Sequence[tuple[Sequence[int], int]],
    *,
    pad_token_id: int,
    batch_size: int = 16,
    progress: Callable[[int], None] | None = None,
) -> list[CompletionScore]:
    """Score the completion of every sequence; the model is left in the mode it was in.

    Args:
        model: Plain or with an adapter.
        sequences: Pairs (input_ids, prompt_length). Tokens from prompt_length on are the completion; the very first
            token of a sequence follows nothing and is never scored.
        pad_token_id: Any token: padding is masked out.
        batch_size: Sequences in one forward pass; results do not depend on it beyond floating-point rounding.
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
        for batch in batches_by_length([len(input_ids) for input_ids, _ in sequences], batch_size):
            scores.update(zip(batch, _score_batch(plain, [sequences[i] for i in batch], pad_token_id), strict=True))
            if progress is not None:
                progress(len(batch))
    return [scores[index] for index in range(len(sequences))]


def _score_batch(
    model: PreTrainedModel, sequences: Sequence[tuple[Sequence[int], int]], pad_token_id: int
) -> list[CompletionScore]:
    token_ids = [input_ids for input_ids, _ in sequences]
    input_ids, attention_mask = pad_batch(token_ids, pad_token_id=pad_token_id, side="right", device=model.device)
    # The logits at position t predict token t + 1; those before the shortest prompt's last token are never needed.
    first = min(max(prompt_length, 1) for _, prompt_length in sequences) - 1
    kept = input_ids.shape[1] - first
    options = {"logits_to_keep": kept} if takes_logits_to_keep(model) else {}
    logits = model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False, **options).logits[:, -kept:]
    scores: list[CompletionScore] = []
    for row, (tokens, prompt_length) in enumerate(sequences):
        start, end = max(prompt_length, 1), len(tokens)
        scores.append(_score_tokens(logits[row, start - 1 - first : end - 1 - first], input_ids[row, start:end]))
    return scores


def _score_tokens(
    logits: Float[Tensor, "completion_token vocab"], tokens: Int[Tensor, " completion_token"]
) -> CompletionScore:
    # One sequence at a time in float32: a whole batch of full-vocabulary log-probabilities would dominate memory.
    log_probs = logits.float().log_softmax(dim=-1)
    chosen = log_probs.gather(1, tokens[:, None])[:, 0]
    return CompletionScore(chosen.cpu().double().numpy(), (logits.argmax(dim=-1) == tokens).cpu().numpy())
