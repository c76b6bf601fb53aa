"""docs/presets.md names every preset, and only presets."""

import re
from pathlib import Path

from unlora.recipes.presets import presets

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "presets.md").read_text(encoding="utf-8")


def test_every_preset_is_on_the_page_and_every_row_is_a_preset():
    known = set(presets())
    named = {word for word in re.findall(r"`([a-z0-9_]+)`", PAGE)}
    assert known <= named
    rows = set(re.findall(r"^\| `([a-z0-9_]+)`", PAGE, flags=re.MULTILINE))
    assert rows <= known
