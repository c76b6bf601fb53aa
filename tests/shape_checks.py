"""What an annotation says of a shape is checked at run time; every other type is the type checker's, before any run.

jaxtyping's own hook wraps every function: a quarter of a minute at each start, and a third of what the tests take.
"""

import ast
import re
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

ROOTS = tuple(Path(__file__).parents[1] / root for root in ("src", "research"))
KINDS = ("Float", "Float64", "Int", "Bool")
"""Those of jaxtyping's names that the package uses."""
ALIAS = re.compile(rf"^(\w+) = (?:{'|'.join(KINDS)})\[", re.MULTILINE)
DECORATOR = "__import__('jaxtyping').jaxtyped(typechecker=__import__('beartype').beartype)"


class _ShapeChecks(ast.NodeTransformer):
    """Decorates functions that take or return what has a shape, and classes that hold it."""

    def __init__(self, names: re.Pattern[str]) -> None:
        self.names = names

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        if self._named(node.args) or self._named(node.returns):
            node.decorator_list.append(_decorator(node))  # Innermost: what others make of the function is theirs.
        self.generic_visit(node)
        return node

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.ClassDef:
        if any(isinstance(one, ast.AnnAssign) and self._named(one.annotation) for one in node.body):
            node.decorator_list.insert(0, _decorator(node))  # Outermost: a dataclass has its __init__ by then.
        self.generic_visit(node)
        return node

    def _named(self, part: ast.AST | None) -> bool:
        return part is not None and self.names.search(ast.unparse(part)) is not None


def _decorator(node: ast.AST) -> ast.expr:
    return ast.copy_location(ast.parse(DECORATOR, mode="eval").body, node)


class _Loader(SourceFileLoader):
    names: re.Pattern[str]

    def get_code(self, fullname: str) -> CodeType:
        """Compiled anew in each process: what lies beside the source is the code without checks."""
        tree = _ShapeChecks(self.names).visit(ast.parse(self.get_data(self.path)))
        return compile(ast.fix_missing_locations(tree), self.path, "exec", dont_inherit=True)


class _Finder(MetaPathFinder):
    def __init__(self) -> None:
        paths = [path for root in ROOTS for path in root.rglob("*.py")]
        texts = {path: path.read_text(encoding="utf-8") for path in paths}
        names = {*KINDS} | {name for text in texts.values() for name in ALIAS.findall(text)}
        self.names = re.compile(rf"\b({'|'.join(sorted(names))})\b")
        self.paths = {str(path) for path, text in texts.items() if self.names.search(text)}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("unlora"):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.origin not in self.paths:
            return None
        loader: Any = _Loader(fullname, spec.origin)
        loader.names, spec.loader = self.names, loader
        return spec


def check_shapes() -> None:
    """Have the package checked where shapes are named; nothing of it may have been imported before."""
    assert not [name for name in sys.modules if name.split(".")[0].startswith("unlora")]
    sys.meta_path.insert(0, _Finder())
