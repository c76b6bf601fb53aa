"""docs/presets.md names every preset, and its table of starts is the table of starts."""

import re
from pathlib import Path

from unlora.run.presets import presets
from unlora.starts import STARTS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "presets.md").read_text(encoding="utf-8")


def test_every_preset_is_on_the_page():
    assert set(presets()) <= set(re.findall(r"^- `([a-z_]+)`", PAGE, flags=re.MULTILINE))


def test_rows_are_those_of_the_table():
    rows = re.findall(r"^\| `([a-z0-9_]+)`[^|]*\| ([^|]+?) \| ([^|]+?) \|", PAGE, flags=re.MULTILINE)
    assert [(kind, summary, source) for kind, summary, source in rows] == [
        (kind, row.summary, row.source) for kind, row in STARTS.items()
    ]
