"""Linear layers whose weight a model reads itself, so that an adapter around the layer is not felt.

A fused kernel (that of Mamba and its kin) is handed `self.out_proj.weight` in place of calling the layer. It is used in
training on a GPU where the kernel is installed, so no trial elsewhere shows it; the source code does.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Mapping

from torch import nn

from unlora.models.target_modules import TargetModule
from unlora.models.wrapping import CausalModel, canonical_name, unwrap


def bypassed_layers(model: CausalModel, layers: Mapping[str, TargetModule]) -> set[str]:
    """Names of the layers whose weight the module that holds them passes on by itself somewhere in its code."""
    holders = {canonical_name(name): module for name, module in unwrap(model).named_modules()}
    found: set[str] = set()
    for name in layers:
        holder, _, attribute = name.rpartition(".")
        if attribute in weights_passed_on(type(holders[holder])):
            found.add(name)
    return found


@functools.cache
def weights_passed_on(module: type[nn.Module]) -> frozenset[str]:
    """Attributes x for which a method of the class calls something with `self.x.weight`, as itself, for an argument.

    A number format or a shape of it (`self.x.weight.dtype`) is no use of the weight; nor is its initialisation.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(module)))
    except (OSError, TypeError, SyntaxError):
        return frozenset()
    found: set[str] = set()
    methods = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and "init" not in node.name)
    for call in (node for method in methods for node in ast.walk(method) if isinstance(node, ast.Call)):
        for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
            match argument:
                case ast.Attribute(value=ast.Attribute(value=ast.Name(id="self"), attr=attribute), attr="weight") if (
                    not _only_asks(call)
                ):
                    found.add(attribute)
    return frozenset(found)


def _only_asks(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in ("getattr", "hasattr", "isinstance", "id", "type", "len")
