"""Terms of one's own, by module and class."""

from pathlib import Path

import pytest

from tests.losses.examples import forget_inputs
from unlora.errors import InputError
from unlora.losses import ForgetTerm, Objective

MODULE = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unlora.losses import ForgetInputs, ForgetTerm, RetainInputs, RetainTerm
if TYPE_CHECKING:
    from unlora.shapes import PerExample

@dataclass(frozen=True)
class Scaled(ForgetTerm):
    name = "scaled"
    factor: float = 2.0

    def __call__(self, inputs: ForgetInputs) -> PerExample:
        return self.factor * inputs.predictions.mean_log_probs()

@dataclass(frozen=True)
class Kept(RetainTerm):
    name = "kept"

    def __call__(self, inputs: RetainInputs) -> PerExample:
        return -inputs.predictions.mean_log_probs()

@dataclass(frozen=True)
class Nameless(ForgetTerm):
    def __call__(self, inputs):
        return inputs.predictions.mean_log_probs()

@dataclass(frozen=True)
class Unfinished(ForgetTerm):
    name = "unfinished"

@dataclass(frozen=True)
class Greedy(ForgetTerm):
    name = "greedy"
    needs = frozenset({"referense"})

    def __call__(self, inputs):
        return inputs.reference.mean_log_probs()

@dataclass(frozen=True)
class Picky(ForgetTerm):
    name = "picky"
    odd: int = 1

    def __post_init__(self):
        if self.odd % 2 == 0:
            raise ValueError("odd must be odd")

    def __call__(self, inputs):
        return inputs.predictions.mean_log_probs()

class Plain(ForgetTerm):
    name = "plain"

    def __call__(self, inputs):
        return inputs.predictions.mean_log_probs()

number = 3
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module in the current folder, under a name that no other test has imported."""
    name = f"own_terms_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    return name


def test_own_terms_are_found_in_the_current_folder(module: str) -> None:
    objective = Objective(f"{module}:Scaled", retain=f"{module}:Kept", forget_parameters={"factor": 3})
    assert isinstance(objective.forget_term, ForgetTerm)
    assert objective.describe() == {"forget": "scaled", "factor": 3, "retain": "kept", "retain_weight": 1.0}
    inputs = forget_inputs()
    expected = 3 * inputs.predictions.mean_log_probs()
    assert objective.forget_term(inputs).tolist() == pytest.approx(expected.tolist())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Scale", "has no 'Scale'. Did you mean 'Scaled'?"),
        ("number", "must be a dataclass that subclasses ForgetTerm."),
        ("Kept", "must be a dataclass that subclasses ForgetTerm."),
        ("Plain", "must be a dataclass that subclasses ForgetTerm."),
        ("Nameless", 'Nameless needs a name: name = "nameless" in its class.'),
        ("Unfinished", "'unfinished' has no __call__."),
        ("Greedy", "'greedy' needs 'referense', which ForgetInputs does not have. Did you mean 'reference'?"),
    ],
)
def test_what_is_no_forget_term_is_refused(module: str, name: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        Objective(f"{module}:{name}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_retain_term_needs_what_retain_inputs_have(module: str) -> None:
    with pytest.raises(InputError, match="must be a dataclass that subclasses RetainTerm"):
        Objective("ga", retain=f"{module}:Scaled")


def test_value_that_the_term_refuses_is_told(module: str) -> None:
    with pytest.raises(InputError, match=r"'picky' cannot be made \(odd must be odd\)"):
        Objective(f"{module}:Picky", forget_parameters={"odd": 2})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("no_such_module_here:X", "No module named 'no_such_module_here'"),
        (":X", "ValueError"),
        ("broken_module:X", r"ZeroDivisionError: division by zero"),
    ],
)
def test_module_that_cannot_be_imported_is_refused(
    text: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_module.py").write_text("1 / 0\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=f"cannot be imported .*{reason}") as error:
        Objective(text)
    assert "\n" not in str(error.value)
