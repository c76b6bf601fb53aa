"""Read what a run folder holds, however far the run got. Nothing is computed here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unlora.artifacts import parse_json_object, read_json
from unlora.config import read_yaml
from unlora.errors import InputError

ROLES = ("target", "unlearned", "retain_only")
SECTIONS = ("model", "data", "adapter", "evaluation")
"""Of config.yaml, that the page shows."""


@dataclass(frozen=True)
class RunFiles:
    """The records of a run. What an unfinished run has not written yet is None or empty."""

    name: str
    """Of the folder."""
    settings: Mapping[str, Any]
    """config.yaml."""
    settings_text: str
    """config.yaml as it stands."""
    record: Mapping[str, Any]
    """record.json."""
    train_log: Sequence[Mapping[str, Any]]
    """train_log.jsonl, one mapping a logging step."""
    evaluation: Mapping[str, Any] | None
    """evaluation.json."""
    audit: Mapping[str, Any] | None
    """audit/audit.json."""
    answers: Mapping[str, Sequence[Mapping[str, Any]]]
    """scores/ROLE.jsonl without its header, for the roles whose file is in the folder."""


def read_run(run: Path) -> RunFiles:
    """Read the files of a run folder.

    Raises:
        InputError: not a run folder, or a file in it that unlora did not write.
    """
    config = run / "config.yaml"
    if not config.is_file():
        raise InputError(f"{run}: no config.yaml; not a run folder of `unlora unlearn`.")
    settings = read_yaml(config)
    if not all(isinstance(settings.get(section), dict) for section in SECTIONS):
        raise InputError(f"{config}: not the settings of `unlora unlearn`; the report shows its runs only.")
    record, evaluation, audit = run / "record.json", run / "evaluation.json", run / "audit" / "audit.json"
    scores = {role: run / "scores" / f"{role}.jsonl" for role in ROLES}
    return RunFiles(
        name=run.resolve().name,
        settings=settings,
        settings_text=config.read_text(encoding="utf-8"),
        record=read_mapping(record) if record.is_file() else {},
        train_log=_read_lines(run / "train_log.jsonl"),
        evaluation=read_mapping(evaluation) if evaluation.is_file() else None,
        audit=read_mapping(audit) if audit.is_file() else None,
        answers={role: _read_lines(file)[1:] for role, file in scores.items() if file.is_file()},
    )


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: not there, or something else.
    """
    value = read_json(path)
    if not isinstance(value, dict):
        raise InputError(f"{path}: must be a JSON object.")
    return value


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a last line that a kill cut short, so without its line end, is dropped."""
    if not path.is_file():
        return []
    *lines, cut_short = path.read_text(encoding="utf-8").split("\n")
    records = [parse_json_object(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    try:
        return [*records, parse_json_object(cut_short, str(path))]
    except InputError:
        return records
