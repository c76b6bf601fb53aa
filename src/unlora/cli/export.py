"""`unlora export`."""

from pathlib import Path
from typing import Any

import click

from unlora.cli.options import OUTPUT, PATH, TRUST_HELP
from unlora.cli.terminal import echo


@click.command()
@click.argument("run", type=PATH)
@click.option("--adapter", "form", flag_value="adapter", help="The adapter, in factors that rounding hardly moves.")
@click.option("--merged", "form", flag_value="merged", help="One model folder, adapter merged in.")
@click.option("--rank", type=click.IntRange(min=1), help="An adapter squeezed to this rank by SVD, with its error.")
@click.option(
    "--public-base/--on-target",
    default=None,
    help="Target = base + adapter: one adapter for that base (the default where it gives the same model), or for both.",
)
@click.option("--base-name", metavar="ID", help="Hub id by which the files call the base.")
@click.option("--trust-remote-code", is_flag=True, help=TRUST_HELP)
@click.option("--output", type=OUTPUT, help="Folder to write; by default beside the run's own files.")
def export(
    run: Path, form: str | None, rank: int | None, public_base: bool | None, output: Path | None, **options: Any
) -> None:
    """Turn a finished run into a folder to deploy."""
    if form is None and rank is None:
        raise click.UsageError("say what to write: --adapter, --merged or --rank R.")
    if form == "merged" and (rank is not None or public_base is not None):
        raise click.UsageError("--merged goes with none of --rank, --public-base and --on-target.")
    from unlora.cards.model_card import serving_rank
    from unlora.cli.console import ConsoleReporter
    from unlora.recipes.export import export_adapter, export_merged

    kind = {None: "", True: "-public-base", False: "-on-target"}[public_base]
    name = "merged" if form == "merged" else f"adapter{kind}"
    output = output or run / "export" / (name if rank is None else f"{name}-rank-{rank}")
    reporter = ConsoleReporter()
    if form == "merged":
        check = export_merged(run, output, **options, reporter=reporter)
    else:
        done = export_adapter(run, output, rank=rank, public_base=public_base, **options, reporter=reporter)
        check = done.check
        if rank is not None:
            echo(f"relative error of the weight update at rank {rank}: {done.error:.2e}")
        place = "the base under the target's own adapter" if done.public_base else "the target"
        echo(f"rank {done.rank}, for {place}; vLLM: --max-lora-rank {serving_rank(done.rank)}")
    echo(f"logits on a few tokens, against target and adapter: {check.relative_difference:.1e} apart")
    echo(f"written: {output}")
