"""The presets of unlora 0.1 that are a start or a loss now: each as what it changes of the default. Gone in 0.3."""

from collections.abc import Mapping
from typing import Any


def _start(kind: str, learning_rate: float = 5e-4) -> dict[str, Any]:
    return {"start": {"kind": kind}, "training": {"learning_rate": learning_rate}}


def _loss(learning_rate: float = 1e-4, **objective: Any) -> dict[str, Any]:
    return {**_start("marginal", learning_rate), "objective": objective}


OLD_PRESETS: dict[str, dict[str, Any]] = {
    "contrast_inputs": {},
    "contrast": {"start": {"kind": "contrast"}},
    **{
        kind: _start(kind)
        for kind in (
            "marginal", "variance_full", "second_moment_lora", "shuffled", "plain", "uniform", "olora", "corda", "eva",
            "lora_ga", "reglu",
        )
    },
    **{loss: _loss(forget=loss) for loss in ("gd", "idk", "dpo", "simnpo", "wga")},
    "kl": _loss(forget="ga", retain="kl"),
    "rmu": _loss(5e-4, forget="rmu", retain="rmu"),
    "satimp": _loss(forget="satimp", retain_weight=0.1),
    "undial": _loss(forget="undial", retain=None),
    "ce_u": _loss(forget="ce_u", retain=None),
}  # fmt: skip
"""Name -> what it changes."""

_FLAGS = {"start.kind": "--start", "objective.forget": "--loss"}


def what_to_write(changes: Mapping[str, Any]) -> str:
    """Put changes of the default as options of the command line."""
    if not changes:
        return "--preset default"
    words = []
    for section, values in changes.items():
        for key, value in values.items():
            name = f"{section}.{key}"
            shown = "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
            words.append(f"{_FLAGS[name]} {shown}" if name in _FLAGS else f"--set {name}={shown}")
    return " ".join(words)
