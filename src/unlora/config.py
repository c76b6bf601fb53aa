"""Base of every configuration: frozen, strict, read from YAML, overridden with dotted keys, hashed."""

import difflib
import hashlib
import json
import re
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from unlora.characters import shortened
from unlora.errors import InputError, nearest
from unlora.regular_files import refuse_irregular
from unlora.yaml_text import RepeatedKeyError, parse_yaml

ConfigType = TypeVar("ConfigType", bound="Config")

LARGEST_INTEGER = 2**32 - 1
"""Of any setting: the largest seed that NumPy takes."""


class Config(BaseModel):
    """A frozen record whose unknown keys are refused. Subclasses document each field with a docstring under it."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True, protected_namespaces=()
    )

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: Any) -> Any:
        """Python counts true as 1; who writes `epochs: true` does not."""
        if _holds_bool(value) and _takes_numbers(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("must be a number, not true or false")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _counts_are_countable(cls, value: Any) -> Any:
        """Whole numbers beyond the largest seed end in an overflow somewhere below."""
        for one in value if isinstance(value, list | tuple) else [value]:
            if isinstance(one, int) and one > LARGEST_INTEGER:
                raise ValueError(f"must be at most {LARGEST_INTEGER}")
        return value

    @classmethod
    def from_mapping(
        cls: type[ConfigType], values: Mapping[str, Any], *, where: str = "configuration", section: str = ""
    ) -> ConfigType:
        """Validate `values`.

        Args:
            values: by key.
            where: they come from, for a message.
            section: the dotted key under which the user wrote them; empty where they stand at the top.

        Raises:
            InputError: naming `where`, the dotted key, the value and, for a misspelt key, the nearest spelling.
        """
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise InputError(f"{where}: {_first_problem(cls, error, section)}") from None

    def to_yaml(self) -> str:
        """Return the resolved configuration as YAML, enough to repeat what it describes."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)

    def sha256(self) -> str:
        """Hash of the canonical JSON form; equal configurations have equal hashes."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(canonical.encode()).hexdigest()


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        InputError: the file is missing, unreadable, not YAML or not a mapping.
    """
    if path.exists() and not path.is_file() and not path.is_dir():
        raise InputError(f"{path}: is a pipe or a device, not a file; write what it gives into a file first.")
    try:
        refuse_irregular(path)
        values = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark is not None else ""
        raise InputError(f"{path}{line}: not valid YAML ({error.problem}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())}).") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise InputError(f"{path}: must hold keys and values, found {type(values).__name__}.")
    return values


def merge(base: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `other` laid over it, section by section.

    Raises:
        InputError: a section is laid over a value that is none, which would be lost without a word.
    """
    merged = dict(base)
    for key, value in other.items():
        below = merged.get(key)
        if isinstance(below, dict) and isinstance(value, Mapping):
            merged[key] = merge(below, value)
        elif below is not None and isinstance(value, Mapping):
            raise InputError(f"{key}: must be a section of keys (found {_shown(below)}).")
        else:
            merged[key] = value
    return merged


def parse_overrides(assignments: Sequence[str]) -> dict[str, Any]:
    """Turn `["training.learning_rate=1e-4"]` into a nested mapping; values are read as YAML.

    Raises:
        InputError: an assignment without "=" or with an empty key.
    """
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        parts = key.strip().split(".")
        if not equals or not all(parts):
            raise InputError(f"--set {shortened(assignment)}: must look like section.key=value.")
        nested: Any = _read_scalar(key.strip(), text)
        for part in reversed(parts):
            nested = {part: nested}
        values = merge(values, nested)
    return values


def _read_scalar(key: str, text: str) -> Any:
    """Read a value as YAML; what is none, such as a path with a bracket in it, is text."""
    try:
        value = parse_yaml(text)
    except RepeatedKeyError as error:
        raise InputError(f"--set {key}: {error.problem}.") from None
    except yaml.YAMLError:
        return text
    return value


def _holds_bool(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(isinstance(one, bool) for one in value))


def _takes_numbers(annotation: Any) -> bool:
    """Whether a field is a number, may be one, or is a list of them."""
    if get_origin(annotation) in (Union, UnionType, Annotated, list, tuple):
        return any(_takes_numbers(part) for part in get_args(annotation))
    return annotation in (int, float)


UNION_TAG = re.compile(r"(function-\w+|list|dict|tuple|set)\[")
"""Pydantic's name of one kind that a value may have, in the place of an error ("list[...]"); no key of anybody's."""


def _first_problem(cls: type[BaseModel], error: ValidationError, section: str) -> str:
    problem = error.errors(include_url=False)[0]
    within = ".".join(str(part) for part in problem["loc"] if not UNION_TAG.match(str(part)))
    key = shortened(".".join(filter(None, (section, within))))
    if problem["type"] == "extra_forbidden":
        return f"unknown key '{key}'.{_key_hint(within, list(_dotted_keys(cls)))}"
    if problem["type"] == "missing":
        return f"key '{key}' is missing."
    message = re.sub(r"^\w+ should ", "must ", problem["msg"].removeprefix("Value error, "))
    value, hint = problem.get("input"), ""
    if problem["type"] == "model_type":
        message = "must be a section of keys"
    if problem["type"] == "list_type":
        message = f"must be a list, such as [{shortened(str(value))}]"
    if problem["type"] == "literal_error" and isinstance(value, str):
        hint = nearest(value, _quoted(problem.get("ctx", {}).get("expected", "")))
    shown = f" (found {_shown(value)})" if isinstance(value, str | int | float | bool | list | None) else ""
    return f"{key + ': ' if key else ''}{message}{shown}.{hint}"


def _shown(value: Any) -> str:
    if value is None:
        return "nothing"
    # Of a list, as much as a line has room for: with nested aliases it may stand for more than memory holds.
    return shortened(repr(value) if isinstance(value, str | int | float) else reprlib.repr(value))


def _quoted(text: str) -> list[str]:
    return text.split("'")[1::2]


def _dotted_keys(cls: type[BaseModel], section: str = "") -> Iterator[str]:
    for name, field in cls.model_fields.items():
        yield section + name
        for kind in (field.annotation, *get_args(field.annotation)):  # of a section that may be left out too
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from _dotted_keys(kind, f"{section}{name}.")


def _key_hint(key: str, known: Sequence[str]) -> str:
    """Name the key that was meant: one spelt alike in the same section, or the like in another section."""
    section, _, name = key.rpartition(".")
    beside = [other for other in known if other.rpartition(".")[0] == section]
    for choices in (beside, known):
        by_name = {other.rpartition(".")[2]: other for other in choices}
        for match in difflib.get_close_matches(name, by_name, n=1):
            return f" Did you mean '{by_name[match]}'?"
    return f" Known keys: {', '.join(beside)}." if beside else ""
