"""MUSE's metrics (Shi et al. 2024, arXiv 2407.06460, section 3) from the scores of each item.

Of its six criteria these are the four that one model is measured by; sustainability and scalability are these same
numbers after each of several requests (`recipes.sequence`). A metric that cannot be computed is there with value None
and says why.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from unlora.metrics import membership_auc, privacy_leakage
from unlora.results import Measurement, mean_measurement
from unlora.suites.muse.scores import AnswerScore, TextScore
from unlora.suites.scores import ModelScores

MuseScores = ModelScores[Any]
"""`AnswerScore`s and `TextScore`s."""

PUBLISHED_RETRAIN_AUC = {"news": 0.4772, "books": 0.5393}
"""Min-40% AUC of MUSE's own retrained 7B models, in MUSE's orientation: 1 - the conventional membership AUC."""
PUBLISHED_MODELS = {"news": "Llama-2-7B", "books": "ICLM-7B"}

UNITS = {
    "verbatim_memorisation": "ROUGE-L F1 x 100",
    "knowledge_memorisation_forget": "ROUGE-L F1 x 100",
    "knowledge_memorisation_retain": "ROUGE-L F1 x 100",
    "privacy_leakage": "per cent",
    "membership_auc_min_40": "probability; 0.5 = members and non-members cannot be told apart",
}


def measure_muse(scores: MuseScores, *, retain_only: MuseScores | None) -> dict[str, Measurement]:
    """Compute MUSE's metrics for one model.

    verbatim_memorisation (VerbMem): how far it continues the forget texts word for word, in [0, 100]; low is good.
    knowledge_memorisation_forget (KnowMem): how far it answers questions about them, in [0, 100]; low is good.
    knowledge_memorisation_retain (KnowMem): the same about the retain texts; high is good.
    membership_auc_min_40: probability that a forget text looks more like a member than a holdout text.
    privacy_leakage (PrivLeak): how far that is from the retain-only model's, in per cent; 0 is good, strongly negative
    is what an untouched target shows (it still knows its members), positive is over-forgetting.

    Args:
        scores: of the model.
        retain_only: of the model that never saw the forget texts; may be `scores` itself. None takes MUSE's published
            AUC of its own retrained models in its place, and says so.
    """
    auc = _measure_auc(scores)
    return {
        "verbatim_memorisation": _mean_rouge(scores.sets.get("verbatim", ()), higher_is_better=False),
        "knowledge_memorisation_forget": _mean_rouge(scores.sets.get("forget_questions", ()), higher_is_better=False),
        "knowledge_memorisation_retain": _mean_rouge(scores.sets.get("retain_questions", ()), higher_is_better=True),
        "privacy_leakage": _measure_leakage(scores, auc, retain_only),
        "membership_auc_min_40": auc,
    }


def _mean_rouge(items: Sequence[AnswerScore], *, higher_is_better: bool) -> Measurement:
    cut = sum(item.prompt_cut for item in items)
    note = f"{cut} of {len(items)} prompts lost their beginning to the model's context" if cut else ""
    return mean_measurement([100 * item.rouge_l_f1 for item in items], higher_is_better=higher_is_better, note=note)


def _measure_auc(scores: MuseScores) -> Measurement:
    texts = scores.sets.get("forget_texts", ()) + scores.sets.get("holdout_texts", ())
    members, nonmembers = _scored(scores.sets.get("forget_texts", ())), _scored(scores.sets.get("holdout_texts", ()))
    scored_count = members.size + nonmembers.size
    cut = sum(text.cut for text in texts)
    note = f"{cut} of {len(texts)} texts were cut to the model's context" if cut else ""
    value = None
    if members.size and nonmembers.size:
        value = membership_auc(members, nonmembers)
    else:
        note = "no text could be scored on one of the two sides"
    return Measurement(value, None, scored_count, None, len(texts) - scored_count, note)


def _scored(texts: Sequence[TextScore]) -> Float[np.ndarray, " text"]:
    values = np.array([text.min_40_score for text in texts], dtype=float)
    return values[~np.isnan(values)]


def _measure_leakage(scores: MuseScores, auc: Measurement, retain_only: MuseScores | None) -> Measurement:
    if auc.value is None:
        return Measurement(None, None, auc.example_count, None, auc.unscored_count, auc.note)
    if retain_only is None:
        corpus = scores.protocol["corpus"]
        reference, unusable = 1 - PUBLISHED_RETRAIN_AUC[corpus], ""
        note = (
            f"against MUSE's published AUC of its retrained {PUBLISHED_MODELS[corpus]}; for another model this means "
            "little: pass --retain-only MODEL"
        )
    else:
        measured = _measure_auc(retain_only)
        reference, unusable, note = measured.value, measured.note, ""
        if retain_only is scores:
            note = "the retain-only model against itself"
    if reference is None:
        return Measurement(None, None, auc.example_count, None, auc.unscored_count, f"retain-only model: {unusable}")
    value = privacy_leakage(auc.value, reference)
    if not math.isfinite(value):
        value, note = (
            None,
            "the retain-only model ranks every forget text above every holdout text: the two kinds differ anyway",
        )
    return Measurement(value, None, auc.example_count, None, auc.unscored_count, note)
