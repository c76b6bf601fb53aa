"""The contract's evaluation.json, and how it is printed."""

from collections.abc import Mapping
from typing import Any

from unlora.results import NO_VALUE
from unlora.suites.scores import ModelScores
from unlora.suites.suite import Suite


def evaluation_record(suite: Suite, models: Mapping[str, ModelScores[Any]]) -> dict[str, Any]:
    """Measure models side by side.

    Args:
        suite: that asked them.
        models: scores by role: target, unlearned, retain_only; the last, where there, is the reference of all.

    Returns:
        {"suite", "protocol", "models": {role: {"metrics": {name: measurement}}}} and what else the suite has to say,
        ready for strict JSON.

    Raises:
        InputError: the models were not asked the same in the same way.
    """
    first, *others = models.values()
    for other in others:
        suite.check_comparable(first, other)
    retain_only = models.get("retain_only")
    metrics = {role: suite.measure(scores, retain_only) for role, scores in models.items()}
    return {
        "suite": suite.name,
        "protocol": suite.recorded(first.protocol),
        **suite.remarks(first.protocol),
        "models": {
            role: {"metrics": {name: measured.to_json() for name, measured in measurements.items()}}
            for role, measurements in metrics.items()
        },
    }


def comparison_rows(record: Mapping[str, Any]) -> list[tuple[str, dict[str, str]]]:
    """Return (metric, {model: "value ± standard error"}) for every metric that at least one model has a value for."""
    rows: list[tuple[str, dict[str, str]]] = []
    for metric, by_model in _by_metric(record).items():
        if any(measured["value"] is not None for measured in by_model.values()):
            rows.append((metric, {model: _value_text(measured) for model, measured in by_model.items()}))
    return rows


def missing_notes(record: Mapping[str, Any]) -> list[str]:
    """Say once for each reason which metrics have no value, and in which models when not in all."""
    missing: dict[tuple[str, tuple[str, ...]], list[str]] = {}
    for metric, by_model in _by_metric(record).items():
        models_by_note: dict[str, list[str]] = {}
        for model, measured in by_model.items():
            if measured["value"] is None:
                models_by_note.setdefault(measured.get("note", "no value"), []).append(model)
        for note, models in models_by_note.items():
            missing.setdefault((note, tuple(models)), []).append(metric)
    everyone = tuple(record["models"])
    notes: list[str] = []
    for (note, models), metrics in missing.items():
        where = "" if models == everyone else f" ({', '.join(models)})"
        notes.append(f"{_some(metrics)}{where}: {note}")
    return notes


def _by_metric(record: Mapping[str, Any]) -> dict[str, dict[str, dict[str, Any]]]:
    models = record["models"]
    metrics = dict.fromkeys(name for model in models.values() for name in model["metrics"])
    return {name: {role: model["metrics"][name] for role, model in models.items()} for name in metrics}


def _value_text(measured: Mapping[str, Any]) -> str:
    value, error = measured["value"], measured["standard_error"]
    if value is None:
        return NO_VALUE
    text = f"{value:.3f}" if value == 0 or abs(value) >= 0.001 else f"{value:.1e}"
    return text if error is None else f"{text} ± {error:.3f}"


def _some(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} more"
