"""What can be wrong with a model's folder before anything in it is read."""

import json
from pathlib import Path

from unlora.artifacts import read_json_object, refuse_cut_tensors
from unlora.errors import InputError
from unlora.regular_files import refuse_irregular

OBJECTS = ("config.json", "generation_config.json", "tokenizer_config.json")
"""Files that transformers takes for JSON objects without a look."""


def refuse_unsafe_files(folder: Path) -> None:
    """Refuse a folder with pipes or devices, configs that are none, or weights that were cut short or lie elsewhere.

    Raises:
        InputError: naming the file.
    """
    for file in sorted(folder.iterdir()):
        refuse_irregular(file)
    for name in OBJECTS:
        _refuse_no_object(folder / name)
    for index in sorted(folder.glob("*.safetensors.index.json")):
        _refuse_elsewhere(index)
    refuse_cut_tensors(folder)


def _refuse_no_object(file: Path) -> None:
    try:
        found = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return  # Missing, or not JSON at all, which transformers says itself.
    if not isinstance(found, dict):
        raise InputError(f"{file}: must be a JSON object; copy it here again.")


def _refuse_elsewhere(index: Path) -> None:
    shards = read_json_object(index).get("weight_map")
    if not isinstance(shards, dict):
        raise InputError(f"{index}: has no weight_map that says which file holds which tensor; copy it here again.")
    for tensor, shard in shards.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise InputError(f"{index}: names {shard!r} for {tensor}, which is no file of this folder.")
