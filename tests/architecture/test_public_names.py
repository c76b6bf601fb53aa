"""What `import unlora` promises."""

import ast
import inspect
from pathlib import Path

import pytest

import unlora
from unlora.run.presets import DEFAULT_PRESET, presets, resolve_settings
from unlora.run.training import make_objective


@pytest.mark.parametrize("name", unlora.__all__)
def test_public_name_is_there_and_documented(name: str):
    found = getattr(unlora, name)
    documentation = inspect.getdoc(found)
    assert documentation
    assert documentation.splitlines()[0].endswith((".", ":"))


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(inspect.getfile(unlora)).read_text(encoding="utf-8"))
    (branch,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {alias.asname for node in branch.body if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert seen == set(unlora.__all__)


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="no attribute 'estimate_importances'"):
        unlora.estimate_importances  # noqa: B018


@pytest.mark.parametrize("name", presets())
def test_every_preset_makes_settings_and_an_objective(name: str):
    flags = {"model.name": "m", "data.forget": "f", "data.retain": "r"}
    objective = resolve_settings(preset_name=name, config_file=None, flags=flags, overrides=[]).objective
    make_objective(objective)
    assert presets()[name].text.startswith("# ")


def test_default_preset_exists():
    assert DEFAULT_PRESET in presets()
