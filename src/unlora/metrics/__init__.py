"""Numbers about a model's answers, as functions of plain arrays. No torch, no Hugging Face."""

from unlora.metrics.aggregate import MODEL_UTILITY_PARTS, harmonic_mean, model_utility
from unlora.metrics.distribution import KSResult, forget_quality
from unlora.metrics.intervals import Interval, mean_interval, proportion_interval
from unlora.metrics.likelihood import (
    answer_probability,
    normalised_probability,
    truth_ratio,
    truth_ratio_forget_score,
    truth_ratio_retain_score,
)
from unlora.metrics.overlap import exact_memorisation, extraction_strength, rouge_l_f1, rouge_l_recall

__all__ = [
    "MODEL_UTILITY_PARTS",
    "Interval",
    "KSResult",
    "answer_probability",
    "exact_memorisation",
    "extraction_strength",
    "forget_quality",
    "harmonic_mean",
    "mean_interval",
    "model_utility",
    "normalised_probability",
    "proportion_interval",
    "rouge_l_f1",
    "rouge_l_recall",
    "truth_ratio",
    "truth_ratio_forget_score",
    "truth_ratio_retain_score",
]
