"""Read what a run folder holds, however far the run got. Nothing is computed here."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unlora.artifacts import (
    START_AGAIN,
    advised,
    file_sha256,
    parse_json_object,
    read_json_lines,
    read_json_object,
    read_text,
    refuse_missing_lines,
)
from unlora.config import read_yaml
from unlora.errors import InputError
from unlora.report.logs import LoggedRecords, read_log
from unlora.report.shapes import AuditFile, EvaluationFile, LogLine, RecordFile, refuse_unless

ROLES = ("target", "unlearned", "retain_only")
INNER = ("evals", "open_unlearning", *ROLES)
"""Folders that OpenUnlearning and unlora keep logs in, below that of what they are about."""
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
    logged: LoggedRecords = field(default_factory=dict)
    """What was measured, as OpenUnlearning logs it; empty where nobody asked for it."""

    @property
    def is_run(self) -> bool:
        """Whether it is a run of ours, and not a log of another program."""
        return bool(self.settings_text)


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
    with advised("remove it; the report then goes without"):
        train_log = _read_lines(run / "train_log.jsonl")
    known = _read_record(record) if record.is_file() else {}
    return RunFiles(
        name=run.resolve().name,
        settings=settings,
        settings_text=config.read_text(encoding="utf-8"),
        record=known,
        train_log=train_log,
        evaluation=read_evaluation(evaluation, known) if evaluation.is_file() else None,
        audit=_read_audit(audit) if audit.is_file() else None,
        answers={role: _read_answers(file) for role, file in scores.items() if file.is_file()},
    )


def read_row(path: Path) -> RunFiles:
    """Read a log of OpenUnlearning as a run of which nothing else is known, named after the folder it is about.

    Raises:
        InputError: not such a log.
    """
    folders = [folder.name for folder in path.resolve().parents]
    name = next((folder for folder in folders if folder not in INNER), path.name)
    return RunFiles(name, {}, "", {}, (), None, None, {}, logged=read_log(path))


def read_evaluation(path: Path, record: Mapping[str, Any]) -> dict[str, Any]:
    """Read the evaluation.json of an unlearning run.

    Args:
        path: of the file.
        record: of the run; one that is not finished, or of an older version, has no hash of the file.

    Raises:
        InputError: missing, cut short, something else, or changed since the run wrote it.
    """
    with advised(START_AGAIN):
        if path.is_file() and record.get("evaluation_sha256") not in (None, file_sha256(path)):
            raise InputError(f"{path}: damaged or changed since it was written (not the hash in record.json).")
        evaluation = read_json_object(path)
        refuse_unless(EvaluationFile, evaluation, path, "an evaluation")
        if not any(model["metrics"] for model in evaluation["models"].values()):
            raise InputError(f"{path}: not an evaluation as unlora writes it (no metric).")
    return evaluation


def suite_records(run: RunFiles) -> dict[str, Mapping[str, Any]]:
    """What each suite measured, by its name without its place ("muse:news"), in the order of the settings."""
    if run.evaluation is None:
        return {}
    written = run.settings.get("evaluation", {}).get("suites", [run.evaluation["suite"]])[0]
    written = written["name"] if isinstance(written, Mapping) else written
    return {str(written).partition("@")[0]: run.evaluation, **run.evaluation.get("others", {})}


def _read_audit(path: Path) -> dict[str, Any]:
    with advised("remove it and audit again"):
        audit = read_json_object(path)
        refuse_unless(AuditFile, audit, path, "an audit")
    return audit


def _read_answers(path: Path) -> list[dict[str, Any]]:
    with advised(START_AGAIN):
        header, *records = read_json_lines(path)
        if "counts" in header:
            refuse_missing_lines(path, header["counts"], records, "set")
    return records


def _read_record(path: Path) -> dict[str, Any]:
    record = read_json_object(path)
    refuse_unless(RecordFile, record, path, "a run's record")
    return record


def _read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a last line that a kill cut short, so without its line end, is dropped."""
    if not path.is_file():
        return []
    *lines, cut_short = read_text(path).split("\n")
    records = [parse_json_object(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]
    refuse_unless(list[LogLine], records, path, "a training log")
    try:
        return [*records, parse_json_object(cut_short, str(path))]
    except InputError:
        return records
