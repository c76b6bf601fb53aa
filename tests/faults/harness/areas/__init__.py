"""The inputs, by area."""

import importlib
from functools import cache

from tests.faults.harness.case import Case, table

AREAS = {
    "data": "data files",
    "settings": "settings (YAML, --set)",
    "models": "models (config, code, safetensors)",
    "tokenizers": "tokenizers, chat templates",
    "adapters": "adapters",
    "runs": "run folders damaged in each file",
    "outputs": "output paths",
    "commands": "other commands and flags",
}
NEEDS = {
    "data": (), "settings": ("run",), "models": ("run",), "tokenizers": ("run",), "adapters": ("adapter",),
    "runs": ("run", "study"), "outputs": ("adapter", "run", "study"), "commands": ("adapter", "run", "study"),
}  # fmt: skip
"""Parts of the world that the inputs of an area use."""


@cache
def cases(area: str) -> dict[str, Case]:
    """All inputs of an area, by name."""
    return table(importlib.import_module(f"tests.faults.harness.areas.{area}").CASES)
