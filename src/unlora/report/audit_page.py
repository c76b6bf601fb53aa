"""The card of an audit: what was tested, on how many examples, with intervals, and one plain sentence."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlora.artifacts import read_json_object, write_text
from unlora.characters import replaced
from unlora.errors import InputError
from unlora.report import plots
from unlora.report.page import NOT_AS_WRITTEN, page_environment
from unlora.report.tables import number_text
from unlora.results import NO_VALUE


@dataclass(frozen=True)
class EstimateRow:
    """One number of an attack."""

    name: str
    value: str
    interval: str
    example_count: int
    note: str


@dataclass(frozen=True)
class AttackCard:
    """One attack."""

    name: str
    question: str
    outcome: str
    sentence: str
    tested: str
    seconds: float | None
    rows: tuple[EstimateRow, ...]
    charts: tuple[plots.Chart, ...]
    x_label: str
    y_label: str


def write_audit_page(folder: Path) -> Path:
    """Write audit.html beside the audit.json in `folder`.

    Returns:
        The file.

    Raises:
        InputError: no audit.json there, or none that unlora wrote.
        UnloraError: the file cannot be written.
    """
    page, audit = folder / "audit.html", read_json_object(folder / "audit.json")
    try:
        text = render_audit(audit)
    except NOT_AS_WRITTEN:
        raise InputError(f"{folder / 'audit.json'}: not as unlora writes it; remove it and audit again.") from None
    write_text(page, replaced(text))
    return page


def render_audit(audit: Mapping[str, Any]) -> str:
    """Return the card as HTML."""
    template = page_environment().get_template("audit.html.jinja")
    return template.render(
        audit=audit, attacks=[_card(name, found) for name, found in audit["attacks"].items()], frame=plots
    )


def _card(name: str, found: Mapping[str, Any]) -> AttackCard:
    return AttackCard(
        name,
        found["question"],
        found["outcome"],
        found["sentence"],
        found["tested"],
        found.get("seconds"),
        tuple(_row(key, estimate) for key, estimate in found["estimates"].items()),
        tuple(plots.attack_charts(found["curves"])),
        found["x_label"],
        found["y_label"],
    )


def _row(name: str, estimate: Mapping[str, Any]) -> EstimateRow:
    low, high = estimate["low"], estimate["high"]
    unscored = estimate["unscored_count"]
    notes = [estimate["note"], f"{unscored} not scored" if unscored else ""]
    return EstimateRow(
        name.replace("_", " "),
        NO_VALUE if estimate["value"] is None else number_text(estimate["value"]),
        "" if low is None or high is None else f"{number_text(low)} to {number_text(high)}",
        estimate["example_count"],
        ", ".join(note for note in notes if note),
    )
