"""With many random factors, the product of the LoRA factors' variances is the outer product of the marginals.

For A with independent entries of variance sigma^2, E[Var(G A^T)_ik] = sigma^2 sum_j Var(G_ij), and likewise for B. So
what `vila` can know of a weight matrix is its row and column sums, which `marginals` takes exactly.
"""

import pytest
import torch

from tests.importance.reference import batch_of, examples
from tests.tiny import build_tiny_model
from unlora.importance import estimate_importance
from unlora.importance.importance_map import FactoredImportance, MarginalImportance

MODULE = "model.layers.0.mlp.up_proj"
PROBE_STD = 0.3
DRAWS = 12


def relative_error(rank: int) -> float:
    """Root mean square over draws of the relative Frobenius error of V_B V_A / (r sigma^4) as rows x columns."""
    model, batch = build_tiny_model("llama"), batch_of(examples())
    marginals = estimate_importance(model, [batch], None, preset="marginal", target_modules=[MODULE])[MODULE].forget
    assert isinstance(marginals, MarginalImportance)
    wanted = torch.outer(marginals.rows, marginals.columns)
    errors = []
    for seed in range(DRAWS):
        record = estimate_importance(
            model, [batch], None, preset="vila", target_modules=[MODULE], rank=rank, probe_std=PROBE_STD, seed=seed
        )[MODULE].forget
        assert isinstance(record, FactoredImportance)
        found = record.lora_b @ record.lora_a / (rank * PROBE_STD**4)
        errors.append(float((found - wanted).norm() / wanted.norm()) ** 2)
    return (sum(errors) / DRAWS) ** 0.5


def test_error_falls_like_one_over_the_root_of_the_number_of_factors():
    errors = {rank: relative_error(rank) for rank in (4, 64, 1024)}
    assert errors[1024] < 0.1
    # Sixteen times the factors, a quarter of the error; 12 draws know a root mean square to about 20 %.
    assert errors[4] / errors[64] == pytest.approx(4, rel=0.4)
    assert errors[64] / errors[1024] == pytest.approx(4, rel=0.4)
