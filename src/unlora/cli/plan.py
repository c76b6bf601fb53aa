"""`unlora plan`."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from unlora.cli.options import data_options, examples, model_options, settings_from, settings_options


@click.command(epilog=examples("unlora plan --model DIR --forget forget.jsonl --retain retain.jsonl --memory 24"))
@settings_options
@model_options
@data_options
@click.option("--memory", type=click.FloatRange(min=0, min_open=True), metavar="GB", help="Default: what is free here.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    config: Path | None,
    preset: str | None,
    overrides: tuple[str, ...],
    memory: float | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Say what `unlora unlearn` with the same options would take: memory by part, tokens, steps, time."""
    settings = settings_from(config, preset, overrides, flags)
    from unlora.recipes.plan import MARGIN, Plan, alternatives, free_memory, make_plan, matmul_rate
    from unlora.runtime import resolve_device, resolve_dtype

    made: Plan = make_plan(settings)
    if as_json:
        click.echo(json.dumps(asdict(made) | {"peak": made.peak}, indent=2))
        return
    device = resolve_device(settings.model.device)
    rate = matmul_rate(device, resolve_dtype(settings.model.dtype, device))
    for line in lines(made, rate, device.type):
        click.echo(line)
    available = round(memory * 1e9) if memory is not None else free_memory(device)
    margin = f"with a margin of {MARGIN - 1:.0%}"
    if MARGIN * made.peak <= available:
        click.echo(f"fits         {gigabytes(made.peak)} {margin} in {gigabytes(available)}")
        return
    click.echo(f"does not fit {gigabytes(made.peak)} {margin} in {gigabytes(available)}; what would change it:")
    for changes, peak in alternatives(settings):
        click.echo(f"  {gigabytes(peak):>9}  " + " ".join(f"--set {change}" for change in changes))
        if MARGIN * peak <= available:
            break


def lines(made: Any, rate: float, device: str) -> list[str]:
    """The plan in words."""
    flops = made.importance_flops + made.training_flops
    found = [
        f"model        {made.parameters:,} parameters, {made.module_count} target modules",
        f"adapter      {made.trained_parameters:,} trained parameters, {made.adapter_parameters:,} saved "
        f"({4 * made.adapter_parameters / 1e6:.1f} MB)",
        f"data         forget {made.forget_examples} examples, {made.forget_tokens:,} tokens; retain "
        f"{made.retain_examples}, {made.retain_tokens:,}; the longest has {made.longest}",
        f"steps        {made.steps}",
    ]
    for stage, parts in (("importance", made.importance_memory), ("training", made.training_memory)):
        if parts:
            told = ", ".join(f"{part} {gigabytes(size)}" for part, size in parts.items())
            found.append(f"{stage:<12} {gigabytes(sum(parts.values()))}: {told}")
    slow, fast = flops / rate / 0.2, flops / rate
    found.append(
        f"time         {flops / 1e12:.1f} TFLOP without padding and evaluation; at 20 to 100 % of the "
        f"{rate / 1e12:.2f} TFLOP/s of matrix products on this {device}: {duration(fast)} to {duration(slow)}"
    )
    return found


def gigabytes(size: int) -> str:
    """As people read it."""
    return f"{size / 1e9:.2f} GB"


def duration(seconds: float) -> str:
    """As people read it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
