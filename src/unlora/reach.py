"""What of a model an adapter reaches, and what it leaves out and why. No torch here."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

SHOWN_NAMES = 4
"""Names in a sentence; the record has all."""


@dataclass(frozen=True)
class LeftOut:
    """Weights of one kind that get no adapter."""

    name: str
    """What follows the number of the block, such as "mlp.experts.gate_up_proj"."""
    why: str
    count: int
    """Tensors."""
    weights: int
    """Numbers in them."""


@dataclass(frozen=True)
class Reach:
    """The weights of a model (its matrices and larger tensors, without embedding and head) and those with an adapter.

    "Embedding" is the one that reads the tokens; position embeddings count.
    """

    layers: int
    """Linear layers with an adapter."""
    weights: int
    """Numbers in their matrices, and in those of the experts."""
    whole: int
    """Numbers in all such tensors."""
    left_out: tuple[LeftOut, ...]
    """The largest first; its numbers and `weights` add up to `whole`."""
    notes: tuple[str, ...] = ()
    """What else decides whether the adapter is felt."""
    experts: int = 0
    """Matrices of experts with an adapter, apart from the linear layers."""

    @property
    def share(self) -> float:
        """Of the weights that get an adapter."""
        return self.weights / self.whole

    def noting(self, *notes: str) -> "Reach":
        """Return it with further notes."""
        return replace(self, notes=(*self.notes, *notes))

    def to_json(self) -> dict[str, Any]:
        """For record.json; shares are of all weights."""
        return {
            "share": self.share,
            "layers": self.layers,
            "experts": self.experts,
            "weights": self.weights,
            "weights_in_all": self.whole,
            "left_out": [
                {
                    "name": one.name,
                    "why": one.why,
                    "tensors": one.count,
                    "weights": one.weights,
                    "share": one.weights / self.whole,
                }
                for one in self.left_out
            ],
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Reach":
        """Read what `to_json` wrote."""
        left_out = tuple(LeftOut(one["name"], one["why"], one["tensors"], one["weights"]) for one in record["left_out"])
        notes, experts = tuple(record["notes"]), record.get("experts", 0)
        return cls(record["layers"], record["weights"], record["weights_in_all"], left_out, notes, experts)

    def sentence(self) -> str:
        """Say it: the share, then what is left out, reason by reason."""
        text = (
            f"The adapter reaches {percent(self.share)} of the weights (embedding and head not counted), in "
            f"{self.layers} linear layers{f' and {self.experts} matrices of experts' if self.experts else ''}"
        )
        by_reason: dict[str, list[LeftOut]] = {}
        for one in self.left_out:
            by_reason.setdefault(one.why, []).append(one)
        sizes = {why: sum(one.weights for one in kind) for why, kind in by_reason.items()}
        told = [
            f"{percent(sizes[why] / self.whole)} {why} ({_names(by_reason[why])})"
            for why in sorted(sizes, key=lambda why: sizes[why], reverse=True)
        ]
        text += f"; left out: {'; '.join(told)}." if told else "."
        return " ".join([text, *self.notes])


def percent(share: float) -> str:
    """A share in words that never calls a part the whole, or something nothing."""
    if share in (0, 1):
        return f"{share:.0%}".replace("%", " %")
    if share < 0.001:
        return "under 0.1 %"
    if share < 0.01 or share > 0.99:
        return f"{math.floor(1000 * share) / 10:.1f} %"
    return f"{100 * share:.0f} %"


def _names(kind: list[LeftOut]) -> str:
    names = [one.name for one in kind]
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")
