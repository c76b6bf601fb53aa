"""Linear layers whose weight a model reads itself, so that an adapter around the layer is not felt.

A fused kernel (that of Mamba and its kin) is handed `self.out_proj.weight` in place of calling the layer. It is used in
training on a GPU where the kernel is installed, so no trial elsewhere shows it; nor what a class does in training alone
(Gemma 3n clamps the weight of a layer and multiplies with that). The source code does.
"""

import ast
import functools
import inspect
import textwrap
from collections.abc import Mapping

from torch import nn

from unlora.models.target_modules import TargetModule
from unlora.models.wrapping import CausalModel, canonical_name, unwrap

ASKED = {"dtype", "device", "shape", "ndim", "dim", "size", "numel", "requires_grad", "is_meta"}
"""What may be asked of a weight without reading a number of it."""


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
    """Attributes x for which a method of the class hands `self.x.weight` on, or computes with it in training alone.

    A number format or a shape of it (`self.x.weight.dtype`) is no use of the weight; nor is that it is written, as by
    an initialisation. What a setting decides (BLOOM's slow_but_exact) a trial shows.
    """
    found: set[str] = set()
    for method in _methods(module):
        above = {below: node for node in ast.walk(method) for below in ast.iter_child_nodes(node)}
        for node in ast.walk(method):
            match node:
                case ast.Attribute(value=ast.Attribute(value=ast.Name(id="self"), attr=attribute), attr="weight") if (
                    _is_handed_on(node, above) or (_in_training(node, above) and _is_read(node, above))
                ):
                    found.add(attribute)
    return frozenset(found)


def _methods(module: type[nn.Module]) -> list[ast.FunctionDef]:
    """Of the class and of those that it is made from, but for what is replaced, and for initialisation."""
    found: dict[str, ast.FunctionDef] = {}
    for one in module.__mro__:
        if one in (nn.Module, object) or one.__module__.startswith("transformers.modeling_"):
            continue
        try:
            tree = ast.parse(textwrap.dedent(inspect.getsource(one)))
        except (OSError, TypeError, SyntaxError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                found.setdefault(node.name, node)
    return [method for name, method in found.items() if "init" not in name]


def _is_handed_on(weight: ast.AST, above: Mapping[ast.AST, ast.AST]) -> bool:
    """Whether it is an argument of a call that does more than ask."""
    around = above[weight]
    call = above[around] if isinstance(around, ast.keyword) else around
    return isinstance(call, ast.Call) and call.func is not weight and not _only_asks(call)


def _is_read(weight: ast.AST, above: Mapping[ast.AST, ast.AST]) -> bool:
    """Whether something is computed of its numbers."""
    match above[weight]:
        case ast.Attribute(attr="data") as data:
            return _is_read(data, above)
        case ast.Attribute(attr=asked):
            return asked not in ASKED and not asked.endswith("_")
        case ast.Compare() | ast.Assign():
            return False
        case ast.Call() as call:
            return not _only_asks(call)
    return True


def _in_training(node: ast.AST, above: Mapping[ast.AST, ast.AST]) -> bool:
    """Whether it stands in a branch that depends on whether the model is trained."""
    while node in above:
        below, node = node, above[node]
        if isinstance(node, ast.If | ast.IfExp) and below is not node.test:
            asked = (one.attr for one in ast.walk(node.test) if isinstance(one, ast.Attribute))
            if "training" in asked:
                return True
    return False


def _only_asks(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id in ("getattr", "hasattr", "isinstance", "id", "type", "len")
