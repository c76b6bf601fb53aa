"""What is minimised: forget terms, retain terms, and the objective that combines them. Torch only."""

from unlora.losses.forget_terms import FORGET_TERMS, NPO, ForgetTerm, GradientAscent, InvertedHinge
from unlora.losses.log_probs import NOT_SCORED, Predictions
from unlora.losses.objective import Objective, ObjectiveParts
from unlora.losses.retain_terms import RETAIN_TERMS, RetainNLL, RetainTerm

__all__ = [
    "FORGET_TERMS",
    "NOT_SCORED",
    "NPO",
    "RETAIN_TERMS",
    "ForgetTerm",
    "GradientAscent",
    "InvertedHinge",
    "Objective",
    "ObjectiveParts",
    "Predictions",
    "RetainNLL",
    "RetainTerm",
]
