"""What each suite measured in several runs: a row a metric, a column a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from unlora.report.load import RunFiles, suite_records
from unlora.report.tables import MetricRow, metric_row, number_text

NOT_MEASURED: Mapping[str, Any] = {
    "value": None,
    "standard_error": None,
    "example_count": 0,
    "higher_is_better": None,
    "unscored_count": 0,
}
"""Of a run that did not ask the suite, or of a model that was not asked."""
HOW_FAST = ("batch_size", "dtype")
"""What of a protocol decides no number."""


@dataclass(frozen=True)
class ComparedMetric:
    """One metric of one suite."""

    row: MetricRow
    """Of the unlearned models, a cell a run."""
    beside: tuple[tuple[str, ...], ...]
    """For each run, what its other models have: "before 0.985", "retain-only 0.094"."""


@dataclass(frozen=True)
class ComparedSuite:
    """One suite."""

    name: str
    asked_otherwise: tuple[str, ...]
    """What of how it was asked is not the same in all runs."""
    metrics: tuple[ComparedMetric, ...]
    """Those that an unlearned model of some run has a value of."""
    missing: tuple[tuple[str, tuple[str, ...]], ...]
    """(reason, metrics without a value in any run)."""


def compare_suites(files: Sequence[RunFiles]) -> list[ComparedSuite]:
    """Arrange what every suite measured that any of the runs asked, in the order of the first that did."""
    measured = [{**suite_records(run), **run.logged} for run in files]
    names = dict.fromkeys(name for records in measured for name in records)
    logged = {name for run in files for name in run.logged}
    return [_compared(name, [one.get(name) for one in measured], logged=name in logged) for name in names]


def _compared(name: str, records: Sequence[Mapping[str, Any] | None], *, logged: bool) -> ComparedSuite:
    unlearned = [_metrics(record, "unlearned") for record in records]
    metrics, missing = [], dict[str, list[str]]()
    for metric in dict.fromkeys(metric for one in unlearned for metric in one):
        values = [one[metric] for one in unlearned if metric in one]
        if all(value["value"] is None for value in values):
            missing.setdefault(values[0].get("note", "no value"), []).append(metric)
            continue
        # A run that did not measure it says nothing of the direction either.
        nothing = {**NOT_MEASURED, "higher_is_better": values[0]["higher_is_better"]}
        row = metric_row(metric, [one.get(metric, nothing) for one in unlearned])
        if logged:  # Names and directions are OpenUnlearning's, and a log says nothing of these.
            row = replace(row, label=metric, meaning="", direction="not said")
        metrics.append(ComparedMetric(row, tuple(_beside(record, metric) for record in records)))
    reasons = tuple((reason, tuple(names)) for reason, names in missing.items())
    return ComparedSuite(name, _differences(records), tuple(metrics), reasons)


def _metrics(record: Mapping[str, Any] | None, role: str) -> Mapping[str, Any]:
    return {} if record is None else record["models"].get(role, {}).get("metrics", {})


def _beside(record: Mapping[str, Any] | None, metric: str) -> tuple[str, ...]:
    found = {
        word: _metrics(record, role).get(metric, NOT_MEASURED)["value"]
        for role, word in (("target", "before"), ("retain_only", "retain-only"))
    }
    return tuple(f"{word} {number_text(value)}" for word, value in found.items() if value is not None)


def _differences(records: Sequence[Mapping[str, Any] | None]) -> tuple[str, ...]:
    protocols = [record.get("protocol", {}) for record in records if record is not None]
    keys = dict.fromkeys(key for one in protocols for key in one if key not in HOW_FAST)
    return tuple(key for key in keys if len({repr(_content(one.get(key))) for one in protocols}) > 1)


def _content(value: Any) -> Any:
    """What stands there but for what a set is called: the hash of its content says more."""
    return {key: _content(one) for key, one in value.items() if key != "name"} if isinstance(value, Mapping) else value
