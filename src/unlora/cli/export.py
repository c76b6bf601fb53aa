"""`unlora export`."""

from pathlib import Path

import click

from unlora.cli.options import OUTPUT, PATH, TRUST_HELP
from unlora.cli.terminal import echo


@click.command()
@click.argument("run", type=PATH)
@click.option("--adapter", "form", flag_value="adapter", help="The adapter as trained (rank 2r).")
@click.option("--merged", "form", flag_value="merged", help="One model folder, adapter merged in.")
@click.option("--rank", type=click.IntRange(min=1), help="An adapter squeezed to this rank by SVD, with its error.")
@click.option("--public-base", is_flag=True, help="Target = base + adapter: write one adapter for that base.")
@click.option("--trust-remote-code", is_flag=True, help=TRUST_HELP)
@click.option("--output", type=OUTPUT, help="Folder to write; by default beside the run's own files.")
def export(
    run: Path, form: str | None, rank: int | None, public_base: bool, trust_remote_code: bool, output: Path | None
) -> None:
    """Turn a finished run into a folder to deploy."""
    if form is None and rank is None:
        raise click.UsageError("say what to write: --adapter, --merged or --rank R.")
    if form == "merged" and (rank is not None or public_base):
        raise click.UsageError("--merged goes with neither --rank nor --public-base.")
    from unlora.cli.console import ConsoleReporter
    from unlora.recipes.export import export_adapter, export_merged

    name = "merged" if form == "merged" else "adapter" + ("-public-base" if public_base else "")
    output = output or run / "export" / (name if rank is None else f"{name}-rank-{rank}")
    if form == "merged":
        export_merged(run, output, trust_remote_code=trust_remote_code, reporter=ConsoleReporter())
    else:
        error = export_adapter(
            run,
            output,
            rank=rank,
            public_base=public_base,
            trust_remote_code=trust_remote_code,
            reporter=ConsoleReporter(),
        )
        if rank is not None:
            echo(f"relative error of the weight update at rank {rank}: {error:.2e}")
    echo(f"written: {output}")
