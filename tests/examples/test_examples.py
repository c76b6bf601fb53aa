"""Every file of examples/ runs as its first lines say, on a model that knows something."""

import io
import re
import runpy
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from tests.taught import Taught

pytestmark = pytest.mark.filterwarnings("default")  # as a user meets them

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def printed(taught: Taught, output: Path, name: str, *more: str) -> str:
    """What the example prints; it must end well."""
    sets = () if name == "own_records" else ("--forget", str(taught.forget), "--retain", str(taught.retain))
    file, text = EXAMPLES / f"{name}.py", io.StringIO()
    words = [str(file), "--model", str(taught.target), *sets, *more, "--output", str(output)]
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(text):
        patch.setattr(sys, "argv", words)
        patch.setattr(sys, "path", [*sys.path])
        patch.delitem(sys.modules, name, raising=False)
        runpy.run_path(str(file), run_name="__main__")
    return text.getvalue()


FAST = ("--set", "training.learning_rate=1e-2", "--set", "training.batch_size=4", "--set", "training.epochs=12")


def test_own_records_are_forgotten_and_asked(taught: Taught, tmp_path: Path):
    text = printed(taught, tmp_path / "own", "own_records", "--epochs", "150", *FAST)
    target, unlearned = (float(line.split()[2]) for line in text.splitlines()[:2])
    assert unlearned < 0.7 * target
    assert (tmp_path / "own" / "run" / "adapter" / "adapter_model.safetensors").is_file()


def test_two_starts_stand_in_one_table(taught: Taught, tmp_path: Path):
    rows = printed(taught, tmp_path / "starts", "compare_starts", "--set", "training.epochs=1").splitlines()
    assert [row.split()[0] for row in rows] == ["start", "contrast_inputs", "vila"]
    before = {row.split()[1] for row in rows[1:]}
    assert len(before) == 1


def test_own_loss_stops_where_it_says(taught: Taught, tmp_path: Path):
    """A level above what the model gives asks for nothing; a low one makes it forget."""
    found = {}
    for level in ("1.0", "0.01"):
        text = printed(taught, tmp_path / level, "own_loss", "--level", level, *FAST)
        (value,) = re.findall(r"^forget_probability ([0-9.]+)$", text, flags=re.MULTILINE)
        found[level] = float(value)
    assert found["0.01"] < found["1.0"]


@pytest.mark.parametrize("name", sorted(file.stem for file in EXAMPLES.glob("*.py")))
def test_table_of_examples_names_it(name: str):
    assert f"[{name}.py]({name}.py)" in (EXAMPLES / "README.md").read_text()
