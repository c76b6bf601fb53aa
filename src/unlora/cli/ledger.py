"""`unlora ledger`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unlora.cli.options import (
    FLAG_KEYS,
    OUTPUT,
    PATH,
    data_options,
    examples,
    model_options,
    require,
    settings_from,
    settings_options,
    several,
)
from unlora.cli.terminal import Rows, echo
from unlora.errors import UnloraError
from unlora.level import hardly_forgotten
from unlora.regular_files import refuse_missing

if TYPE_CHECKING:
    from unlora.ledger.book import Ledger
    from unlora.recipes.ledger.status import Standing

LEDGER = click.argument("ledger", type=PATH)
MOVED = several(
    click.option("--model", metavar="DIR_OR_ID", help="Where the ledger's model is now, if it was moved."),
    click.option("--base", metavar="DIR_OR_ID", help="The same of an adapter's base."),
    click.option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N."),
    click.option("--trust-remote-code", is_flag=True, default=None, help="Run code that the model brings along."),
)


@click.group()
def ledger() -> None:
    """Deletion requests that come one after another: one record of all, and one adapter that does what they ask."""


@ledger.command(epilog=examples("unlora ledger init requests --model DIR"))
@click.argument("ledger", type=OUTPUT)
@model_options
def init(ledger: Path, **flags: Any) -> None:
    """Begin a ledger for a model in the new folder LEDGER."""
    require(("model",), flags, ())
    from unlora.cli.console import ConsoleReporter
    from unlora.recipes.ledger.begin import begin_ledger

    book = begin_ledger(ledger, _model_settings(flags), reporter=ConsoleReporter())
    echo(f"written: {book.file}, for a model with weights {book.beginning.model.fingerprint[:12]}")


@ledger.command(
    epilog=examples(
        "unlora ledger add requests --forget july.jsonl --retain retain.jsonl",
        "unlora ledger add requests CONFIG.yaml --forget july.jsonl --set level.aim=0.1",
        "unlora ledger add requests --join --forget july-and-august.jsonl --retain retain.jsonl",
    )
)
@LEDGER
@settings_options
@MOVED
@data_options
@click.option("--retain-only", metavar="DIR_OR_ID", help="A model that never saw the forget set, or its scores.jsonl.")
@click.option(
    "--join", is_flag=True, help="Take the place of the requests whose records the file holds: all forgotten anew."
)
def add(
    ledger: Path, config: Path | None, preset: str | None, overrides: tuple[str, ...], join: bool, **flags: Any
) -> None:
    """Forget the records of one request, on top of all that are in force, and write it down."""
    from unlora.ledger.book import Ledger

    settings = settings_from(config, preset, overrides, flags | _of_the_model(Ledger(ledger), flags))
    from unlora.cli.console import ConsoleReporter
    from unlora.recipes.ledger.add import add_request

    number = add_request(ledger, settings, join=join, reporter=ConsoleReporter()).entry
    book = Ledger(ledger)
    request = book.request(number)
    asked = request.probability
    echo(f"request {number}: answer probability {asked.target:.3f} in the model, {asked.now:.3f} now")
    if request.joins:
        echo(f"request {number}: in place of {', '.join(map(str, request.joins))}")
    if hardly_forgotten(asked.target, asked.now):
        level = "" if request.level is not None else " or a level (--set level.aim=0.1)"
        echo(
            f"request {number}: hardly forgotten, and in force all the same. Take it out"
            f" (unlora ledger rollback {ledger} {number}), then add it with more training"
            f" (--set training.epochs=N){level}."
        )
    _echo_composed(book)


@ledger.command(epilog=examples("unlora ledger status requests", "unlora ledger status requests --forget july.jsonl"))
@LEDGER
@click.option("--forget", "files", multiple=True, metavar="FILE", help="Records of a request, asked again; repeatable.")
@MOVED
def status(ledger: Path, files: tuple[str, ...], **flags: Any) -> None:
    """Show every request with its last evidence; with --forget, ask the present model again, and write that down."""
    from unlora.ledger.book import Ledger
    from unlora.recipes.ledger.status import check_requests, standings

    book = Ledger(ledger)
    if files:
        from unlora.cli.console import ConsoleReporter

        settings = _model_settings(_of_the_model(book, flags))
        book = check_requests(ledger, files, settings, reporter=ConsoleReporter())
    found = standings(book)
    _print(found)
    _echo_composed(book)
    back = [f"request {one.request.entry} ({one.back:.0%})" for one in found if one.comes_back]
    if back:
        raise UnloraError(f"{ledger}: what was forgotten comes back: {', '.join(back)}; add the request again.")


@ledger.command(epilog=examples("unlora ledger rollback requests 2"))
@LEDGER
@click.argument("request", type=click.IntRange(min=1))
@MOVED
def rollback(ledger: Path, request: int, **flags: Any) -> None:
    """Take REQUEST out of the composed adapter; later requests stay. No model is loaded."""
    from unlora.ledger.book import Ledger
    from unlora.recipes.ledger.roll_back import roll_back

    entry = roll_back(ledger, request, _model_settings(_of_the_model(Ledger(ledger), flags)))
    echo(f"request {request}: rolled back by entry {entry.entry}")
    _echo_composed(Ledger(ledger))


@ledger.command(epilog=examples("unlora ledger settle requests --forget july.jsonl --forget august.jsonl"))
@LEDGER
@click.option(
    "--forget", "files", multiple=True, required=True, metavar="FILE", help="Records of every request; repeatable."
)
@click.option("--level", type=click.FloatRange(0, 1, min_open=True, max_open=True), help="To aim at, if not theirs.")
@MOVED
def settle(ledger: Path, files: tuple[str, ...], level: float | None, **flags: Any) -> None:
    """Give back what later requests took from earlier ones past their level: all in force become weaker together."""
    from unlora.cli.console import ConsoleReporter
    from unlora.ledger.book import Ledger
    from unlora.recipes.ledger.settle import settle_ledger

    settings = _model_settings(_of_the_model(Ledger(ledger), flags))
    settle_ledger(ledger, files, settings, level=level, reporter=ConsoleReporter())
    _echo_composed(Ledger(ledger))


@ledger.command(epilog=examples("unlora ledger attach requests audit-of-3"))
@LEDGER
@click.argument("audit", type=PATH)
def attach(ledger: Path, audit: Path) -> None:
    """Keep the result of 'unlora audit' on a composed adapter, the folder AUDIT, as evidence of its last request."""
    from unlora.recipes.ledger.evidence import attach_audit

    refuse_missing(audit)
    entry = attach_audit(ledger, audit)
    echo(f"written: {ledger}, entry {entry.entry}")


@ledger.command(epilog=examples("unlora ledger verify requests", "unlora ledger verify requests --head 0f3a"))
@LEDGER
@click.option("--head", metavar="HASH", help="Of an entry that was kept elsewhere: it must still be there.")
def verify(ledger: Path, head: str | None) -> None:
    """Find whatever was changed since it was written: entries, adapters, evidence."""
    from unlora.recipes.ledger.verify import verify_ledger

    found = verify_ledger(ledger, head=head)
    for line in (*found.faults, *found.notices):
        echo(line)
    entries = "1 entry" if found.entry_count == 1 else f"{found.entry_count} entries"
    echo(f"{entries}, {_count(found.file_count, 'file')}; last hash {found.head}")
    if found.faults:
        raise UnloraError(f"{ledger}: {_count(len(found.faults), 'fault')}; put back what was changed from a copy.")
    echo("unchanged")


def _of_the_model(book: "Ledger", flags: dict[str, Any]) -> dict[str, Any]:
    """The flags of a model, as the ledger has it where the command does not say that it was moved."""
    own = book.model_settings()
    name = flags["model"] or own["name"]
    return {
        "model": name,
        "base": flags["base"] if flags["model"] or flags["base"] else own["base"],
        "dtype": own["dtype"],
        "device": flags["device"],
        "trust_remote_code": flags["trust_remote_code"],
    }


def _model_settings(flags: dict[str, Any]) -> Any:
    from unlora.run.settings import ModelSettings

    given = {FLAG_KEYS[name].removeprefix("model."): value for name, value in flags.items() if value is not None}
    return ModelSettings.from_mapping(given, where="model")


def _print(found: "list[Standing]") -> None:
    titles = ("request", "added", "records", "in force", "probability before", "after", "last", "audit")
    rows = Rows(*titles)
    for one in found:
        first = one.request.probability
        state = "yes" if one.rolled_back_by is None else f"no, entry {one.rolled_back_by}"
        state = state if one.joined_by is None else f"in request {one.joined_by}"
        last = f"{one.latest.now:.3f} (entry {one.measured_by}{', back' if one.comes_back else ''})"
        rows.add(
            str(one.request.entry), one.request.time[:10], str(one.request.forget.example_count), state,
            f"{first.target:.3f}", f"{first.now:.3f}", last, one.audit.verdict if one.audit is not None else "–",
        )  # fmt: skip
    rows.print(width=140)


def _echo_composed(book: "Ledger") -> None:
    composed = book.composed
    if composed is None:
        echo("no request is in force: the model is as it was, without an adapter")
        return
    requests = _count(len(composed.of), "request")
    echo(f"adapter: {book.path / composed.folder / 'adapter'} (rank {composed.rank}, of {requests})")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
