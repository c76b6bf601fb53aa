"""Metrics from log-probabilities of answers. Every log-probability here is a mean over an answer's tokens, in nats.

Arrays have one entry an example; NaN in, NaN out: an example that cannot be scored stays visible.
Source: Maini et al. 2024, TOFU (arXiv 2401.06121).
"""

from typing import Literal

import numpy as np
from jaxtyping import Float
from scipy.special import logsumexp, softmax

ExampleValues = Float[np.ndarray, " example"]
WrongAnswers = Float[np.ndarray, "example wrong"]


def answer_probability(mean_log_prob: ExampleValues) -> ExampleValues:
    """Return p(answer | question)^(1/tokens), in [0, 1]. Unlearned: low on the forget set, high elsewhere."""
    return np.exp(mean_log_prob)


def normalised_probability(correct_log_prob: ExampleValues, wrong_log_probs: WrongAnswers) -> ExampleValues:
    """Probability of the right answer among the right and the wrong ones, p / (p + sum_j p_j), in [0, 1]. High is good.

    TOFU's probability on real authors and world facts. NaN where there is no wrong answer to compare with.
    """
    if wrong_log_probs.shape[1] == 0:
        return np.full_like(correct_log_prob, np.nan)
    return softmax(np.column_stack([correct_log_prob, wrong_log_probs]), axis=1)[:, 0]


def truth_ratio(
    correct_log_prob: ExampleValues, wrong_log_probs: WrongAnswers, *, aggregation: Literal["geometric", "arithmetic"]
) -> ExampleValues:
    """R = (mean probability of the wrong answers) / (probability of the paraphrased right answer), >= 0.

    0: the right answer stands out; 1: it does not; above 1: the wrong ones are likelier. Two-sided on the forget
    set (see `forget_quality`), low is good elsewhere.

    Args:
        correct_log_prob: of the paraphrased answer.
        wrong_log_probs: of the perturbed answers.
        aggregation: "arithmetic" mean of probabilities (the paper's definition) or "geometric", the exponential of
            the mean log-probability (TOFU's stand-alone aggregator, open-unlearning). They move model utility by up
            to 0.04: never compare one with the other.

    Returns:
        R of each example; NaN where there is no wrong answer.
    """
    count = wrong_log_probs.shape[1]
    if count == 0:
        return np.full_like(correct_log_prob, np.nan)
    if aggregation == "geometric":
        log_wrong = wrong_log_probs.mean(axis=1)
    else:
        log_wrong = logsumexp(wrong_log_probs, axis=1) - np.log(count)
    return np.exp(log_wrong - correct_log_prob)


def truth_ratio_forget_score(ratio: ExampleValues) -> ExampleValues:
    """Return min(R, 1/R), in [0, 1]: 1 when right and wrong are equally likely. High is good on the forget set."""
    with np.errstate(divide="ignore"):
        return np.minimum(ratio, 1 / ratio)


def truth_ratio_retain_score(ratio: ExampleValues) -> ExampleValues:
    """Return max(0, 1 - R), in [0, 1]: 1 when only the right answer is likely. High is good off the forget set."""
    return np.maximum(0, 1 - ratio)


def truth_ratio_share(ratio: ExampleValues) -> ExampleValues:
    """Return 1 / (1 + R), in [0, 1]: p_right / (p_right + p_wrong). Low is good on the forget set, high elsewhere.

    The third published form, `prob_mean` in OpenUnlearning, which rates its metrics with it. R is the geometric
    `truth_ratio`: p_wrong is the geometric mean over the wrong answers, unlike in `normalised_probability`, which adds
    them. 1/2: right and wrong are equally likely; 1: only the right answer is likely. Never give it to `forget_quality`
    on one side and R on the other: it falls where R rises, so the test would compare two scales.
    Source: OpenUnlearning (arXiv 2506.12618), whose code adds 1e-10 to the denominator.
    """
    return 1 / (1 + ratio)
