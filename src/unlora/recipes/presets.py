"""Named settings that ship with the package, and how settings are put together."""

from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from unlora.audit.settings import SCALES, AuditSettings
from unlora.config import merge, parse_overrides, read_yaml
from unlora.errors import InputError, nearest
from unlora.recipes.settings import DataCheckSettings, EvaluateSettings, UnlearnSettings

DEFAULT_PRESET = "contrast_inputs"


class Preset(NamedTuple):
    """One file of `unlora/presets`."""

    name: str
    summary: str
    """Its first comment line."""
    text: str


def presets() -> dict[str, Preset]:
    """All presets by name."""
    folder = resources.files("unlora") / "presets"
    found = {}
    for file in sorted(folder.iterdir(), key=lambda item: item.name):
        if file.name.endswith(".yaml"):
            text = file.read_text(encoding="utf-8")
            name = file.name.removesuffix(".yaml")
            found[name] = Preset(name, text.splitlines()[0].removeprefix("# "), text)
    return found


def preset(name: str) -> Preset:
    """One preset.

    Raises:
        InputError: unknown name, with the nearest spelling.
    """
    known = presets()
    if name not in known:
        hint = nearest(name, known) or f" Known presets: {', '.join(known)}."
        raise InputError(f"unknown preset '{name}'.{hint}")
    return known[name]


def resolve_settings(
    *,
    preset_name: str | None,
    config_file: Path | None,
    flags: Mapping[str, Any],
    overrides: Sequence[str],
) -> UnlearnSettings:
    """Lay config file over preset, flags over both, and --set over everything; then validate.

    Args:
        preset_name: a preset; None takes the default one, or none where the config file says itself how to start
            (its section `importance`).
        config_file: a YAML file.
        flags: dotted keys and values from the command line; None values are left out.
        overrides: "section.key=value" texts.

    Raises:
        InputError: the first thing that is wrong, with its key.
    """
    from_file = read_yaml(config_file) if config_file is not None else {}
    if config_file is not None:
        refuse_code_of_a_run(config_file, from_file, lay_over({}, flags, overrides))
    if preset_name is None and "importance" not in from_file:
        preset_name = DEFAULT_PRESET
    values: dict[str, Any] = {"model": {}, "data": {}}
    if preset_name is not None:
        values = merge(values, yaml.safe_load(preset(preset_name).text))
    values = lay_over(merge(values, from_file), flags, overrides)
    where = "settings" if config_file is None else f"{config_file} with --set" if overrides else str(config_file)
    return UnlearnSettings.from_mapping(values, where=where)


def refuse_code_of_a_run(config_file: Path, values: Mapping[str, Any], said: Mapping[str, Any]) -> None:
    """Refuse the configuration of a run, which may be somebody else's, that names code unless the command does too.

    Args:
        config_file: with a record.json beside it, a run's; any other is the user's own writing.
        values: what is in it.
        said: what the command line says.

    Raises:
        InputError: naming the key, and how to say that the code may run.
    """
    if not (config_file.parent / "record.json").is_file():
        return
    for section, key in (("model", "trust_remote_code"), ("objective", "forget"), ("objective", "retain")):
        found = _of_section(values, section, key)
        names_code = ":" in found if isinstance(found, str) else bool(found)
        if names_code and _of_section(said, section, key) is None:
            how = f"--set {section}.{key}={found}" if section == "objective" else "--trust-remote-code"
            raise InputError(
                f"{config_file}: {section}.{key} '{found}' runs code, and the configuration of a run alone is not "
                f"trusted with that; read the code, then say {how}."
            )


def _of_section(values: Mapping[str, Any], section: str, key: str) -> Any:
    found = values.get(section)
    return found.get(key) if isinstance(found, Mapping) else None


def resolve_evaluation(*, flags: Mapping[str, Any], overrides: Sequence[str]) -> EvaluateSettings:
    """Settings of `unlora evaluate`, from flags and --set alone.

    Raises:
        InputError: the first thing that is wrong, with its key.
    """
    return EvaluateSettings.from_mapping(lay_over({"model": {}, "data": {}}, flags, overrides), where="settings")


def resolve_data_check(*, flags: Mapping[str, Any], overrides: Sequence[str]) -> DataCheckSettings:
    """Settings of `unlora data check`, from flags and --set alone.

    Raises:
        InputError: the first thing that is wrong, with its key.
    """
    return DataCheckSettings.from_mapping(lay_over({"model": {}, "data": {}}, flags, overrides), where="settings")


def resolve_audit(*, scale: str, flags: Mapping[str, Any], overrides: Sequence[str]) -> AuditSettings:
    """Settings of `unlora audit`: a scale, flags over it, and --set over both.

    Raises:
        InputError: the first thing that is wrong, with its key.
    """
    return AuditSettings.from_mapping(lay_over(SCALES[scale], flags, overrides), where="settings")


def lay_over(values: Mapping[str, Any], flags: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Lay flags (dotted keys; None values are left out) over `values`, and --set texts over both."""
    merged = dict(values)
    for key, value in flags.items():
        if value is not None:
            for part in reversed(key.split(".")):
                value = {part: value}
            merged = merge(merged, value)
    return merge(merged, parse_overrides(overrides))
