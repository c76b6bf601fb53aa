"""When does the variance correction pay? Forget sets at a known distance from the retain set, learnt and never seen.

VILA takes the variance of the gradient where FILA takes the second moment, because the mean is not zero on a set that
the model was not trained on. How large is the mean, what does it do to a map, and does unlearning notice? The forget
set of a small world, whose people are exchangeable with those of the retain set, is replaced share by share with other
text, which the target has learnt as well or never saw.

The squared mean of n gradients is about 1/n of their second moment even where the true mean is zero. So its unbiased
estimate is reported beside it: the mean of g_i . g_j over i != j, over the mean of g_i . g_i.
"""

from unlora_research.shift.study import STUDY

__all__ = ["STUDY"]
