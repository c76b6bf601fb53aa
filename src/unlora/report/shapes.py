"""What the files of a run folder hold, as far as it is read again: checked at the door, so that nothing damaged in ways
that parse goes any further. Keys that are not named here may hold anything, and an older file may lack some.
"""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from unlora.errors import InputError


class Shape(BaseModel):
    """A part of a file."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())


class Stage(Shape):
    """What a stage took."""

    seconds: float
    peak_memory_bytes: int


class Checks(Shape):
    """What a run verified about itself."""

    output_at_step_0: dict[str, float] | None = None
    base_weights_unchanged: bool | None = None


class Target(Shape):
    """The model that a run was made for."""

    fingerprint: str
    dtype: str | None = None
    base: str | None = None
    quantisation: str | None = None


class Whose(Shape):
    """Whose level it is."""

    kind: Literal["control", "before", "number"]
    name: str
    base: str | None


class AimedAt(Shape):
    """The level."""

    source: Whose
    probability: float
    low: float
    high: float


class SettledLevel(Shape):
    """Where the adapter ended beside it."""

    level: AimedAt
    as_trained: float
    as_left: float
    strength: float
    stopped: int | None = None


class RecordFile(Shape):
    """record.json of any run folder: of a run, an evaluation, an audit."""

    finished: bool = False
    versions: dict[str, str] = {}
    stages: dict[str, Stage] = {}
    checks: Checks = Checks()
    model: Target | None = None
    data: dict[str, str | None] | None = None
    importance: dict[str, Any] | None = None
    initialisation: dict[str, Any] | None = None
    objective: dict[str, Any] | None = None
    level: SettledLevel | None = None
    adapter_sha256: str | None = None
    evaluation_sha256: str | None = None


class MeasuredValue(Shape):
    """One metric of one model."""

    value: float | None
    standard_error: float | None
    example_count: int = 0
    note: str = ""


class MeasuredModel(Shape):
    """One model."""

    metrics: dict[str, MeasuredValue]


class SuiteRecord(Shape):
    """What one suite measured."""

    suite: str = ""
    protocol: dict[str, Any] = {}
    notes: list[str] = []
    models: dict[str, MeasuredModel]


class EvaluationFile(SuiteRecord):
    """evaluation.json: what the first suite measured, and each further one under its name."""

    others: dict[str, SuiteRecord] = {}


class AuditFile(Shape):
    """audit.json."""

    verdict: str
    scope: str
    attacks: dict[str, dict[str, Any]] = {}


class LogLine(Shape):
    """A line of train_log.jsonl."""

    step: int
    loss: float | None = None
    forget_term: float | None = None
    retain_term: float | None = None


def refuse_unless(shape: Any, value: Any, path: Path, what: str) -> None:
    """Refuse what a file holds unless it has the shape of what unlora writes.

    Args:
        shape: a `Shape`, or a type made of them.
        value: what the file holds.
        path: of the file.
        what: it is to be: "an evaluation".

    Raises:
        InputError: naming the file and the key.
    """
    try:
        TypeAdapter(shape).validate_python(value)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, problem["loc"]))
        message = f"{key + ': ' if key else ''}{problem['msg'][:1].lower()}{problem['msg'][1:]}"
        raise InputError(f"{path}: not {what} as unlora writes it ({message}).") from None
