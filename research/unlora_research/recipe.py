"""What a study starts from, by its name."""

from typing import Any

import yaml

from unlora.run.presets import DEFAULT_PRESET, laid_over, preset, presets
from unlora.starts.table import STARTS


def recipe(name: str) -> dict[str, Any]:
    """Settings of a preset, or of the default preset from another start.

    Raises:
        InputError: neither a preset nor a start.
    """
    if name in presets() or name not in STARTS:
        return yaml.safe_load(preset(name).text)
    return laid_over(yaml.safe_load(preset(DEFAULT_PRESET).text), {"start": {"kind": name}})
