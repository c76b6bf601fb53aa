"""Starts to compare `selective` with: as wide, as long and as frozen, in directions that nothing chose."""

import torch
from jaxtyping import Float
from torch import Tensor

from unlora.low_rank.minor import SecondMoment
from unlora.starts.selective import Selective


class RandomDirections(Selective):
    """Directions drawn at random, the same for all layers of one width."""

    kind: str = "unlora_research.control_starts:RandomDirections"

    def directions(self, forget: SecondMoment, retain: SecondMoment | None, *, rank: int) -> Float[Tensor, "d_in rank"]:
        """Q of a Gaussian matrix: uniform among the subspaces of this rank."""
        drawn = torch.randn(len(forget), rank, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        return torch.linalg.qr(drawn).Q
