"""The page itself: everything in one HTML file, no script and nothing loaded from elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, TemplateError

from unlora.artifacts import write_text
from unlora.characters import replaced
from unlora.errors import InputError
from unlora.level import NO_LEVEL, Settled
from unlora.reach import Reach
from unlora.report import plots
from unlora.report.load import RunFiles, read_run, suite_records
from unlora.report.tables import answers_of_set, loss_sentence, metric_table, result_sentence

HASH_LENGTH = 12
"""Characters of a hash that are shown; the whole of it is the hover text."""


NOT_AS_WRITTEN = (TemplateError, TypeError, KeyError, IndexError, AttributeError, ValueError, ArithmeticError)
"""What comes of a value that is there under its name, and of another kind."""
PARTS: Mapping[str, Mapping[str, Any]] = {
    "record.json": {"record": {}},
    "evaluation.json": {"evaluation": None},
    "audit/audit.json": {"audit": None},
    "train_log.jsonl": {"train_log": ()},
    "scores": {"answers": {}},
    "config.yaml": {"settings": {}},
}
"""Files of a run, and the page's parts that are made of them."""


@dataclass(frozen=True)
class Check:
    """Something the run verified about itself."""

    name: str
    passed: bool | None
    """None: the run has not come that far."""
    text: str


def write_report(run: Path) -> Path:
    """Write report.html of a run folder from the other files in it; missing parts are said in words.

    Returns:
        The file.

    Raises:
        InputError: not a run folder, or a file in it that unlora did not write.
        UnloraError: the file cannot be written.
    """
    page, files = run / "report.html", read_run(run)
    try:
        text = render_page(files)
    except NOT_AS_WRITTEN:
        raise InputError(f"{run / _strange_part(files)}: not as unlora writes it; the report cannot show it.") from None
    write_text(page, replaced(text))
    return page


def _strange_part(files: RunFiles) -> str:
    """The file without which the page can be made; the folder itself where no single one is enough."""
    for name, without in PARTS.items():
        try:
            render_page(replace(files, **without))
        except NOT_AS_WRITTEN:
            continue
        return name
    return ""


def render_page(files: RunFiles) -> str:
    """Return the page as HTML; every text from the files is escaped."""
    environment = page_environment()
    record, evaluation = files.record, files.evaluation
    suites = list(suite_records(files).items())
    objective = record.get("objective", {})
    return environment.get_template("page.html.jinja").render(
        files=files,
        record=record,
        settings=files.settings,
        objective=objective_text(objective),
        sentence=result_sentence(evaluation) if evaluation is not None else None,
        loss=loss_sentence(files.answers),
        no_evaluation=_why_no_evaluation(files.settings),
        evaluation_notes=_notes(suites),
        suites=[(name, metric_table(record)) for name, record in suites],
        answers={name: answers_of_set(files.answers, name) for name in ("forget", "retain")},
        charts=plots.training_charts(files.train_log, has_retain_term=objective.get("retain") is not None),
        frame=plots,
        reach=Reach.from_json(record["reach"]).sentence() if "reach" in record else "not recorded",
        level=Settled.from_json(record["level"]).sentence() if record.get("level") else NO_LEVEL,
        checks=checks(record.get("checks", {})),
        hash_length=HASH_LENGTH,
        audit=files.audit,
    )


@cache
def page_environment() -> Environment:
    """Templates of the package, compiled once; every text that is put in is escaped."""
    environment = Environment(
        loader=PackageLoader("unlora.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(duration=duration, gibibytes=gibibytes)
    return environment


def checks(made: Mapping[str, Any]) -> list[Check]:
    """Word the checks of record.json."""
    moved = made.get("output_at_step_0")
    passed, text = None, "not made yet"
    if moved is not None:
        passed = moved["largest_difference"] <= moved["tolerance"]
        text = (
            f"before training, no output of the model differed by more than {moved['largest_difference']:.1e} from the "
            f"target model's (allowed {moved['tolerance']:.0e}; {moved['logit_count']:,} logits compared)"
        )
        if moved["largest_difference"] == 0:
            text = f"before training, all {moved['logit_count']:,} logits compared were the target's, bit for bit"
    unchanged = made.get("base_weights_unchanged")
    weights = {
        None: "not made yet",
        True: "after training, the target model's own weights hash to the same value as before",
        False: "the target model's own weights changed during training; the adapter must not be used",
    }
    return [
        Check("The adapter starts without moving the model", passed, text),
        Check("The base weights are untouched", unchanged, weights[unchanged]),
    ]


def objective_text(objective: Mapping[str, Any]) -> str:
    """Write what was minimised as a formula in words: "ihl + 1.3 × nll"."""
    if not objective:
        return "not recorded yet"
    own = ", ".join(
        f"{key} {value}" for key, value in objective.items() if key not in ("forget", "retain", "retain_weight")
    )
    forget = f"{objective['forget']} ({own})" if own else str(objective["forget"])
    if objective["retain"] is None:
        return f"{forget} on the forget set, no retain term"
    return f"{forget} on the forget set + {objective['retain_weight']:g} × {objective['retain']} on the retain set"


def duration(seconds: int | float) -> str:
    """3.5 s, 4 min 31 s, 2 h 05 min."""
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def gibibytes(count: int) -> str:
    """Bytes as GiB."""
    return f"{count / 2**30:.2f} GiB"


def _notes(suites: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """What suites say beside their numbers; each further one under its name."""
    return [
        f"{name}: {note}" if place else note
        for place, (name, record) in enumerate(suites)
        for note in record.get("notes", [])
    ]


def _why_no_evaluation(settings: Mapping[str, Any]) -> str:
    if settings.get("evaluation", {}).get("skip"):
        return "Evaluation was skipped (evaluation.skip is true): what the model has forgotten was not measured."
    return "The run has not been evaluated yet: what the model has forgotten is not known."
