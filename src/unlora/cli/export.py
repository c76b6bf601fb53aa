"""`unlora export`."""

from pathlib import Path
from typing import Any

import click

from unlora.cli.options import OUTPUT, PATH, TRUST_HELP
from unlora.cli.terminal import echo
from unlora.regular_files import refuse_missing

OUTTYPES = ("f32", "f16", "bf16", "q8_0")


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
@click.option("--to", type=click.Choice(["gguf", "mlx"]), help="Write it for llama.cpp, or an adapter for mlx-lm.")
@click.option("--outtype", type=click.Choice(OUTTYPES), help="GGUF: number format [adapter: f32; model: its own].")
@click.option("--llama-cpp", type=PATH, envvar="UNLORA_LLAMA_CPP", help="GGUF: checkout with the converters.")
@click.option("--base-gguf", type=PATH, help="GGUF: try the adapter on this base, which may be in 4 bits.")
@click.option("--check/--no-check", default=True, help="GGUF, MLX: score the run's answers there, if it is installed.")
@click.option("--base-name", metavar="ID", help="Hub id by which the files call the base.")
@click.option("--trust-remote-code", is_flag=True, help=TRUST_HELP)
@click.option("--output", type=OUTPUT, help="Folder to write; by default beside the run's own files.")
def export(run: Path, output: Path | None, **options: Any) -> None:
    """Turn a finished run into a folder to deploy."""
    form, rank, public_base, to = (options[key] for key in ("form", "rank", "public_base", "to"))
    if form is None and rank is None:
        raise click.UsageError("say what to write: --adapter, --merged or --rank R.")
    if form == "merged" and (rank is not None or public_base is not None):
        raise click.UsageError("--merged goes with none of --rank, --public-base and --on-target.")
    if to != "gguf" and any(options[key] is not None for key in ("outtype", "base_gguf")):
        raise click.UsageError("--outtype and --base-gguf are for --to gguf.")
    refuse_missing(run)
    kind = {None: "", True: "-public-base", False: "-on-target"}[public_base]
    name = "merged" if form == "merged" else f"adapter{kind}"
    name = name if rank is None else f"{name}-rank-{rank}"
    output = output or run / "export" / (name if to is None else f"{name}-{to}")
    write = _write_converted if to is not None else _write_merged if form == "merged" else _write_adapter
    write(run, output, options)
    echo(f"written: {output}")


def _write_merged(run: Path, output: Path, options: dict[str, Any]) -> None:
    from unlora.cli.console import ConsoleReporter
    from unlora.recipes.export import export_merged

    chosen = {key: options[key] for key in ("base_name", "trust_remote_code")}
    check = export_merged(run, output, **chosen, reporter=ConsoleReporter())
    echo(f"logits on a few tokens, against target and adapter: {check.relative_difference:.1e} apart")


def _write_adapter(run: Path, output: Path, options: dict[str, Any]) -> None:
    from unlora.cards.model_card import serving_rank
    from unlora.cli.console import ConsoleReporter
    from unlora.recipes.export import export_adapter

    chosen = {key: options[key] for key in ("rank", "public_base", "base_name", "trust_remote_code")}
    done = export_adapter(run, output, **chosen, reporter=ConsoleReporter())
    if options["rank"] is not None:
        echo(f"relative error of the weight update at rank {options['rank']}: {done.error:.2e}")
    place = "the base under the target's own adapter" if done.public_base else "the target"
    echo(f"rank {done.rank}, for {place}; vLLM: --max-lora-rank {serving_rank(done.rank)}")
    echo(f"logits on a few tokens, against target and adapter: {done.check.relative_difference:.1e} apart")


def _write_converted(run: Path, output: Path, options: dict[str, Any]) -> None:
    from unlora.cli.console import ConsoleReporter
    from unlora.consumers.llama_cpp import GgufSettings
    from unlora.consumers.table import FORMS
    from unlora.recipes.convert import Wanted, convert

    merged = options["form"] == "merged"
    make = FORMS.get((options["to"], "merged" if merged else "adapter"))
    if make is None:
        raise click.UsageError(f"--to {options['to']} is for adapters; it reads what --merged writes as it is.")
    form = make(GgufSettings(options["outtype"], options["llama_cpp"], options["base_gguf"]))
    chosen = (options[key] for key in ("rank", "public_base", "base_name", "check"))
    trust = options["trust_remote_code"]
    done = convert(run, output, form, Wanted(merged, *chosen), trust_remote_code=trust, reporter=ConsoleReporter())
    if done.agreement is None:
        echo(f"not tried in {form.name}: {done.program}")
        return
    found = done.agreement
    echo(
        f"{done.program}, {found.tokens} answer tokens: log-probabilities at most {found.largest:.1e} nats from those "
        f"measured here, on average {found.mean:.1e}"
    )
    echo(f"probability of a forgotten answer: {found.forget[1]:.3f} (here {found.forget[0]:.3f})")
    if found.retain is not None:
        echo(f"probability of a kept answer: {found.retain[1]:.3f} (here {found.retain[0]:.3f})")
