"""Every forget term by name: one number an example, smaller when the model knows its completion less."""

from unlora.losses.ascent import GradientAscent, SatImp, WeightedAscent
from unlora.losses.preference import DPO, NPO, SimNPO
from unlora.losses.redirection import CrossEntropyUnlearning, InvertedHinge, RefusalNLL, Undial
from unlora.losses.steering import AdaptiveSteering, Steering
from unlora.losses.term import ForgetTerm

FORGET_TERMS: dict[str, type[ForgetTerm]] = {
    term.name: term
    for term in (
        GradientAscent,
        NPO,
        InvertedHinge,
        SimNPO,
        DPO,
        RefusalNLL,
        Undial,
        WeightedAscent,
        SatImp,
        CrossEntropyUnlearning,
        Steering,
        AdaptiveSteering,
    )
}
