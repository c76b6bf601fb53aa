"""Where LoRA starts: what is measured on the intact model, and the factors that it decides."""

import importlib
from typing import TYPE_CHECKING, Any

from unlora.starts.table import STARTS as STARTS
from unlora.starts.table import make_start as make_start

if TYPE_CHECKING:
    from unlora.starts.start import Start as Start
    from unlora.starts.start import StartData as StartData
    from unlora.starts.start import Started as Started
    from unlora.starts.start import StartInputs as StartInputs

_LAZY = ("Start", "StartData", "StartInputs", "Started")
"""They load torch; the table does not."""


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module("unlora.starts.start"), name)
    raise AttributeError(f"module 'unlora.starts' has no attribute '{name}'")
