"""How wrong is Theorem 1 of VILA, Var[dW] ~ Var[B] Var[A], and does it matter which layers get an adapter?

The gradient of a layer's weight is G = D^T X for every example; those of random LoRA factors are dB = G A^T and
dA = B^T G. Over independent factors of unit variance, r columns each, the product of their variances is r R C^T in
expectation, with R and C the row and column sums of Var[G] (docs/studies/assumptions.md). So its error has two parts:
what a product of marginals cannot say, at any rank, and the sampling of the factors, which a higher rank averages out.
"""

from unlora_research.assumptions.study import STUDY

__all__ = ["STUDY"]
