"""`unlora plan`."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from unlora.cli.options import data_options, examples, model_options, settings_from, settings_options
from unlora.cli.terminal import echo, echo_json

UNITS = {"MB": 10**6, "MIB": 2**20, "GB": 10**9, "GIB": 2**30}


class Memory(click.ParamType):
    """Bytes, as people write them."""

    name = "memory"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value).strip().upper()
        unit = next((unit for unit in UNITS if text.endswith(unit)), "GB")
        try:
            size = float(text.removesuffix(unit))
        except ValueError:
            size = 0.0
        if not 0 < size < float("inf"):
            self.fail(f"'{value}': give a positive size such as 24GB, 24GiB or 500MB.", param, ctx)
        return round(size * UNITS[unit])


@click.command(
    epilog=examples(
        "unlora plan --model DIR --forget forget.jsonl --retain retain.jsonl",
        "unlora plan CONFIG.yaml --devices 4 --memory 24GB",
    )
)
@settings_options
@model_options
@data_options
@click.option("--devices", type=click.IntRange(min=1), default=1, show_default=True, help="Processes, one a device.")
@click.option(
    "--memory", type=Memory(), metavar="SIZE", help="Of one device, such as 24GB. Default: what is free here."
)
@click.option(
    "--tflops", type=click.FloatRange(min=0, min_open=True), help="Of one device. Default: measured here in a second."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def plan(
    config: Path | None,
    preset: str | None,
    overrides: tuple[str, ...],
    devices: int,
    memory: int | None,
    tflops: float | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Say what `unlora unlearn` with the same options would take: memory by part, tokens, steps, time.

    Of the model only the config is read. Every part is counted, not guessed; the time is a guess between two bounds.
    """
    if tflops is not None and not math.isfinite(tflops):
        raise click.BadParameter(f"{tflops} is no number of operations.", param_hint="'--tflops'")
    settings = settings_from(config, preset, overrides, flags)
    from unlora.recipes.plan.advice import judge_plan, measured_rate
    from unlora.recipes.plan.batches import read_run_data
    from unlora.recipes.plan.cost import make_plan

    reading = read_run_data(settings)
    made = make_plan(settings, reading, devices=devices)
    rate = tflops * 1e12 if tflops is not None else measured_rate(settings.model)
    verdict = judge_plan(settings, reading, made, available=memory, flops_a_second=rate)
    if as_json:
        said = {"peak": made.peak, "largest_part": made.largest_part[0], "fits": verdict.fits}
        plan = {**asdict(made), "reach": made.reach.to_json()}
        echo_json({**plan, **asdict(verdict), **said})
        return
    for line in (*plan_lines(made), time_line(made, verdict, rate), *verdict_lines(made, verdict)):
        echo(line)


def plan_lines(made: Any) -> list[str]:
    """Sizes, in words."""
    file = f"; importance file {megabytes(made.importance_file)}" if made.importance_file else ""
    measured = f"; {made.measured_examples} measured" if made.measured_examples else ""
    found = [
        f"model        {made.parameters:,} parameters, {made.module_count} target modules",
        f"reach        {made.reach.sentence()}",
        f"adapter      {made.trained_parameters:,} trained parameters, {made.adapter_parameters:,} saved "
        f"({megabytes(4 * made.adapter_parameters)}){file}",
        f"data         forget {made.forget_examples} examples, {made.forget_tokens:,} tokens; retain "
        f"{made.retain_examples}, {made.retain_tokens:,}; the longest has {made.longest}{measured}",
        f"steps        {'at most ' if made.to_level else ''}{made.steps}, {made.trained_tokens:,} tokens with padding"
        + (f", on {made.devices} devices" if made.devices > 1 else ""),
    ]
    for stage, parts in made.memory.items():
        if parts:
            told = ", ".join(f"{part} {size / 1e9:.2f}" for part, size in parts.items())
            found.append(f"{stage:<12} {gigabytes(sum(parts.values()))}: {told}")
    return found


def time_line(made: Any, verdict: Any, rate: float) -> str:
    """Operations and what they may take."""
    fast, slow = (guessed_duration(seconds) for seconds in verdict.seconds)
    most = "at most " if made.to_level else ""
    total = made.importance_flops + made.training_flops
    return (
        f"time         {most}{fast} to {slow} without evaluation: {total / 1e12:.1f} TFLOP, "
        f"{made.importance_flops / total:.0%} of it importance, at 100 to 20 % of {made.devices} x "
        f"{rate / 1e12:.2f} TFLOP/s"
    )


def verdict_lines(made: Any, verdict: Any) -> list[str]:
    """Whether it fits, and what would change it."""
    needed = f"{gigabytes(verdict.needed)}, {gigabytes(verdict.available)} available"
    if verdict.fits:
        return [f"fits         {needed}"]
    part, size = made.largest_part
    largest = f"the largest part of {made.peak_stage} is {part}, {gigabytes(size)}"
    found = [f"does not fit {needed}; {largest}. {'Instead:' if verdict.advice else 'No setting helps.'}"]
    for advice in verdict.advice:
        enough = verdict.needed / made.peak * advice.peak
        word = "fits" if enough <= verdict.available else ""
        found.append(f"  {gigabytes(enough):>9} {word:<4} " + " ".join(f"--set {one}" for one in advice.changes))
    return found


def gigabytes(size: int | float) -> str:
    """As people read it."""
    return f"{size / 1e9:.2f} GB"


def megabytes(size: int) -> str:
    """As people read it."""
    return f"{size / 1e6:.1f} MB"


def guessed_duration(seconds: float) -> str:
    """As people read it."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
