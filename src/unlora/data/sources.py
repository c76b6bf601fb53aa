"""One way to name data on the command line and in configurations."""

from collections.abc import Callable
from pathlib import Path

from unlora.data.facts import read_part
from unlora.data.muse import load_muse
from unlora.data.records import ExampleSet
from unlora.data.tofu import load_tofu
from unlora.data.user_jsonl import read_examples
from unlora.data.wmdp import load_wmdp
from unlora.errors import InputError

SCHEMES: dict[str, Callable[[str, Path | None], ExampleSet]] = {
    "tofu": load_tofu,
    "muse": load_muse,
    "wmdp": load_wmdp,
}


def load_examples(spec: str) -> ExampleSet:
    """Load what `spec` names.

    Args:
        spec: the path of a file of JSON lines, or SCHEME:NAME from the hub, or SCHEME:NAME@FOLDER from local files:
            "tofu:forget01", "muse:news/forget@FOLDER", "wmdp:cyber-forget-corpus"; or a part of another
            SPEC, facts:seen@SPEC or facts:held_out@SPEC (`unlora.data.facts`).

    Raises:
        InputError: nothing there, or not what it should be.
    """
    part = read_part(spec)
    if part is not None:
        return part.take(load_examples(part.whole))
    scheme, colon, rest = spec.partition(":")
    if rest.startswith("//"):
        raise InputError(f"{spec}: only local files are read; download it and give the file.")
    if scheme not in SCHEMES or not colon:
        return read_examples(Path(spec))
    name, _, folder = rest.partition("@")
    return SCHEMES[scheme](name, Path(folder) if folder else None)
