"""Evaluation logs of OpenUnlearning as rows beside runs: its own, and those that unlora wrote in its form."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unlora.artifacts import read_json
from unlora.errors import InputError

LOG = re.compile(r"(?P<suite>TOFU|MUSE)_(?P<form>EVAL|SUMMARY)\.json")
"""What OpenUnlearning calls them: item by item, or one number a metric."""
OURS = "open_unlearning"
"""Folder of a run or an evaluation that holds such logs, in a folder for each model."""

LoggedRecords = Mapping[str, Mapping[str, Any]]
"""{title: what a suite measured}, in the form of evaluation.json."""


def is_log(path: Path) -> bool:
    """Whether a path names a log of OpenUnlearning."""
    return LOG.fullmatch(path.name) is not None


def read_log(path: Path) -> LoggedRecords:
    """Read one log, as what was measured of an unlearned model.

    Raises:
        InputError: not such a log, or a value in it that is no number.
    """
    return {_title(path): {"models": {"unlearned": {"metrics": _metrics(path)}}}}


def read_logs_of(folder: Path) -> LoggedRecords:
    """Read the logs that an evaluation wrote in OpenUnlearning's form; nothing where it wrote none.

    Raises:
        InputError: a damaged log.
    """
    records: dict[str, dict[str, Any]] = {}
    for path in sorted((folder / OURS).glob("*/*_EVAL.json")):
        if is_log(path):
            models = records.setdefault(_title(path), {"models": {}})["models"]
            models[path.parent.name] = {"metrics": _metrics(path)}
    return records


def _title(path: Path) -> str:
    found = LOG.fullmatch(path.name)
    return f"{found['suite'] if found is not None else path.name} as OpenUnlearning logs it"


def _metrics(path: Path) -> dict[str, Any]:
    content = read_json(path, finite=False)
    if not isinstance(content, dict) or not content:
        raise InputError(f"{path}: holds no metrics; expected a log that OpenUnlearning wrote.")
    return {str(name): _measured(value, f"{path}, {name}") for name, value in content.items()}


def _measured(logged: Any, where: str) -> dict[str, Any]:
    value = logged.get("agg_value") if isinstance(logged, dict) else logged
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise InputError(f"{where}: must be a number, found {value!r}.")
    items = logged.get("value_by_index") if isinstance(logged, dict) else None
    known = value is not None and math.isfinite(value)
    return {
        "value": value if known else None,
        "standard_error": None,
        "example_count": len(items) if isinstance(items, dict) else 0,
        "higher_is_better": None,
        "unscored_count": 0,
        **({} if known else {"note": "the log has no value"}),
    }
