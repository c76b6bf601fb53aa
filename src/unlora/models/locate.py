"""From a model's name to the place it is read from."""

import re
from pathlib import Path
from typing import Literal, NamedTuple

from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from unlora.errors import InputError, nearest
from unlora.models.embedded import HUB_ID, embedded_model_folder


class Location(NamedTuple):
    """Where `from_pretrained` finds a model."""

    kind: Literal["embedded", "hub", "folder"]
    path: str
    """A folder, or the hub id when the hub is to be asked."""
    local: bool
    """Whether `path` is a folder: then nothing may touch the network."""
    revision: str | None = None
    """Branch, tag or commit that the hub is asked for; None for its main branch."""


def locate(name: str) -> Location:
    """Find "embedded", a model folder or a hub id (from earlier downloads when the hub cannot be reached).

    A hub id may name a branch, tag or commit behind an @, such as "org/model@v1".

    Raises:
        InputError: there is no such model.
    """
    if name == "embedded":
        return Location("embedded", str(embedded_model_folder()), local=True)
    folder = Path(name)
    if folder.is_file():
        raise InputError(f"{name}: is a file; give the folder that holds the model.")
    if folder.exists():
        if not (folder / "config.json").is_file():
            raise InputError(f"{name}: holds neither a model (no config.json) nor an adapter (no adapter_config.json).")
        return Location("folder", name, local=True)
    return _locate_on_hub(name)


def _locate_on_hub(name: str) -> Location:
    repository, _, revision = name.partition("@")
    try:
        validate_repo_id(repository)
        if "@" in name and not re.fullmatch(r"[\w.][\w.\-/]*", revision):
            raise HFValidationError
    except HFValidationError:
        raise InputError(f"model '{name}': no such folder.") from None
    if _hub_answers(repository):
        return Location("hub", repository, local=False, revision=revision or None)
    cached = try_to_load_from_cache(repository, "config.json", revision=revision or None)
    if isinstance(cached, str):
        return Location("hub", str(Path(cached).parent), local=True)
    twin = " A 4-bit twin comes in a package: 'embedded' in place of this name." if name == HUB_ID else ""
    raise InputError(
        f"model '{name}': no such folder, and the Hugging Face hub cannot be reached to look for a model of that name "
        f"(nor was it{' in this revision' if revision else ''} downloaded before).{nearest(name, ['embedded'])}{twin}"
    )


def _hub_answers(name: str) -> bool:
    try:
        HfApi().model_info(name, timeout=10)
    except HfHubHTTPError:
        return True  # It answered, if only "not found": loading will say what is wrong.
    except Exception:  # Whatever the transport raises; asking once here spares half a minute of retries.
        return False
    return True
