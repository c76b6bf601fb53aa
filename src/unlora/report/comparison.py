"""Several runs side by side, in one page made from their files: what was forgotten and kept, and what attacks found."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from unlora.artifacts import write_text
from unlora.characters import replaced
from unlora.errors import InputError
from unlora.report import plots
from unlora.report.load import RunFiles, read_row, read_run
from unlora.report.logs import is_log, read_logs_of
from unlora.report.page import NOT_AS_WRITTEN, objective_text, page_environment
from unlora.report.suites_compared import compare_suites
from unlora.report.tables import number_text
from unlora.results import NO_VALUE

PAGE_BEGINS = b"<!DOCTYPE html>"
MOST_RUNS = 8
"""Lines that can be told apart."""
NOT_SAME: Mapping[str, Callable[[RunFiles], Any]] = {
    "target model": lambda run: run.record.get("model", {}).get("fingerprint"),
    "forget set": lambda run: run.record.get("data", {}).get("forget_sha256"),
    "suite": lambda run: run.evaluation["suite"] if run.evaluation is not None else None,
    "how they were asked": lambda run: _asked(run.evaluation),
}
"""What must be the same for the numbers of two runs to be compared."""
DECIDES_PROBABILITIES = ("template", "answer_tag", "max_length", "max_examples", "likelihood", "subject", "context")
"""What of an evaluation's protocol changes more than the answers that are generated."""


@dataclass(frozen=True)
class ComparedRun:
    """One row."""

    name: str
    how: str
    """Start and objective."""
    forget: str
    """Forget probability, with its standard error."""
    before: str
    level: str
    """Aimed at, and where the retain-only model is."""
    kept: str
    """Retain probability over the target's."""
    outcomes: tuple[tuple[str, str], ...]
    """Attack and outcome, of those that were made."""


@dataclass(frozen=True)
class RecoveryPanel:
    """The same curve of several runs."""

    title: str
    chart: plots.Chart
    x_label: str
    y_label: str


def write_comparison(runs: Sequence[Path], page: Path) -> Path:
    """Write one page about several runs.

    Args:
        runs: run folders, at most eight, unfinished ones are shown as far as they are; or OpenUnlearning's logs.
        page: the file.

    Returns:
        The file.

    Raises:
        InputError: neither a run folder nor a log, a file in one that unlora did not write, a run named twice, too
            many, or `page` is there already and no page.
        UnloraError: the page cannot be written.
    """
    if len(runs) > MOST_RUNS:
        raise InputError(f"{len(runs)} runs: one page shows {MOST_RUNS} at most; compare fewer.")
    _refuse_other_file(page)
    resolved = [run.resolve() for run in runs]
    for run in runs:
        if resolved.count(run.resolve()) > 1:
            raise InputError(f"{run}: is named twice.")
    files = [_read(run) for run in runs]
    try:
        text = render_comparison(files)
    except NOT_AS_WRITTEN:
        strange = next((run for run, one in zip(runs, files, strict=True) if not _can_be_shown(one)), runs[0])
        raise InputError(
            f"{strange}: holds a file that is not as unlora writes it; `unlora report` names it."
        ) from None
    write_text(page, replaced(text))
    return page


def _read(run: Path) -> RunFiles:
    return read_row(run) if is_log(run) else replace(read_run(run), logged=read_logs_of(run))


def _refuse_other_file(page: Path) -> None:
    """Refuse to write over what is no page: one wrong word on the command line would lose a record, or somebody's data.

    Raises:
        InputError: naming it.
    """
    if page.is_file():
        with page.open("rb") as opened:
            if opened.read(len(PAGE_BEGINS)) == PAGE_BEGINS:
                return
    if page.exists():
        raise InputError(f"{page}: exists already and is no page of unlora; choose another --output.")


def _can_be_shown(run: RunFiles) -> bool:
    try:
        render_comparison([run])
    except NOT_AS_WRITTEN:
        return False
    return True


def render_comparison(files: Sequence[RunFiles]) -> str:
    """Return the page as HTML; every text from the files is escaped."""
    names = run_names(files)
    return (
        page_environment()
        .get_template("comparison.html.jinja")
        .render(
            names=names,
            runs=[_row(name, run) for name, run in zip(names, files, strict=True)],
            different=different_tasks(files),
            settings=different_settings(files),
            suites=compare_suites(files),
            training=[chart for chart in training_panels(files) if chart is not None],
            panels=recovery_panels(files),
            frame=plots,
        )
    )


def run_names(files: Sequence[RunFiles]) -> list[str]:
    """Names of the folders; those of one name are numbered."""
    names = [run.name for run in files]
    return [
        name if names.count(name) == 1 else f"{name} ({names[: place + 1].count(name)})"
        for place, name in enumerate(names)
    ]


