"""The training stream: every forget example once an epoch, each beside a retain example."""

from collections.abc import Sequence
from typing import TypedDict

import numpy
from torch.utils.data import Dataset

from unlora.data.tokenise import TokenisedExample
from unlora.errors import InputError


class ForgetRetainPair(TypedDict):
    """One item of the stream."""

    forget: TokenisedExample
    forget_index: int
    """Position in the forget set (for reference log-probabilities computed once)."""
    retain: TokenisedExample | None
    refusal: TokenisedExample | None
    """The forget example's prompt answered with a refusal."""


class ForgetRetainPairs(Dataset[ForgetRetainPair]):
    """All epochs as one map-style dataset of `epochs * len(forget)` pairs, to be read in order.

    Each epoch is a fresh permutation of the forget set. Retain examples are drawn without replacement through the
    *whole run*, not the epoch, and shuffled again when they are used up. Everything follows from (epochs, seed), so a
    resumed run sees the same pairs.
    """

    def __init__(
        self,
        forget: Sequence[TokenisedExample],
        retain: Sequence[TokenisedExample] | None,
        *,
        refusals: Sequence[TokenisedExample] | None = None,
        epochs: int,
        seed: int,
    ) -> None:
        """Draw the order of the whole run.

        Args:
            forget: what is to be forgotten.
            retain: what is to be kept, if anything.
            refusals: each forget example answered with a refusal, in the same order, for terms that read them.
            epochs: passes over the forget set.
            seed: of the order.

        Raises:
            InputError: an empty set, another number of refusals than of forget examples, or less than one epoch.
        """
        if not forget:
            raise InputError("the forget set is empty; give at least one example.")
        if retain is not None and not retain:
            raise InputError("the retain set is empty; give at least one example, or none at all and no retain term.")
        if epochs < 1:
            raise InputError(f"epochs: must be at least 1 (found {epochs}).")
        if refusals is not None and len(refusals) != len(forget):
            raise InputError(f"{len(refusals)} refusals for {len(forget)} forget examples: give one for each.")
        self.forget = forget
        self.retain = retain
        self.refusals = refusals
        length = epochs * len(forget)
        self.longest = max(len(example.input_ids) for example in (*forget, *(retain or ()), *(refusals or ())))
        """Tokens of the longest example."""
        self._forget_order = _draw(len(forget), length, seed, stream=0)
        self._retain_order = _draw(len(retain), length, seed, stream=1) if retain else []

    def __len__(self) -> int:
        return len(self._forget_order)

    def __getitem__(self, index: int) -> ForgetRetainPair:
        forget_index = self._forget_order[index]
        retain = self.retain[self._retain_order[index]] if self.retain else None
        return {
            "forget": self.forget[forget_index],
            "forget_index": forget_index,
            "retain": retain,
            "refusal": self.refusals[forget_index] if self.refusals is not None else None,
        }


class ShuffledEpochs(Dataset[TokenisedExample]):
    """Ordinary fine-tuning: all epochs of one set, each a fresh seeded permutation, to be read in order."""

    def __init__(self, examples: Sequence[TokenisedExample], *, epochs: int, seed: int) -> None:
        self._examples = examples
        self._order = _draw(len(examples), epochs * len(examples), seed, stream=0)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> TokenisedExample:
        return self._examples[self._order[index]]


def _draw(count: int, length: int, seed: int, *, stream: int) -> list[int]:
    """Return `length` indices below `count`: one random permutation after another, the last one cut."""
    random = numpy.random.default_rng([seed, stream])
    rounds = -(-length // count)
    return numpy.concatenate([random.permutation(count) for _ in range(rounds)])[:length].tolist()
