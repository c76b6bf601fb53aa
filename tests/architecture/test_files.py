"""Small files, small functions, and nothing printed from inside the library or the laboratory."""

import ast
import pydoc
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

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


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    """A file's syntax, node by node."""
    return tuple(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))


def functions(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file, nested ones too."""
    for node in nodes(file):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def body_lines(file: Path, function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of code: docstring, comments and empty lines do not count."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    if not body or function.end_lineno is None:
        return 0
    lines = file.read_text(encoding="utf-8").splitlines()[body[0].lineno - 1 : function.end_lineno]
    return sum(1 for line in lines if line.strip() and not line.lstrip().startswith("#"))


MOST_PARAMETERS = 6
API_PAGE = ROOT / "docs" / "api.md"


@cache
def public_names() -> set[str]:
    """What the packages export and what the page of the API documents.

    A function of the public API may have a parameter for each thing a caller may set.
    """
    exports = [file for file in FILES if file.name == "__init__.py"]
    imports = [node for file in exports for node in nodes(file) if isinstance(node, ast.ImportFrom)]
    page = API_PAGE.read_text(encoding="utf-8")
    documented = {line.rpartition(".")[2] for line in page.splitlines() if line.startswith("::: ")}
    return {alias.asname or alias.name for node in imports for alias in node.names} | documented


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names, without that of the object itself."""
    asked = function.args
    names = [one.arg for one in (*asked.posonlyargs, *asked.args, *asked.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def outside_the_public_api(file: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Functions and methods of a file that are neither public, nor what makes a public class, nor a command."""
    owned = {id(method): one.name for one in nodes(file) if isinstance(one, ast.ClassDef) for method in one.body}
    for function in functions(file):
        name = owned.get(id(function), "") if function.name == "__init__" else function.name
        is_command = any("click" in ast.unparse(one) for one in function.decorator_list)
        if name not in public_names() and not is_command:
            yield function


def wrong(found: Iterable[tuple[Path, int | str]]) -> list[str]:
    """Where each lies."""
    return [f"{place(file)}: {what}" for file, what in found]


def test_files_are_short_and_say_what_they_are():
    assert len(FILES) > 300
    lengths = ((file, len(file.read_text(encoding="utf-8").splitlines())) for file in FILES)
    assert wrong((file, length) for file, length in lengths if length >= LONGEST_FILE) == []
    trees = ((file, node) for file in FILES for node in nodes(file) if isinstance(node, ast.Module))
    assert wrong((file, "no docstring") for file, tree in trees if not ast.get_docstring(tree)) == []


def test_functions_are_short():
    lengths = ((file, one.name, body_lines(file, one)) for file in FILES for one in functions(file))
    assert (
        wrong(
            (file, name)
            for file, name, length in lengths
            if length > LONGER_BODIES.get((place(file), name), LONGEST_BODY)
        )
        == []
    )


def test_functions_outside_the_public_api_have_few_parameters():
    counts = {(place(file), one.name): len(parameters(one)) for file in FILES for one in outside_the_public_api(file)}
    assert {key: count for key, count in counts.items() if count > MOST_PARAMETERS} == {}


def test_a_name_on_the_page_of_the_api_is_there():
    """The site's own build would say so too, but it is no part of the tests."""
    lines = [line[4:] for line in API_PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("::: ")]
    assert len(lines) > 20
    missing = [line for line in lines if pydoc.locate(line) is None]
    assert missing == []


def test_nothing_is_printed_or_asserted():
    """`python -O` removes assert."""
    for file in FILES:
        calls = [node for node in nodes(file) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)]
        printed = [node.lineno for node in calls if isinstance(node.func, ast.Name) and node.func.id == "print"]
        asserted = [node.lineno for node in nodes(file) if isinstance(node, ast.Assert)]
        assert wrong((file, line) for line in printed + asserted) == []


def imported_packages(file: Path) -> set[str]:
    """First parts of the names of the modules that a file imports."""
    names: list[str] = []
    for node in nodes(file):
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
    users = [place(file) for file in FILES if imported_packages(file) & {"pandas", "filelock"}]
    assert [user for user in users if user.startswith("unlora/")] == []
    assert users


def test_the_sweep_alone_knows_what_its_extra_brings():
    users = [place(file) for file in FILES if imported_packages(file) & {"optuna", "matplotlib", "joblib"}]
    sweep = [user for user in users if user.startswith("unlora/recipes/sweep/")]
    assert len(sweep) > 2
    # joblib comes with scikit-learn, and is imported where several processes are asked for.
    assert [user for user in users if user.startswith("unlora/") and user not in sweep] == [
        "unlora/run/side_by_side.py"
    ]
