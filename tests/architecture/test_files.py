"""Small files, small functions, and nothing printed from inside the library or the laboratory."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (ROOT / "src" / "unlora", ROOT / "research" / "unlora_research")
FILES = sorted(file for package in PACKAGES for file in package.rglob("*.py"))
LONGEST_FILE = 300
LONGEST_BODY = 50
LONGER_BODIES = {("unlora/recipes/unlearn.py", "unlearn"): 80}
"""The main path is read in one column, from the settings to the record."""


def place(file: Path) -> str:
    """A file's path from the folder of the distribution."""
    return next(file.relative_to(package.parent) for package in PACKAGES if package in file.parents).as_posix()


by_file = pytest.mark.parametrize("file", FILES, ids=place)


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, nested ones too."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(file: Path, function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of code: docstring, comments and empty lines do not count."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body or function.end_lineno is None:
        return 0
    lines = file.read_text(encoding="utf-8").splitlines()[body[0].lineno - 1 : function.end_lineno]
    return sum(1 for line in lines if line.strip() and not line.lstrip().startswith("#"))


@by_file
def test_file_is_short_and_says_what_it_is(file: Path):
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) < LONGEST_FILE
    assert ast.get_docstring(ast.parse(text))


@by_file
def test_functions_are_short(file: Path):
    lengths = {function.name: body_lines(file, function) for function in functions(file)}
    limits = {name: LONGER_BODIES.get((place(file), name), LONGEST_BODY) for name in lengths}
    assert {name: length for name, length in lengths.items() if length > limits[name]} == {}


@by_file
def test_nothing_is_printed_or_asserted(file: Path):
    tree = ast.parse(file.read_text(encoding="utf-8"))
    calls = [node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
    assert "print" not in calls
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)], "python -O removes assert"


def imported_packages(file: Path) -> set[str]:
    """First parts of the names of the modules that a file imports."""
    names: list[str] = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            names.append(node.module)
    return {name.partition(".")[0] for name in names}


def test_only_the_command_line_knows_click_and_rich():
    users = [place(file) for file in FILES if imported_packages(file) & {"click", "rich"}]
    others = [user for user in users if not user.startswith("unlora/cli/")]
    assert others == ["unlora_research/command.py"]
    assert len(users) > len(others)


def test_the_package_does_without_what_only_the_laboratory_needs():
    users = [place(file) for file in FILES if imported_packages(file) & {"pandas", "joblib", "matplotlib", "filelock"}]
    assert [user for user in users if user.startswith("unlora/")] == []
    assert users
