"""`unlora audit`."""

from pathlib import Path

import click

from unlora.audit.names import ATTACKS
from unlora.cli.options import OUTPUT, PATH, TRUST_HELP, examples
from unlora.cli.terminal import echo
from unlora.regular_files import refuse_missing


@click.command(
    epilog=examples(
        "unlora audit runs/x",
        "unlora audit runs/x --attack relearning --set relearning.steps=50 --output runs/x/audit-50",
    )
)
@click.argument("run", type=PATH)
@click.option(
    "--attack",
    "attacks",
    multiple=True,
    metavar="NAME",
    help=f"Only this one; repeatable: {', '.join(ATTACKS)}, or module:Class.",
)
@click.option("--full", is_flag=True, help="Harder attacks on more examples with two seeds: for a GPU.")
@click.option("--holdout", metavar="FILE", help="Records like the forget set that no model saw, for membership.")
@click.option("--retain-only", metavar="DIR_OR_ID", help="The control, when the run has none.")
@click.option("--retain-only-base", metavar="DIR_OR_ID", help="Base of the control when it is an adapter.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any setting, such as sampling.samples.")
@click.option("--seed", type=int, help="Seed of samples, data order and intervals.")
@click.option("--trust-remote-code", is_flag=True, help=TRUST_HELP)
@click.option("--output", type=OUTPUT, help="Folder to write; by default RUN/audit.")
def audit(
    run: Path,
    attacks: tuple[str, ...],
    full: bool,
    holdout: str | None,
    retain_only: str | None,
    retain_only_base: str | None,
    overrides: tuple[str, ...],
    seed: int | None,
    trust_remote_code: bool,
    output: Path | None,
) -> None:
    """Attack a finished run and say whether the knowledge is gone or only silent."""
    refuse_missing(run)
    from unlora.run.presets import resolve_audit

    settings = resolve_audit(
        scale="full" if full else "default",
        flags={
            "attacks": list(attacks) or None,
            "holdout": holdout,
            "retain_only": retain_only,
            "retain_only_base": retain_only_base,
            "seed": seed,
        },
        overrides=overrides,
    )
    from unlora.cli.console import ConsoleReporter
    from unlora.cli.tables import print_audit
    from unlora.recipes.audit import audit as attack

    output = output or run / "audit"
    print_audit(attack(run, settings, output, trust_remote_code=trust_remote_code, reporter=ConsoleReporter()))
    echo(f"written: {output / 'audit.json'}, {output / 'audit.html'}")
