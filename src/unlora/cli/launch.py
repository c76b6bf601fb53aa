"""`--accelerate-config`: start a command in several processes, and what the command line does otherwise in each."""

import functools
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from unlora.cli.terminal import echo
from unlora.errors import nearest

SECOND_HAND_SECONDS = 20.0
"""How long a process that cannot know whether it is the first to fail leaves the word to the others. A launcher ends
the rest within a second of the first, on a machine with nothing to spare within many."""

CONFIGS = Path(__file__).resolve().parents[1] / "launch"
"""The package is always files in a folder; `importlib.resources`, which knows archives too, would load as much again as
a third of all that --help needs."""

ARGUMENTS = "unlora.arguments"
"""Where the context keeps the words of the command line."""


def process_count() -> int:
    """How many processes a launcher started this command in."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def process_index() -> int:
    """Which one this is; known before anything heavy is imported."""
    return int(os.environ.get("RANK", "0")) if process_count() > 1 else 0


def leave_the_word_to_others() -> None:
    """Wait to be ended by the launcher: only if that does not happen is this process the one to speak."""
    time.sleep(SECOND_HAND_SECONDS)


def several_processes(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options to run in several processes; in those that a launcher started they do nothing."""

    @click.option(
        "--accelerate-config",
        "--accelerate_config",
        metavar="NAME_OR_FILE",
        help=f"Run in several processes: {', '.join(config_names())}, or a file of accelerate's.",
    )
    @click.option("--num-processes", "--num_processes", type=click.IntRange(1), help="How many; by default one a GPU.")
    @functools.wraps(command)
    def wrapper(*args: Any, accelerate_config: str | None, num_processes: int | None, **options: Any) -> Any:
        if accelerate_config is None and num_processes is not None:
            raise click.UsageError("--num-processes goes with --accelerate-config.")
        if accelerate_config is None or "LOCAL_RANK" in os.environ:
            return command(*args, **options)
        words = click.get_current_context().meta[ARGUMENTS]
        return _launch(_find(accelerate_config), num_processes, words)

    return wrapper


def config_names() -> list[str]:
    """The launch configurations that come with unlora."""
    return sorted(file.stem for file in CONFIGS.glob("*.yaml"))


def _find(name: str) -> Path:
    if name in config_names():
        return CONFIGS / f"{name}.yaml"
    if Path(name).is_file():
        return Path(name)
    hint = nearest(name, config_names()) or f" Known: {', '.join(config_names())}."
    raise click.UsageError(f"--accelerate-config {name}: neither a known name nor a file.{hint}")


def _launch(config: Path, count: int | None, words: list[str]) -> None:
    """Start `unlora WORDS` in `count` processes and end as they do: what went wrong is said once, by one of them."""
    import logging

    import yaml
    from accelerate.commands.launch import launch_command, launch_command_parser
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    logging.getLogger("torch.distributed").setLevel(logging.CRITICAL)  # It reports each process that it had to end.
    chosen = yaml.safe_load(config.read_text(encoding="utf-8"))
    if chosen.get("distributed_type") == "DEEPSPEED" and find_spec("deepspeed") is None:
        raise click.UsageError(f"--accelerate-config {config.stem}: needs DeepSpeed; pip install 'unlora[deepspeed]'.")
    count = count or chosen.get("num_processes") or _device_count(config)
    options = ["--config_file", str(config), "--num_processes", str(count)]
    if config.parent.name == "launch" and config.stem in config_names():
        options += ["--main_process_port", "0"]  # any that is free: two runs on one machine do not meet
    arguments = launch_command_parser().parse_args([*options, "--module", "unlora", *words])
    try:
        launch_command(arguments)
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        if failure.exitcode > 0:
            sys.exit(failure.exitcode)
        name = signal.Signals(-failure.exitcode).name
        message = f"process {rank} of {arguments.num_processes} was ended by {name}, and the others with it"
        echo(f"error: {message}; the same command goes on where it stopped.", err=True)
        sys.exit(1)


def _device_count(config: Path) -> int:
    import torch

    count = torch.accelerator.device_count()
    if not count:
        raise click.UsageError(f"--accelerate-config {config.stem}: no GPU here to count; say --num-processes.")
    return count
