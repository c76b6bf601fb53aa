"""Axis names used in every tensor annotation of the package.

    d_out, d_in   output and input width of a linear layer; a weight is (d_out, d_in) as in `nn.Linear`
    rank          columns of LoRA's B, rows of LoRA's A
    batch         examples in one forward pass
    token         positions of a padded sequence
    vocab         entries of the vocabulary

The annotations are executed as checks in the test run (jaxtyping with beartype) and cost nothing outside it.
"""

from jaxtyping import Bool, Float, Int
from torch import Tensor

Weight = Float[Tensor, "d_out d_in"]
LoraA = Float[Tensor, "rank d_in"]
LoraB = Float[Tensor, "d_out rank"]
Logits = Float[Tensor, "batch token vocab"]
TokenIds = Int[Tensor, "batch token"]
TokenMask = Bool[Tensor, "batch token"]
PerExample = Float[Tensor, "batch"]
