"""What is compared, in the order of tables and figures."""

SOURCES: dict[str, str] = {
    "retain": "retain set",
    "own_samples": "own samples",
    "generic": "general knowledge",
    "base": "forget set, model that never saw it",
    "none": "nothing",
}
"""What the forget set's statistics are divided by."""
METHODS = ("vila", "marginal", "contrast", "contrast_inputs")
"""Starts that measure."""
CONTROLS = ("plain", "uniform")
"""Starts that measure nothing."""
STARTS = (*CONTROLS, *METHODS)
TRAINING = ("retain", "own_samples")
"""What the retain term of training reads."""
