"""Membership attacks: can one tell from a model's scores which texts it was trained on?

Every score is higher for a text that looks more like a member; published code often has the opposite sign.
Log-probabilities are those of a text's tokens, in nats; a text without any scores NaN.
"""

import zlib

import numpy as np
from jaxtyping import Float
from scipy.stats import rankdata

from unlora.errors import InputError

TokenLogProbs = Float[np.ndarray, " token"]
MemberScores = Float[np.ndarray, " member"]
NonmemberScores = Float[np.ndarray, " nonmember"]

_LOWEST_STD = 1e-3


def loss_score(token_log_probs: TokenLogProbs) -> float:
    """Return the mean log-probability, <= 0. High: like a member.

    Source: Yeom et al. 2018 (arXiv 1709.01604), whose score is the loss, the negative of this.
    """
    return float(token_log_probs.mean()) if token_log_probs.size else float("nan")


def zlib_score(token_log_probs: TokenLogProbs, text: str) -> float:
    """Mean log-probability for each byte of the zlib-compressed UTF-8 text, <= 0. High: like a member.

    A text that compresses badly is hard for reasons other than membership; the division allows for that.
    Source: Carlini et al. 2021 (arXiv 2012.07805), section 5.2.
    """
    return loss_score(token_log_probs) / len(zlib.compress(text.encode()))


def min_k_score(token_log_probs: TokenLogProbs, fraction: float = 0.4, *, minimum_tokens: int = 1) -> float:
    """Min-K%: the mean of the floor(fraction * T) lowest log-probabilities, <= 0. High: like a member.

    Args:
        token_log_probs: of T tokens.
        fraction: K / 100; MUSE takes 0.4, OpenUnlearning 0.2 unless told otherwise.
        minimum_tokens: taken when the floor is lower. With 0 a text too short for one token is NaN, as in MUSE.

    Source: Shi et al. 2023 (arXiv 2310.16789); MUSE (arXiv 2407.06460) reports its negative.

    Raises:
        InputError: fraction outside (0, 1].
    """
    return _mean_of_lowest(token_log_probs, fraction, minimum_tokens)


def min_k_plus_plus_score(
    token_log_probs: TokenLogProbs,
    vocabulary_means: TokenLogProbs,
    vocabulary_stds: TokenLogProbs,
    fraction: float = 0.4,
) -> float:
    """Min-K%++: Min-K% of log-probabilities standardised at each position. High: like a member; no fixed range.

    Args:
        token_log_probs: of the text's tokens.
        vocabulary_means: of log p(v) over the vocabulary, weighted by p(v), at the same positions: minus the entropy.
        vocabulary_stds: its standard deviations; at least 1e-3 is taken (variance 1e-6, as in OpenUnlearning), since
            a position the model is sure of would divide by zero.
        fraction: as in `min_k_score`; at least one token is taken.

    Source: Zhang et al. 2024 (arXiv 2404.02936).

    Raises:
        InputError: fraction outside (0, 1].
    """
    standardised = (token_log_probs - vocabulary_means) / np.maximum(vocabulary_stds, _LOWEST_STD)
    return _mean_of_lowest(standardised, fraction, minimum_tokens=1)


def reference_score(
    token_log_probs: TokenLogProbs, reference_token_log_probs: Float[np.ndarray, " reference_token"]
) -> float:
    """Mean log-probability minus that of a model that never saw the text. High: like a member; either sign.

    The reference may cut the text into other tokens.
    Source: Carlini et al. 2021 (arXiv 2012.07805), section 5.2.
    """
    return loss_score(token_log_probs) - loss_score(reference_token_log_probs)


def gradient_norm_score(norm: float) -> float:
    """Minus the norm of the loss's gradient on the text, <= 0: a member pulls little. High: like a member.

    Source: Wang et al. 2024 (arXiv 2402.17012).
    """
    return -norm


def membership_auc(member_scores: MemberScores, nonmember_scores: NonmemberScores) -> float:
    """P(a member scores above a non-member) plus half the ties, in [0, 1]: the area under the ROC curve.

    0.5: no signal; 1: members stand out. Far below 0.5 is not success: the forgotten texts stand out by being
    unlikelier than new ones (over-forgetting). The aim is the AUC of the retain-only model.

    Raises:
        InputError: no score on a side, or NaN among them (`membership_test` leaves them out and counts them).
    """
    _check_scores("membership_auc", member_scores, nonmember_scores)
    return float(auc_of(member_scores, nonmember_scores))


