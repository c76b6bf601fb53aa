"""The scripts of findings/ are not run here; that they parse, and that their page says what is there, is."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "findings" / "README.md"
SCRIPTS = sorted((ROOT / "findings").glob("*.sh"))
HEADER = ("One would guess", "What happens", "Packages", "Where it matters", "Run on")


def test_every_script_has_a_row_and_every_row_a_script():
    assert [path.name for path in SCRIPTS] == re.findall(
        r"^\| \[[\w-]+\]\(([\w-]+\.sh)\)", PAGE.read_text(), re.MULTILINE
    )


def test_tests_that_the_page_names_exist():
    """A file, then the tests in it."""
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| [")]
    named = [name for row in rows for name in re.findall(r"`(tests/[\w/]+\.py|test_\w+)`", row)]
    assert named
    content = ""
    for name in named:
        if name.startswith("tests/"):
            content = (ROOT / name).read_text()
        else:
            assert f"def {name}(" in content, name


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.stem)
def test_script_parses_says_what_it_must_and_pins_its_packages(path: Path):
    subprocess.run(["bash", "-n", str(path)], check=True)
    text = path.read_text()
    head, _, body = text.partition("set -euo pipefail")
    assert [field for field in HEADER if f"\n# {field}" in head] == list(HEADER)
    assert "mktemp -d" in body
    assert "trap 'rm -rf \"$folder\"' EXIT" in body
    assert "unlora" not in body
    for line in re.findall(r"pip\"? (?:install|download) (.*)", body):
        packages = [word for word in line.split() if word[0] != "-" and word not in ("source", ":all:")]
        assert packages, line
        assert all("==" in word for word in packages), line
