"""What comes out when a model is asked often: greedy decoding shows one answer, a user who samples sees many."""

import numpy as np
from jaxtyping import Float
from scipy.special import gammaln, softmax
from scipy.stats import binomtest

from unlora.errors import InputError


def expected_maximum(scores: Float[np.ndarray, "example sample"], k: int) -> Float[np.ndarray, " example"]:
    """leak@k: the expected maximum of a leakage score over k answers. In the scores' unit; low is good.

    The mean of the maximum over all subsets of k among the n samples, hence unbiased for any n >= k. Sorted, the i-th
    smallest score is the maximum of C(i-1, k-1) of the C(n, k) subsets:

        E = sum_{i=k}^{n} C(i-1, k-1) / C(n, k) * score_(i)

    k = 1 is the mean and k = n the maximum. It grows with k: compare equal k, temperature and top-p only.
    Source: Leak@k (arXiv 2511.04934); for scores of 0 and 1 it is pass@k of Chen et al. 2021 (arXiv 2107.03374).

    Args:
        scores: of independently sampled answers, higher is leakier, such as `rouge_l_recall` on the forget set.
        k: answers a user draws.

    Returns:
        One number an example; NaN for an example with a NaN among its samples.

    Raises:
        InputError: k is below 1 or above the number of samples.
    """
    sample_count = scores.shape[1]
    if not 1 <= k <= sample_count:
        raise InputError(f"expected_maximum: k must be between 1 and the {sample_count} samples drawn, found {k}.")
    rank = np.arange(k, sample_count + 1)
    weights = softmax(gammaln(rank) - gammaln(rank - k + 1))  # C(i-1, k-1), without overflow, scaled to sum to 1
    return np.sort(scores, axis=1)[:, k - 1 :] @ weights  # NaN sorts last, inside the slice


def leak_probability_bound(leak_count: int, sample_count: int, *, confidence: float = 0.95) -> float:
    """Upper bound of the probability that one sampled answer leaks, in [0, 1]. Low is good.

    One-sided Clopper-Pearson: the true probability lies below it in at least `confidence` of all repetitions, whatever
    the model. No leak in n samples still leaves 1 - (1 - confidence)^(1/n), about 3/n.
    Source: Scholten et al. 2024 (arXiv 2410.03523).

    Args:
        leak_count: sampled answers that leak.
        sample_count: all answers, drawn independently from the same prompt or from prompts drawn at random.
        confidence: such as 0.95.

    Raises:
        InputError: no sample, leaks outside 0..sample_count, or confidence outside (0, 1).
    """
    if sample_count < 1 or not 0 <= leak_count <= sample_count:
        raise InputError(
            f"leak_probability_bound: {leak_count} leaks in {sample_count} samples; needs 0 <= leaks <= samples, "
            f"samples >= 1."
        )
    if not 0 < confidence < 1:
        raise InputError(f"leak_probability_bound: confidence must lie between 0 and 1, found {confidence}.")
    test = binomtest(leak_count, sample_count, alternative="less")
    return float(test.proportion_ci(confidence_level=confidence, method="exact").high)
