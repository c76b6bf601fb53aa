"""What was written for unlora 0.1: the section `importance`, which is `start` now. To be removed in 0.3."""

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from unlora.config import Config, merge
from unlora.errors import InputError

_MAPPED = ("solver", "file")
_INTACT = (*_MAPPED, "statistic", "gradient_unit", "reduction", "batch_size", "max_retain_examples")
_CONTRAST = ("damping", "batch_size", "max_retain_examples", "file")
FIELDS = {
    "marginal": (*_INTACT, "shuffle_rows"),
    "vila": (*_INTACT, "shuffle_rows", "probe_std"),
    "variance_full": (*_INTACT, "shuffle_rows", "offload"),
    "vila_published": ("file", "batch_size", "passes", "accumulator_dtype", "probe_std"),
    "fila_published": ("file", "batch_size", "passes", "accumulator_dtype"),
    "contrast": _CONTRAST,
    "contrast_inputs": _CONTRAST,
    "corda": ("batch_size", "max_retain_examples"),
    "eva": ("batch_size",),
    "lora_ga": ("batch_size",),
    "reglu": ("orthogonality", "batch_size", "max_retain_examples"),
}
"""Start -> its settings that the old section had too; a start that is not named had none."""

_AS_OLD: dict[str, dict[str, Any]] = {
    "marginal": {"space": "marginals"},
    "vila": {"space": "lora_factors"},
    "fila": {"space": "full_weights", "statistic": "second_moment"},
    "variance_full": {"space": "full_weights"},
    "second_moment_lora": {"space": "lora_factors", "statistic": "second_moment"},
    "vila_published": {"space": "lora_factors", "arithmetic": "published"},
    "fila_published": {"space": "full_weights", "statistic": "second_moment", "arithmetic": "published"},
    "shuffled": {"initialisation": "shuffled"},
}
"""Start -> what said so in the old section, beside `initialisation: importance`."""


class OldImportance(Config):
    """The section as it was."""

    initialisation: Literal[
        "importance", "contrast", "contrast_inputs", "plain", "uniform", "shuffled", "olora", "corda", "eva",
        "lora_ga", "reglu",
    ] = "importance"  # fmt: skip
    solver: Literal["row", "separable", "elementwise"] = "row"
    damping: float = Field(default=1.0, gt=0)
    statistic: Literal["second_moment", "variance"] = "variance"
    space: Literal["marginals", "lora_factors", "full_weights"] = "marginals"
    gradient_unit: Literal["example", "batch"] = "example"
    reduction: Literal["mean", "sum"] = "mean"
    offload: Literal["none", "host", "disk"] = "none"
    batch_size: int = Field(default=8, ge=1)
    max_retain_examples: int = Field(default=64, ge=2)
    probe_std: float = Field(default=0.05, gt=0)
    arithmetic: Literal["intact", "published"] = "intact"
    passes: int = Field(default=10, ge=1)
    accumulator_dtype: Literal["gradient", "float32", "bfloat16"] = "gradient"
    orthogonality: float = Field(default=0.5, ge=0)
    file: str | None = None

    def kind(self) -> str:
        """The start that it chose.

        Raises:
            InputError: one that there never was.
        """
        if self.initialisation not in ("importance", "shuffled"):
            return self.initialisation
        if self.arithmetic == "published":
            published = {
                ("variance", "lora_factors"): "vila_published",
                ("second_moment", "full_weights"): "fila_published",
            }
            found = published.get((self.statistic, self.space))
            if found is None:
                raise InputError(
                    f"importance.arithmetic: 'published' has no {self.statistic} of {self.space}; there are "
                    "start.kind=vila_published and start.kind=fila_published."
                )
            return found
        return {"marginals": "marginal", "lora_factors": "vila", "full_weights": "variance_full"}[self.space]


def with_start(values: Mapping[str, Any]) -> dict[str, Any]:
    """Put a section `start` in the place of a section `importance`, which may stand on top of one.

    Raises:
        InputError: something wrong with the old section, or a setting in it that its start does not have.
    """
    if "importance" not in values:
        return dict(values)
    new = {key: value for key, value in values.items() if key != "importance"}
    given = values["importance"]
    if not isinstance(given, Mapping):
        raise InputError("importance: must be a section of keys, and is called 'start' now.")
    before = as_old(values["start"]) if "start" in values else {}
    old = OldImportance.from_mapping({**before, **given}, where="settings", section="importance")
    kind = old.kind()
    fields = {key: getattr(old, key) for key in FIELDS.get(kind, ()) if hasattr(old, key)}
    if old.initialisation == "shuffled":
        fields["shuffle_rows"] = True
    for key, value in given.items():
        decides = key in ("initialisation", "space", "statistic", "arithmetic")
        if not decides and key not in FIELDS.get(kind, ()) and value != OldImportance.model_fields[key].default:
            raise InputError(f"importance.{key}: start '{kind}' has no such setting.")
    new["start"] = {"kind": kind, **fields}
    if "start" not in values:  # A was free unless the file said otherwise.
        new["adapter"] = merge({"freeze_a": False}, values.get("adapter") or {})
    return new


def as_old(start: Mapping[str, Any]) -> dict[str, Any]:
    """The old section that chose a start."""
    fields = {key: value for key, value in start.items() if key not in ("kind", "shuffle_rows")}
    kind = str(start.get("kind", "marginal"))
    old = {"initialisation": "importance", **_AS_OLD[kind]} if kind in _AS_OLD else {"initialisation": kind}
    return {**old, **fields, **({"initialisation": "shuffled"} if start.get("shuffle_rows") else {})}
