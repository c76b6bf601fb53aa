"""Options that several commands share, spelt once."""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from unlora.cli.terminal import echo
from unlora.places import broken_link

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

PATH = click.Path(path_type=Path)


class OutputPath(click.Path):
    """A path to write: whether it can be made is found out before any work."""

    def __init__(self) -> None:
        super().__init__(path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not str(value):
            self.fail("is empty; name a place to write to.", param, ctx)
        path = Path(str(super().convert(value, param, ctx)))
        link = broken_link(path)
        if link is not None:
            self.fail(f"{link} is a link that leads nowhere.", param, ctx)
        parent = next((folder for folder in path.absolute().parents if folder.exists()), path)
        if not parent.is_dir():
            self.fail(f"{parent} is a file, not a folder.", param, ctx)
        if not os.access(parent, os.W_OK):
            self.fail(f"{parent} cannot be written.", param, ctx)
        return path


OUTPUT = OutputPath()


TEMPLATE = click.Choice(["auto", "chat", "plain", "llama2"])
TEMPLATE_HELP = "How questions become text."

TRUST_HELP = "Run code that the model brings along."

FLAG_KEYS = {
    "model": "model.name",
    "base": "model.base",
    "dtype": "model.dtype",
    "device": "model.device",
    "trust_remote_code": "model.trust_remote_code",
    "start": "start.kind",
    "loss": "objective.forget",
    "forget": "data.forget",
    "retain": "data.retain",
    "template": "data.template",
    "adapter": "adapter",
    "retain_only": "evaluation.retain_only",
    "protocol": "evaluation.protocol",
    "seed": "seed",
    "report_to": "training.report_to",
}
"""Command-line flag -> dotted key of the settings."""


def several(*decorators: Decorator) -> Decorator:
    """Apply decorators so that help lists them in the order given."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def examples(*commands: str) -> str:
    """Commands as they stand, for the end of a help text."""
    return "\b\n" + "\n".join(("Examples:", *(f"  {command}" for command in commands)))


model_options = several(
    click.option("--model", metavar="DIR_OR_ID", help="Target model: hub id, folder, adapter folder, or 'embedded'."),
    click.option("--base", metavar="DIR_OR_ID", help="Base of an adapter folder, when not where its config says."),
    click.option("--dtype", type=click.Choice(["auto", "float32", "bfloat16", "float16"]), help="Weights' format."),
    click.option("--device", metavar="NAME", help="auto, cpu, cuda or cuda:N."),
    click.option("--trust-remote-code", is_flag=True, default=None, help=TRUST_HELP),
)

data_options = several(
    click.option("--forget", metavar="FILE", help="Records to forget: JSON lines, tofu:SPLIT or tofu:SPLIT@FOLDER."),
    click.option("--retain", metavar="FILE", help="Records to keep, in the same form."),
    click.option("--template", type=TEMPLATE, help=TEMPLATE_HELP),
)

settings_options = several(
    click.argument("config", required=False, type=PATH),
    click.option("--preset", metavar="NAME", help="Named settings to start from; see 'unlora presets ls'."),
    click.option("--start", metavar="NAME", help="Where LoRA starts: a name of 'unlora presets ls', or module:Class."),
    click.option("--loss", metavar="NAME", help="The forget term: a name of 'unlora presets ls', or module:Class."),
    click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Any setting, by its dotted key."),
    click.option("--seed", type=int, help="Seed of the run."),
)


def require(names: Sequence[str], flags: Mapping[str, Any], overrides: Sequence[str]) -> None:
    """Refuse a command without options that only --set could give instead.

    Raises:
        click.UsageError: naming the first.
    """
    for name in names:
        key = FLAG_KEYS[name]
        if flags[name] is None and not any(override.startswith(f"{key}=") for override in overrides):
            raise click.UsageError(f"Missing option '--{name}'.")


def settings_from(config: Path | None, preset: str | None, overrides: tuple[str, ...], flags: dict[str, Any]) -> Any:
    """Resolve the settings of a command from its options."""
    if config is None:
        require(("model", "forget"), flags, overrides)
    from unlora.run.presets import resolve_settings

    return resolve_settings(
        preset_name=preset,
        config_file=config,
        flags={FLAG_KEYS[name]: value for name, value in flags.items()},
        overrides=overrides,
        say=_say_once,
    )


def _say_once(line: str) -> None:
    """Say it on standard error, in one process of all that share a run."""
    if os.environ.get("RANK", "0") == "0":
        echo(line, err=True)
