"""What the model predicted for the tokens that are scored, shifted and masked once and for every loss."""

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from torch import Tensor

from unlora.errors import InputError
from unlora.shapes import Logits, PerExample, TokenIds, TokenMask

NOT_SCORED = -100
"""Label of a token that is not scored (prompt, padding), as in Hugging Face."""


@dataclass(frozen=True)
class Predictions:
    """What was predicted for the scored tokens of a batch, and where these stand.

    Positions labelled -100 are never read: neither their logits nor how many there are can change a loss or a gradient.

    Raises:
        InputError: an example has no scored token; its mean would be 0/0 and would poison the batch.
    """

    scored_logits: Float[Tensor, "scored vocab"]
    """Scores before the softmax from which each scored token is predicted, in reading order, in any floating dtype."""
    labels: TokenIds
    """Token that stands at each position; -100 where nothing is scored."""

    def __post_init__(self) -> None:
        unscored = (self.token_counts == 0).nonzero().flatten().tolist()
        if unscored:
            raise InputError(f"Example {unscored[0]} of the batch has no scored token: give it a completion.")

    @classmethod
    def from_model_output(cls, logits: Logits, labels: Int[Tensor, "batch label_token"]) -> "Predictions":
        """Shift a causal language model's output by one position.

        `logits[:, t]` predicts the token at t + 1: the first label has no prediction and the last logits are not used.

        Args:
            logits: of the last `token` positions of the sequence, or of all of them.
            labels: of the whole sequence, unshifted, -100 where nothing is scored.

        Raises:
            InputError: more logits than labels, a scored label before the logits start, or an example without any.
        """
        first = labels.shape[1] - logits.shape[1]
        if first < 0:
            raise InputError(
                f"{logits.shape[1]} logits for {labels.shape[1]} labels: pass the labels of the whole sequence."
            )
        if first > 0 and (labels[:, : first + 1] != NOT_SCORED).any():
            raise InputError(
                f"A label is scored before position {first + 1}, where the logits start: keep more logits."
            )
        labels = labels[:, first + 1 :]
        return cls(logits[:, :-1][labels != NOT_SCORED], labels)

    @classmethod
    def from_scored(
        cls, logits: Float[Tensor, "scored vocab"], labels: Int[Tensor, "batch label_token"]
    ) -> "Predictions":
        """Of a forward pass that gave the logits of the scored tokens alone; `labels` are the whole sequence's."""
        return cls(logits, labels[:, 1:])

    @property
    def mask(self) -> TokenMask:
        """True where a token is scored."""
        return self.labels != NOT_SCORED

    @property
    def token_counts(self) -> Int[Tensor, " batch"]:
        """Scored tokens of each example."""
        return self.mask.sum(dim=1)

    def scored_labels(self) -> Int[Tensor, " scored"]:
        """Labels of the scored tokens of all examples, in reading order."""
        return self.labels[self.mask]

    def scored_log_softmax(self) -> Float[Tensor, "scored vocab"]:
        """Log-probabilities of the whole vocabulary at the scored positions, in float32 or better; computed once."""
        return self._log_softmax

    @cached_property
    def _log_softmax(self) -> Float[Tensor, "scored vocab"]:
        dtype = torch.promote_types(self.scored_logits.dtype, torch.float32)
        # Whoever asks first may want no gradient (what is seen of a step); the loss that asks next does.
        with torch.enable_grad():
            return self.scored_logits.log_softmax(dim=-1, dtype=dtype)

    def per_token(self, values: Float[Tensor, " scored"]) -> Float[Tensor, "batch token"]:
        """Put one value a scored token back in its place; 0 where nothing is scored."""
        return values.new_zeros(self.labels.shape).masked_scatter(self.mask, values)

    def mean_over_tokens(self, values: Float[Tensor, " scored"]) -> PerExample:
        """Mean over each example's own scored tokens, so that long examples do not outweigh short ones."""
        return self.per_token(values).sum(dim=1) / self.token_counts

    def token_log_probs(self) -> Float[Tensor, "batch token"]:
        """Return log p(label) of each token, natural logarithm; 0 where nothing is scored."""
        return self.per_token(self.scored_log_probs())

    def sequence_log_probs(self) -> PerExample:
        """Return log p(completion | prompt): the sum over scored tokens."""
        return self.token_log_probs().sum(dim=1)

    def mean_log_probs(self) -> PerExample:
        """Mean of log p(label) over scored tokens: minus the negative log-likelihood per token."""
        return self.mean_over_tokens(self.scored_log_probs())

    def mean_cross_entropy(self, target: Float[Tensor, "scored vocab"]) -> PerExample:
        """Mean over scored tokens of -sum_v target(v) log p(v), in nats; a token that both rule out counts 0."""
        log_probs = self.scored_log_softmax().masked_fill(target == 0, 0.0)
        return -self.mean_over_tokens((target * log_probs).sum(dim=-1))

    def scored_log_probs(self) -> Float[Tensor, " scored"]:
        """Return log p(label) of the scored tokens of all examples, in reading order."""
        return self.scored_log_softmax().gather(-1, self.scored_labels()[:, None])[:, 0]
