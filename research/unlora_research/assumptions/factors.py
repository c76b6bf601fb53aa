"""Random factors, of mean zero and variance one, from several distributions."""

import hashlib
import math
from collections.abc import Mapping
from typing import NamedTuple

import torch

from unlora.shapes import LoraA, LoraB

DISTRIBUTIONS: dict[str, str] = {
    "gaussian": "Gaussian",
    "rademacher": "Rademacher",
    "uniform": "uniform",
    "student_t5": "Student t, 5 degrees",
    "student_t3": "Student t, 3 degrees",
    "orthogonal": "orthogonal",
    "correlated_entries": "correlated along a column",
    "correlated_columns": "correlated between columns",
}
CORRELATION = 0.9


class Factors(NamedTuple):
    """Both factors of one layer."""

    lora_a: LoraA
    lora_b: LoraB

    def scaled(self, sigma: float) -> "Factors":
        """The same with a standard deviation of `sigma`."""
        return Factors(sigma * self.lora_a, sigma * self.lora_b)


def draw_factors(
    shapes: Mapping[str, tuple[int, int]], distribution: str, rank: int, *, seed: int, draw: int
) -> dict[str, Factors]:
    """Both factors of every layer; a layer's depend on its name and not on the other layers.

    Args:
        shapes: layer -> (d_out, d_in).
        distribution: a name of `DISTRIBUTIONS`.
        rank: columns of a factor.
        seed: of all draws.
        draw: which of them.
    """
    found = {}
    for name, (d_out, d_in) in shapes.items():
        digest = hashlib.sha256(f"{distribution}/{name}/{(seed, draw)}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
        lora_a = draw_factor(distribution, d_in, rank, generator)
        found[name] = Factors(lora_a, draw_factor(distribution, d_out, rank, generator).T)
    return found


def draw_factor(distribution: str, width: int, rank: int, generator: torch.Generator) -> LoraA:
    """A factor with `rank` columns of `width` entries, as (rank, width), mean zero and variance one."""
    normal = torch.randn(rank, width, generator=generator)
    match distribution:
        case "gaussian":
            return normal
        case "rademacher":
            return torch.where(normal < 0, -1.0, 1.0)
        case "uniform":
            return (2 * torch.rand(rank, width, generator=generator) - 1) * math.sqrt(3)
        case "student_t5" | "student_t3":
            degrees = int(distribution[-1])
            chi2 = torch.randn(degrees, rank, width, generator=generator).square().sum(dim=0)
            return normal * (degrees / chi2).sqrt() * math.sqrt((degrees - 2) / degrees)
        case "orthogonal":
            return torch.linalg.qr(normal.T).Q.T * math.sqrt(width)
        case "correlated_entries":
            places = torch.arange(width)
            covariance = CORRELATION ** (places[:, None] - places).abs().double()
            return normal @ torch.linalg.cholesky(covariance).float().T
        case "correlated_columns":
            shared = torch.randn(1, width, generator=generator)
            return math.sqrt(CORRELATION) * shared + math.sqrt(1 - CORRELATION) * normal
        case _:
            raise ValueError(f"distribution {distribution}")
