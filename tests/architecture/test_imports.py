"""Which package may import which: the contracts of pyproject.toml, checked, and that they leave no package out."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "unlora"


def test_import_contracts_are_kept():
    command = str(Path(sys.executable).with_name("lint-imports"))
    finished = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout
    assert "0 broken" in finished.stdout


def test_every_package_has_its_layer():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract.get("containers") == ["unlora"]]
    placed = {name.strip() for layer in layers for name in layer.split("|")}
    found = {path.stem for path in PACKAGE.iterdir() if (path / "__init__.py").is_file() or path.suffix == ".py"}
    assert found - {"__init__", "__main__"} == placed
