"""`python -m tests.faults.harness`: bad inputs, kills, pairs, ledgers."""

import signal
import sys
from pathlib import Path

import click

from tests.faults.harness.areas import AREAS
from tests.faults.harness.bad_inputs import Outcome, acceptable, chosen, result_table, run_inputs, write_outcomes
from tests.faults.harness.kills import Chain, kill_table, run_kills
from tests.faults.harness.ledger import Siege, ledger_table
from tests.faults.harness.pairs import Pair, pair_table, run_pairs
from tests.faults.harness.races import run_ledger

WORLD = click.option(
    "--world", "kept", type=click.Path(path_type=Path), help="Make models and runs here once, and use them again."
)


@click.group()
def main() -> None:
    """Try unlora on what goes wrong. Ctrl-C ends a command with the table of what was done."""
    # A shell starts what runs in its background deaf to Ctrl-C, and the commands under test would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@main.command("bad-inputs")
@click.option("--area", "areas", multiple=True, type=click.Choice(list(AREAS)), help="Only these; repeatable.")
@click.option("--only", multiple=True, help="Only inputs whose AREA/NAME holds this; repeatable.")
@click.option("--sample", type=click.IntRange(min=1), help="So many, drawn from all areas in turn.")
@click.option("--seed", default=0, show_default=True, help="Of the sample.")
@WORLD
@click.option("--json", "file", type=click.Path(path_type=Path), help="Write every outcome here.")
def bad_inputs(
    areas: tuple[str, ...], only: tuple[str, ...], sample: int | None, seed: int, kept: Path | None, file: Path | None
) -> None:
    """Give unlora bad and odd inputs and count how it ends."""

    def tell(outcome: Outcome) -> None:
        if outcome.kind != "ok":
            click.echo(f"{outcome.kind:<9} {outcome.area}/{outcome.name}: {ascii(outcome.what)[1:-1]}")

    outcomes = run_inputs(chosen(areas or tuple(AREAS), only, sample, seed), tell, kept)
    if file is not None:
        write_outcomes(outcomes, file)
    click.echo(result_table(outcomes))
    sys.exit(0 if acceptable(outcomes) else 1)


@main.command()
@click.option("--count", type=click.IntRange(min=1), default=100, show_default=True, help="Signals to send.")
@click.option("--seed", default=0, show_default=True, help="Of moments and signals.")
@WORLD
def kills(count: int, seed: int, kept: Path | None) -> None:
    """Interrupt commands at random moments and start them again."""

    def tell(chain: Chain) -> None:
        if chain.what:
            click.echo(f"{chain.command} after {', '.join(chain.signals)}: {chain.what}")

    chains = run_kills(count, seed, tell, kept)
    click.echo(kill_table(chains))
    sys.exit(any(chain.what for chain in chains))


@main.command()
@click.option("--count", type=click.IntRange(min=1), default=20, show_default=True, help="Pairs of processes.")
@click.option("--seed", default=0, show_default=True, help="Of the moments when the second starts.")
@WORLD
def pairs(count: int, seed: int, kept: Path | None) -> None:
    """Start a command twice on one folder."""

    def tell(pair: Pair) -> None:
        if pair.what:
            click.echo(f"{pair.command}, second after {pair.delay:.1f} s: {pair.what}")

    found = run_pairs(count, seed, tell, kept)
    click.echo(pair_table(found))
    sys.exit(any(pair.what for pair in found))


@main.command()
@click.option("--kills", "kills_", type=click.IntRange(min=0), default=100, show_default=True, help="Kills to send.")
@click.option("--races", type=click.IntRange(min=0), default=20, show_default=True, help="Ledgers with two writers.")
@click.option("--seed", default=0, show_default=True, help="Of the moments.")
@WORLD
def ledger(kills_: int, races: int, seed: int, kept: Path | None) -> None:
    """Kill the commands of a ledger, and let two writers race for one; verify it each time."""

    def tell(siege: Siege) -> None:
        if siege.what:
            click.echo(f"{siege.kind} after {siege.kills} kills, {siege.refusals} refusals: {siege.what}")

    sieges = run_ledger(kills_, races, seed, tell, kept)
    click.echo(ledger_table(sieges))
    sys.exit(any(siege.what for siege in sieges))


if __name__ == "__main__":
    main()
