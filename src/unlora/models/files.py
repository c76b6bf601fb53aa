"""What can be wrong with a model's folder before anything in it is read."""

from pathlib import Path

from unlora.artifacts import read_json_object, refuse_cut_tensors
from unlora.errors import InputError
from unlora.regular_files import refuse_irregular


def refuse_unsafe_files(folder: Path) -> None:
    """Refuse a folder with pipes or devices in it, with weights that were cut short, or with weights elsewhere.

    Raises:
        InputError: naming the file.
    """
    for file in sorted(folder.iterdir()):
        refuse_irregular(file)
    for index in sorted(folder.glob("*.safetensors.index.json")):
        _refuse_elsewhere(index)
    refuse_cut_tensors(folder)


def _refuse_elsewhere(index: Path) -> None:
    shards = read_json_object(index).get("weight_map")
    if not isinstance(shards, dict):
        raise InputError(f"{index}: has no weight_map that says which file holds which tensor; copy it here again.")
    for tensor, shard in shards.items():
        if not isinstance(shard, str) or Path(shard).name != shard:
            raise InputError(f"{index}: names {shard!r} for {tensor}, which is no file of this folder.")
