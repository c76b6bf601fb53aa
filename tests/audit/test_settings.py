"""Scales and refusals."""

import pytest

from unlora.audit.names import ATTACKS
from unlora.audit.settings import SCALES, AuditSettings
from unlora.errors import InputError
from unlora.run.presets import resolve_audit


def test_every_scale_makes_settings_and_full_is_harder() -> None:
    scales = {name: resolve_audit(scale=name, flags={}, overrides=[]) for name in SCALES}
    assert scales["default"] == AuditSettings()
    assert scales["full"].relearning.steps > scales["default"].relearning.steps
    assert len(scales["full"].relearning.seeds) >= 2
    assert scales["full"].attacks == list(ATTACKS)


def test_overrides_lie_over_the_scale() -> None:
    settings = resolve_audit(scale="full", flags={"attacks": ["sampling"]}, overrides=["sampling.samples=8"])
    assert settings.attacks == ["sampling"]
    assert settings.sampling.samples == 8
    assert settings.sampling.max_new_tokens == 128


def test_misspelt_keys_and_wrong_values_are_refused() -> None:
    with pytest.raises(InputError, match=r"Did you mean 'relearning\.steps'"):
        resolve_audit(scale="default", flags={}, overrides=["relearning.step=3"])
    with pytest.raises(InputError, match=r"relearning\.fraction"):
        resolve_audit(scale="default", flags={}, overrides=["relearning.fraction=1"])


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("sampling.k=[0]", "sampling.k.0: must be greater"),
        ("sampling.k=[9,50]", "not above the 8 samples"),
        ("sampling.samples=0", "sampling.samples: must be greater"),
    ],
)
def test_sampling_that_can_say_nothing_is_refused(override: str, expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        resolve_audit(scale="default", flags={}, overrides=[override])
    assert resolve_audit(scale="default", flags={}, overrides=["sampling.samples=2"]).sampling.k == [1, 4, 8]
