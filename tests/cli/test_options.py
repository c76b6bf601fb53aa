"""The command line offers what the settings have; its help loads no settings, so this is checked."""

from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import click
import pytest
from pydantic import BaseModel

from unlora.cli.main import main
from unlora.cli.options import FLAG_KEYS
from unlora.run.settings import EvaluateSettings, FineTuneSettings, UnlearnSettings

SETTINGS: dict[str, type[BaseModel]] = {
    "unlearn": UnlearnSettings, "plan": UnlearnSettings, "importance": UnlearnSettings, "sequence": UnlearnSettings,
    "evaluate": EvaluateSettings, "finetune": FineTuneSettings,
}  # fmt: skip


def options() -> list[tuple[str, click.Option]]:
    return [
        (name, option)
        for name in SETTINGS
        for option in main.commands[name].params
        if isinstance(option, click.Option) and option.name is not None
    ]


def annotation(settings: type[BaseModel], key: str) -> Any:
    """Type of the field with a dotted key, also of a section that may be missing; None where there is none."""
    found: Any = settings
    for part in key.split("."):
        sections = [one for one in (found, *get_args(found)) if isinstance(one, type) and issubclass(one, BaseModel)]
        field = next((one.model_fields[part] for one in sections if part in one.model_fields), None)
        if field is None:
            return None
        found = field.annotation
    return found


def field_of(command: str, option: click.Option) -> Any:
    key = FLAG_KEYS.get(str(option.name), str(option.name))
    if command == "finetune" and not key.startswith("model."):
        key = str(option.name)
    return annotation(SETTINGS[command], key)


def choices(hint: Any) -> set[str]:
    """What a field of named values takes."""
    if get_origin(hint) is Literal:
        return {str(one) for one in get_args(hint)}
    if get_origin(hint) in (Union, UnionType):
        return set().union(*(choices(one) for one in get_args(hint)))
    return set()


def test_every_flag_of_a_setting_names_one():
    for name, option in options():
        if option.name in FLAG_KEYS:
            assert field_of(name, option) is not None, f"{name} --{option.name}"


@pytest.mark.parametrize(("name", "option"), options(), ids=lambda one: getattr(one, "name", one))
def test_flag_offers_what_its_setting_takes(name: str, option: click.Option):
    hint = field_of(name, option)
    if isinstance(option.type, click.Choice):
        assert hint is None or set(option.type.choices) == choices(hint)
    else:
        assert not choices(hint), f"--{option.name} could name its choices"
    if hint in (int, float):
        assert option.type in (click.INT, click.FLOAT)