def different_tasks(files: Sequence[RunFiles]) -> list[str]:
    """What of the task is not the same in all runs, as far as they have recorded it."""
    found = [(what, [of_run(run) for run in files]) for what, of_run in NOT_SAME.items()]
    # A set that one run was asked about and another was not says nothing of what both were asked.
    sets = [run.record.get("evaluation_data") or {} for run in files]
    found += [
        ("evaluation sets", [one.get(name) for one in sets]) for name in dict.fromkeys(n for one in sets for n in one)
    ]
    differ = [what for what, values in found if len({repr(one) for one in values if one is not None}) > 1]
    return list(dict.fromkeys(differ))


def _asked(evaluation: Mapping[str, Any] | None) -> dict[str, Any] | None:
    return None if evaluation is None else {key: evaluation["protocol"].get(key) for key in DECIDES_PROBABILITIES}


def different_settings(files: Sequence[RunFiles]) -> list[tuple[str, list[str]]]:
    """Dotted keys that are not the same in all runs, and their value in each."""
    flat = [dict(_flat(run.settings)) for run in files]
    keys = dict.fromkeys(key for one in flat for key in one)
    rows = [(key, [_shown(one.get(key, NO_VALUE)) for one in flat]) for key in keys]
    places = [place for place, run in enumerate(files) if run.is_run]  # of a log, no setting is known
    return [(key, values) for key, values in rows if len({values[place] for place in places}) > 1]


def training_panels(files: Sequence[RunFiles]) -> list[plots.Chart | None]:
    """Forget and retain term over the steps, a line a run."""
    panels = []
    for key, title in (("forget_term", "Forget term"), ("retain_term", "Retain term")):
        points = [[(line["step"], line.get(key)) for line in run.train_log] for run in files]
        panels.append(plots.run_chart(title, points))
    return panels


def recovery_panels(files: Sequence[RunFiles]) -> list[RecoveryPanel]:
    """Curves of the unlearned model in the audits of the runs, those of one attack and panel together."""
    found: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    labels: dict[str, tuple[str, str]] = {}
    for place, run in enumerate(files):
        for attack, result in (run.audit or {}).get("attacks", {}).items():
            labels[attack] = (result["x_label"], result["y_label"])
            for curve in result["curves"]:
                if curve["label"] == "unlearned":
                    found.setdefault((attack, curve["panel"]), {})[place] = curve
    panels = []
    for (attack, panel), curves in found.items():
        points = [
            list(zip(curves[place]["x"], curves[place]["y"], strict=True)) if place in curves else []
            for place in range(len(files))
        ]
        chart = plots.run_chart(f"{attack}: {panel}", points)
        if chart is not None:
            panels.append(RecoveryPanel(attack, chart, *labels[attack]))
    return panels


def _row(name: str, run: RunFiles) -> ComparedRun:
    models = run.evaluation["models"] if run.evaluation is not None else {}
    objective = run.record.get("objective", {})
    retained = {role: _value(models, role, "retain_probability") for role in ("target", "unlearned")}
    kept = retained["unlearned"] / retained["target"] if all(retained.values()) else math.nan
    level = (run.record.get("level") or {}).get("level")
    told = [f"aimed at {number_text(level['probability'])}"] if level else []
    control = _cell(models, "retain_only")
    told += [f"retain-only {control}"] if control != NO_VALUE else []
    return ComparedRun(
        name=name,
        how=_how(run, objective) if run.is_run else "a log of OpenUnlearning",
        forget=_cell(models, "unlearned"),
        before=_cell(models, "target"),
        level=", ".join(told) or NO_VALUE,
        kept=NO_VALUE if math.isnan(kept) else number_text(kept),
        outcomes=tuple((attack, one["outcome"]) for attack, one in (run.audit or {}).get("attacks", {}).items()),
    )


def _how(run: RunFiles, objective: Mapping[str, Any]) -> str:
    return f"{run.settings.get('start', {}).get('kind', 'unknown start')}; {objective_text(objective)}"


def _value(models: Mapping[str, Any], role: str, metric: str) -> float:
    found = models.get(role, {}).get("metrics", {}).get(metric, {}).get("value")
    return math.nan if found is None else float(found)


def _cell(models: Mapping[str, Any], role: str) -> str:
    measured = models.get(role, {}).get("metrics", {}).get("forget_probability")
    if measured is None or measured["value"] is None:
        return NO_VALUE
    error = measured["standard_error"]
    return number_text(measured["value"]) + (f" ± {error:.3f}" if error is not None else "")


def _shown(value: Any) -> str:
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _flat(values: Mapping[str, Any], above: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for key, value in values.items():
        rows += _flat(value, f"{above}{key}.") if isinstance(value, Mapping) else [(f"{above}{key}", value)]
    return rows
