"""Numbers about a model's answers, as functions of plain arrays. No torch, no Hugging Face."""

from unlora.metrics.aggregate import MODEL_UTILITY_PARTS, harmonic_mean, model_utility
from unlora.metrics.distribution import FEWEST_QUESTIONS, KSResult, forget_quality
from unlora.metrics.fluency import REFUSALS, distinct_n, is_refusal, longest_repeat_share
from unlora.metrics.intervals import Interval, mean_interval, proportion_interval
from unlora.metrics.leakage import expected_maximum, leak_probability_bound
from unlora.metrics.likelihood import (
    answer_probability,
    normalised_probability,
    truth_ratio,
    truth_ratio_forget_score,
    truth_ratio_retain_score,
    truth_ratio_share,
)
from unlora.metrics.membership import (
    gradient_norm_score,
    loss_score,
    membership_auc,
    min_k_plus_plus_score,
    min_k_score,
    privacy_leakage,
    reference_score,
    true_positive_rate,
    zlib_score,
)
from unlora.metrics.membership_verdict import (
    DifferenceResult,
    MembershipResult,
    membership_difference,
    membership_test,
)
from unlora.metrics.overlap import (
    exact_memorisation,
    extraction_strength,
    rouge_l_f1,
    rouge_l_recall,
    rouge_l_recall_ascii,
)
from unlora.metrics.robustness import quantisation_robustness, recovery_ratio, relearning_robustness

__all__ = [
    "FEWEST_QUESTIONS",
    "MODEL_UTILITY_PARTS",
    "REFUSALS",
    "DifferenceResult",
    "Interval",
    "KSResult",
    "MembershipResult",
    "answer_probability",
    "distinct_n",
    "exact_memorisation",
    "expected_maximum",
    "extraction_strength",
    "forget_quality",
    "gradient_norm_score",
    "harmonic_mean",
    "is_refusal",
    "leak_probability_bound",
    "longest_repeat_share",
    "loss_score",
    "mean_interval",
    "membership_auc",
    "membership_difference",
    "membership_test",
    "min_k_plus_plus_score",
    "min_k_score",
    "model_utility",
    "normalised_probability",
    "privacy_leakage",
    "proportion_interval",
    "quantisation_robustness",
    "recovery_ratio",
    "reference_score",
    "relearning_robustness",
    "rouge_l_f1",
    "rouge_l_recall",
    "rouge_l_recall_ascii",
    "true_positive_rate",
    "truth_ratio",
    "truth_ratio_forget_score",
    "truth_ratio_retain_score",
    "truth_ratio_share",
    "zlib_score",
]
