"""Named settings that ship with the package, and how settings are put together."""

from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from unlora.audit.settings import SCALES, AuditSettings
from unlora.config import merge, parse_overrides, read_yaml
from unlora.errors import InputError, nearest
from unlora.run.old_presets import OLD_PRESETS, what_to_write
from unlora.run.old_settings import with_start
from unlora.run.settings import DataCheckSettings, EvaluateSettings, UnlearnSettings
from unlora.suites.table import read_name, read_suites

DEFAULT_PRESET = "default"

SWITCHES = {"start": ("kind", None), "objective": ("forget", "forget_parameters")}
"""Section -> the key that decides what else it may hold, and where that is: None for the whole section."""


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


def preset_values(name: str, say: Callable[[str], None]) -> dict[str, Any]:
    """Settings of a preset; one of unlora 0.1 is said to be a start or a loss now.

    Raises:
        InputError: unknown name, with the nearest spelling.
    """
    default: dict[str, Any] = yaml.safe_load(presets()[DEFAULT_PRESET].text)
    if name not in OLD_PRESETS:
        return yaml.safe_load(preset(name).text)
    say(f"note: --preset {name} is {what_to_write(OLD_PRESETS[name])} now; the old name goes with unlora 0.3.")
    return laid_over(default, OLD_PRESETS[name])


def resolve_settings(
    *,
    preset_name: str | None,
    config_file: Path | None,
    flags: Mapping[str, Any],
    overrides: Sequence[str],
    say: Callable[[str], None] = lambda _line: None,
) -> UnlearnSettings:
    """Lay config file over preset, flags over both, and --set over everything; then validate.

    Args:
        preset_name: a preset; None takes the default one, or none where the config file says itself how to start
            (its section `start`).
        config_file: a YAML file.
        flags: dotted keys and values from the command line; None values are left out.
        overrides: "section.key=value" texts.
        say: gets a line for what is written otherwise now.

    Raises:
        InputError: the first thing that is wrong, with its key.
    """
    from_file = read_yaml(config_file) if config_file is not None else {}
    if config_file is not None:
        refuse_code_of_a_run(config_file, from_file, lay_over({}, flags, overrides))
    if preset_name is None and not {"start", "importance"} & set(from_file):
        preset_name = DEFAULT_PRESET
    values: dict[str, Any] = {"model": {}, "data": {}}
    if preset_name is not None:
        values = merge(values, preset_values(preset_name, say))
    values = lay_over(_without_old(laid_over(values, from_file), say), flags, overrides)
    where = "settings" if config_file is None else f"{config_file} with --set" if overrides else str(config_file)
    return UnlearnSettings.from_mapping(_without_old(values, say), where=where)


def _without_old(values: dict[str, Any], say: Callable[[str], None]) -> dict[str, Any]:
    """Read the section `importance` of unlora 0.1, and say what to write."""
    if "importance" not in values:
        return values
    new = with_start(values)
    told = ", ".join(f"start.{key}: {value}" for key, value in new["start"].items())
    say(f"note: the section 'importance' is 'start' now ({told}); the old one goes with unlora 0.3.")
    return new


def laid_over(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Lay settings over settings; another start, or another loss, comes without what was set for the one before."""
    base = dict(base)
    for section, (key, belongs) in SWITCHES.items():
        before, after = base.get(section), other.get(section)
        if not (isinstance(before, Mapping) and isinstance(after, Mapping)) or key not in after:
            continue
        if after[key] != before.get(key):
            base[section] = {} if belongs is None else {name: one for name, one in before.items() if name != belongs}
    return merge(base, other)


CODE = (
    ("model", "trust_remote_code"),
    ("objective", "forget"),
    ("objective", "retain"),
    ("start", "kind"),
    ("evaluation", "suites"),
)
"""Settings that may name code."""


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
    for section, key in CODE:
        found = _of_section(values, section, key)
        if _names_code(found) and _of_section(said, section, key) is None:
            how = "--trust-remote-code" if section == "model" else f"--set {section}.{key}={found}"
            raise InputError(
                f"{config_file}: {section}.{key} '{found}' runs code, and the configuration of a run alone is not "
                f"trusted with that; read the code, then say {how}."
            )


def _names_code(found: Any) -> bool:
    """Whether a setting is on, names a class of somebody's own, or is a list of suites that has one."""
    if not isinstance(found, list):
        return ":" in found if isinstance(found, str) else bool(found)
    try:
        return any(one.is_own for one in read_suites(found))
    except InputError:  # It is refused where the settings are read.
        return False


def _of_section(values: Mapping[str, Any], section: str, key: str) -> Any:
    found = values.get(section)
    return found.get(key) if isinstance(found, Mapping) else None


def resolve_evaluation(
    *, suites: Sequence[str], flags: Mapping[str, Any], overrides: Sequence[str]
) -> EvaluateSettings:
    """Settings of `unlora evaluate`, from flags and --set alone.

    Args:
        suites: names of suites.
        flags: dotted keys and values from the command line; None values are left out.
        overrides: "section.key=value" texts.

    Raises:
        InputError: the first thing that is wrong, with its key.
    """
    values: dict[str, Any] = {"model": {}, "evaluation": {"suites": list(suites)}}
    if not all(read_name(name).brings_data for name in suites):
        values["data"] = {}
    return EvaluateSettings.from_mapping(lay_over(values, flags, overrides), where="settings")


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
            merged = laid_over(merged, value)
    return laid_over(merged, parse_overrides(overrides))
