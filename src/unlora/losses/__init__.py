"""What is minimised: forget terms, retain terms, and the objective that combines them. Torch only."""

from unlora.losses.ascent import GradientAscent, SatImp, WeightedAscent
from unlora.losses.forget_terms import FORGET_TERMS
from unlora.losses.inputs import ForgetInputs, HiddenStates, Need, RetainInputs, required
from unlora.losses.log_probs import NOT_SCORED, Predictions
from unlora.losses.objective import Objective, ObjectiveParts
from unlora.losses.preference import DPO, NPO, SimNPO
from unlora.losses.redirection import CrossEntropyUnlearning, InvertedHinge, RefusalNLL, Undial
from unlora.losses.retain_terms import RETAIN_TERMS, RetainKL, RetainNLL
from unlora.losses.steering import AdaptiveSteering, RetainHiddenStates, Steering
from unlora.losses.term import ForgetTerm, RetainTerm

__all__ = [
    "DPO",
    "FORGET_TERMS",
    "NOT_SCORED",
    "NPO",
    "RETAIN_TERMS",
    "AdaptiveSteering",
    "CrossEntropyUnlearning",
    "ForgetInputs",
    "ForgetTerm",
    "GradientAscent",
    "HiddenStates",
    "InvertedHinge",
    "Need",
    "Objective",
    "ObjectiveParts",
    "Predictions",
    "RefusalNLL",
    "RetainHiddenStates",
    "RetainInputs",
    "RetainKL",
    "RetainNLL",
    "RetainTerm",
    "SatImp",
    "SimNPO",
    "Steering",
    "Undial",
    "WeightedAscent",
    "required",
]
