"""One way to name data on the command line and in configurations."""

from pathlib import Path

from unlora.data.records import ExampleSet
from unlora.data.tofu import load_tofu
from unlora.data.user_jsonl import read_examples


def load_examples(spec: str) -> ExampleSet:
    """Load what `spec` names.

    Args:
        spec: the path of a file of JSON lines, "tofu:forget01" (hub) or "tofu:forget01@FOLDER" (local files).

    Raises:
        InputError: nothing there, or not what it should be.
    """
    scheme, colon, rest = spec.partition(":")
    if scheme != "tofu" or not colon:
        return read_examples(Path(spec))
    split, _, folder = rest.partition("@")
    return load_tofu(split, Path(folder) if folder else None)
