"""One word, one meaning: a public class, function or type has one home, and no constant is written down twice."""

import ast
from collections import defaultdict
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "unlora"


def trees() -> dict[str, list[ast.stmt]]:
    """What stands at the top of every file."""
    files = sorted(SOURCE.rglob("*.py"))
    return {file.relative_to(SOURCE).as_posix(): ast.parse(file.read_text(encoding="utf-8")).body for file in files}


def assigned(node: ast.stmt) -> tuple[str, ast.expr] | None:
    """Name and value of a plain assignment."""
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id, node.value
    return None


def test_public_classes_functions_and_types_have_names_of_their_own():
    """But for the commands of the command line, which are called as the jobs they do, and type variables."""
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for place, body in trees().items():
        for node in body:
            found = assigned(node)
            if isinstance(node, ast.ClassDef) or (isinstance(node, ast.FunctionDef) and not place.startswith("cli/")):
                homes[node.name].add(place)
            elif found is not None and not found[0].isupper() and "TypeVar" not in ast.dump(found[1]):
                homes[found[0]].add(place)
    assert len(homes) > 600
    shared = {name: sorted(places) for name, places in homes.items() if len(places) > 1 and not name.startswith("_")}
    assert shared == {}


def test_no_number_or_text_is_written_down_twice_under_one_name():
    homes: defaultdict[tuple[str, str], set[str]] = defaultdict(set)
    for place, body in trees().items():
        for name, value in filter(None, map(assigned, body)):
            if name.isupper() and isinstance(value, ast.Constant):
                homes[name, repr(value.value)].add(place)
    assert len(homes) > 200
    assert {name: sorted(places) for name, places in homes.items() if len(places) > 1} == {}
