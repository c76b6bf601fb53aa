"""What a model still knows of the forget set and of people whom it was to keep, as shares of the way back."""

from unlora_research.engine import Row
from unlora_research.halves import Known


def told(found: Known, before: Known, after: Known) -> Row:
    """What was forgotten and kept: shares of the way back to before the forget set was learnt, and of the target."""
    return {
        "forget_probability": found.forget_probability,
        "held_out_probability": found.retain_probability,
        "forgotten": (after.forget_probability - found.forget_probability)
        / (after.forget_probability - before.forget_probability),
        "kept": found.retain_probability / after.retain_probability,
        "before_forget_probability": before.forget_probability,
        "target_forget_probability": after.forget_probability,
        "before_held_out_probability": before.retain_probability,
        "target_held_out_probability": after.retain_probability,
    }
