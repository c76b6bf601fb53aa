"""Scores of a few tokens by every way in which unlora reads them, against the model's own forward pass."""

from collections.abc import Sequence
from typing import Any

import numpy
import torch
from torch import Tensor
from transformers import PreTrainedModel

from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.models.score import score_completions
from unlora.models.scored import scored_logits

LENGTH = 14


def score_difference(model: PreTrainedModel) -> float:
    """Completions of several lengths: one by one, in padded batches and as in training, against the model's forward."""
    rows = [(row.tolist()[: LENGTH - 2 * place], 3) for place, row in enumerate(some_text(4))]
    rows += [(rows[0][0][:3] + rows[1][0][:5], 3)]  # The prompt of the first, read once for both.
    alone = [score_completions(model, [row], pad_token_id=1)[0].token_log_probs for row in rows]
    together = [one.token_log_probs for one in score_completions(model, rows, pad_token_id=1, batch_size=5)]
    plain = [_own_scores(model, *row) for row in rows]
    pairs = [*zip((*alone, *together), (*plain, *plain), strict=True)]
    pairs += [(_training_scores(model, rows), numpy.concatenate(plain))]
    differences = [numpy.abs(one - own).max() for one, own in pairs]
    return float(max(differences))


@torch.no_grad()
def _own_scores(model: PreTrainedModel, ids: list[int], start: int) -> Any:
    """Log-probability of every token from `start` on, by one forward pass that is given the tokens and nothing else."""
    log_probs = model(input_ids=torch.tensor([ids])).logits[0, start - 1 : -1].float().log_softmax(-1)
    return log_probs.gather(1, torch.tensor(ids[start:])[:, None])[:, 0].numpy()


@torch.no_grad()
def _training_scores(model: PreTrainedModel, rows: Sequence[tuple[list[int], int]]) -> Any:
    """The same of all rows together, from the logits that a training step makes of them."""
    examples = [TokenisedExample(tuple(ids), start, False, "") for ids, start in rows]
    log_probs = scored_logits(model, collate(examples, 1)).float().log_softmax(-1)
    tokens = torch.tensor([token for ids, start in rows for token in ids[start:]])
    return log_probs.gather(1, tokens[:, None])[:, 0].numpy()


def some_text(rows: int) -> Tensor:
    """The same tokens every time, none of them padding or of an image."""
    generator = torch.Generator().manual_seed(2)
    return torch.randint(2, 300, (rows, LENGTH), generator=generator)