def true_positive_rate(
    member_scores: MemberScores, nonmember_scores: NonmemberScores, *, false_positive_rate: float = 0.01
) -> float:
    """Largest share of members above a threshold with at most so many non-members at or above it, in [0, 1].

    High: some members are given away with near certainty, which an AUC near 0.5 can hide. Members that tie with the
    first non-member too many count as not found. With fewer than 1 / false_positive_rate non-members (100 for 1 %)
    no false positive is allowed at all.
    Source: Carlini et al. 2022 (arXiv 2112.03570).

    Raises:
        InputError: as in `membership_auc`, or a rate outside [0, 1].
    """
    _check_scores("true_positive_rate", member_scores, nonmember_scores)
    if not 0 <= false_positive_rate <= 1:
        raise InputError(f"true_positive_rate: false_positive_rate must be in [0, 1], found {false_positive_rate}.")
    return float(true_positive_rate_of(member_scores, nonmember_scores, false_positive_rate=false_positive_rate))


def privacy_leakage(unlearned_auc: float, retain_only_auc: float) -> float:
    """MUSE's PrivLeak in per cent, from two conventional AUCs a: 100 * ((1 - a_unl) - (1 - a_ret)) / (1 - a_ret).

    0: as private as the retain-only model. An untouched target (a_unl near 1) is near -100, the lowest value; above 0
    is over-forgetting, up to 100 * a_ret / (1 - a_ret). MUSE's own AUC is 1 - a, hence the form.
    Source: Shi et al. 2024, MUSE (arXiv 2407.06460), with Min-40 % scores.

    Returns:
        Per cent; NaN when an AUC is NaN, and when the retain-only AUC is 1 (nothing to compare with: the two sets
        differ by more than membership).

    Raises:
        InputError: an AUC outside [0, 1], such as one in per cent.
    """
    for name, auc in (("unlearned_auc", unlearned_auc), ("retain_only_auc", retain_only_auc)):
        if auc < 0 or auc > 1:
            raise InputError(f"privacy_leakage: {name} must be an AUC in [0, 1], found {auc}.")
    if retain_only_auc == 1:
        return float("nan")
    return 100 * (retain_only_auc - unlearned_auc) / (1 - retain_only_auc)


def auc_of(
    member_scores: Float[np.ndarray, "*resample member"], nonmember_scores: Float[np.ndarray, "*resample nonmember"]
) -> Float[np.ndarray, "*resample"]:
    """Return `membership_auc` along the last axis, unchecked: the Mann-Whitney statistic over all pairs."""
    member_count, nonmember_count = member_scores.shape[-1], nonmember_scores.shape[-1]
    ranks = rankdata(np.concatenate([member_scores, nonmember_scores], axis=-1), axis=-1)
    rank_sum = ranks[..., :member_count].sum(axis=-1)
    return np.asarray((rank_sum - member_count * (member_count + 1) / 2) / (member_count * nonmember_count))


def true_positive_rate_of(
    member_scores: Float[np.ndarray, "*resample member"],
    nonmember_scores: Float[np.ndarray, "*resample nonmember"],
    *,
    false_positive_rate: float = 0.01,
) -> Float[np.ndarray, "*resample"]:
    """Return `true_positive_rate` along the last axis, unchecked."""
    count = nonmember_scores.shape[-1]
    allowed = np.flatnonzero(np.arange(count + 1) / count <= false_positive_rate)[-1]
    if allowed == count:
        return np.ones(member_scores.shape[:-1])
    place = count - 1 - allowed
    first_too_many = np.partition(nonmember_scores, place, axis=-1)[..., place]
    return np.asarray((member_scores > first_too_many[..., None]).mean(axis=-1))


def _mean_of_lowest(values: TokenLogProbs, fraction: float, minimum_tokens: int) -> float:
    if not 0 < fraction <= 1:
        raise InputError(f"min-k: fraction must lie in (0, 1] (such as 0.4), found {fraction}.")
    count = max(minimum_tokens, int(fraction * values.size))
    return loss_score(np.sort(values)[:count])


def _check_scores(place: str, member_scores: np.ndarray, nonmember_scores: np.ndarray) -> None:
    for name, scores in (("member_scores", member_scores), ("nonmember_scores", nonmember_scores)):
        if scores.size == 0 or np.isnan(scores).any():
            raise InputError(f"{place}: {name} must hold at least one number and no NaN; leave unscored examples out.")
