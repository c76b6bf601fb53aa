"""YAML as settings are written in it: nothing is taken that a reader would take for something else.

PyYAML's safe loader, with four changes: a key that is given twice is refused, where PyYAML silently takes the last one;
integers and floats are those of YAML 1.2 (in 1.1, which PyYAML reads, 010 is eight, 1:30 is ninety and 1e-4 is text);
few aliases, since nested ones make a small file stand for billions of values; and whatever else Python says about a
text (too deep, a number too long, a month that does not exist) is an error of YAML's too.
"""

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode

MOST_ALIASES = 20
_INTEGER = re.compile(r"[-+]?[0-9][0-9_]*|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(
    r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*\.[0-9_]*|[0-9][0-9_]*(?=[eE]))(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_INT_TAG, _FLOAT_TAG = "tag:yaml.org,2002:int", "tag:yaml.org,2002:float"
_BASES = {"0o": 8, "0x": 16}


class RepeatedKeyError(ConstructorError):
    """A key stands twice in a mapping."""


class _Loader(yaml.SafeLoader):
    """Safe loader with the changes of this module."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._aliases = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """Count aliases on the way."""
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MOST_ALIASES:
                mark = self.peek_event().start_mark
                raise ConstructorError(None, None, f"more than {MOST_ALIASES} aliases; write the values out", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Refuse a key that stands twice; a key merged in by `<<` may be given again."""
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            name, line = (key.tag, key.value), key.start_mark.line + 1
            if name in lines:
                where = f"first in line {lines[name]}" if lines[name] != line else "in one line"
                raise RepeatedKeyError(
                    None, None, f"key '{key.value}' is given twice, {where}; keep one", key.start_mark
                )
            lines[name] = line
        return super().construct_mapping(node, deep=deep)

    def construct_integer(self, node: ScalarNode) -> int:
        """Digits are decimal, whatever they begin with."""
        text = str(node.value).replace("_", "")
        return int(text[2:], _BASES[text[:2]]) if text[:2] in _BASES else int(text)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in (_INT_TAG, _FLOAT_TAG)]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(_INT_TAG, re.compile(f"^(?:{_INTEGER.pattern})$"), list("-+0123456789"))
_Loader.add_implicit_resolver(_FLOAT_TAG, re.compile(f"^(?:{_FLOAT.pattern})$"), list("-+0123456789."))
_Loader.add_constructor(_INT_TAG, _Loader.construct_integer)


def parse_yaml(text: str) -> Any:
    """Read one YAML document.

    Raises:
        yaml.YAMLError: no YAML, a key twice, more than MOST_ALIASES aliases, or a value that Python cannot hold.
    """
    loader = _Loader(text)
    try:
        return loader.get_single_data()
    except RecursionError:
        raise yaml.YAMLError("brackets or sections are nested too deeply") from None
    except (ValueError, OverflowError, AttributeError) as error:
        if isinstance(error, yaml.YAMLError):
            raise
        raise yaml.YAMLError(f"a value cannot be read: {error}") from None
    finally:
        loader.dispose()
