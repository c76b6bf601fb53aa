"""Scales and refusals."""

import pytest

from unlora.audit.names import ATTACK_NAMES
from unlora.audit.settings import SCALES, AuditSettings
from unlora.errors import InputError
from unlora.recipes.presets import resolve_audit


def test_every_scale_makes_settings_and_full_is_harder() -> None:
    scales = {name: resolve_audit(scale=name, flags={}, overrides=[]) for name in SCALES}
    assert scales["default"] == AuditSettings()
    assert scales["full"].relearning.steps > scales["default"].relearning.steps
    assert len(scales["full"].relearning.seeds) >= 3
    assert scales["full"].attacks == list(ATTACK_NAMES)


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
