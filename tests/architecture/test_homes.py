"""One word, one meaning: a public class or function has one home."""

import ast
from collections import defaultdict
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[2] / "src" / "unlora"


def test_public_classes_and_functions_have_names_of_their_own():
    """But for the commands of the command line, which are called as the jobs they do."""
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for file in SOURCE.rglob("*.py"):
        place = file.relative_to(SOURCE)
        if place.parts[0] == "cli":
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                homes[node.name].add(place.as_posix())
    assert len(homes) > 500
    assert {name: sorted(places) for name, places in homes.items() if len(places) > 1} == {}
