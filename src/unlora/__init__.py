"""Remove chosen knowledge from a causal language model with LoRA, and measure how far it is gone.

The pieces are public and work alone; they are imported on first use, so that `import unlora` is instant.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unlora import metrics as metrics
    from unlora.importance import ContrastMap as ContrastMap
    from unlora.importance import ImportanceMap as ImportanceMap
    from unlora.importance import estimate_contrast as estimate_contrast
    from unlora.importance import estimate_importance as estimate_importance
    from unlora.losses import Objective as Objective
    from unlora.starts.attach import attach_anchored_adapter as attach_anchored_adapter
    from unlora.training import UnlearnTrainer as UnlearnTrainer
    from unlora.training import training_arguments as training_arguments

_HOMES = {
    "ContrastMap": "unlora.importance",
    "ImportanceMap": "unlora.importance",
    "Objective": "unlora.losses",
    "UnlearnTrainer": "unlora.training",
    "attach_anchored_adapter": "unlora.starts.attach",
    "estimate_contrast": "unlora.importance",
    "estimate_importance": "unlora.importance",
    "training_arguments": "unlora.training",
}

__all__ = [
    "ContrastMap",
    "ImportanceMap",
    "Objective",
    "UnlearnTrainer",
    "attach_anchored_adapter",
    "estimate_contrast",
    "estimate_importance",
    "metrics",
    "training_arguments",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name == "metrics":
        return importlib.import_module("unlora.metrics")
    raise AttributeError(f"module 'unlora' has no attribute '{name}'")
