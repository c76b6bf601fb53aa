import math

import pytest

from unlora.errors import InputError
from unlora.metrics import MODEL_UTILITY_PARTS, harmonic_mean, model_utility


def test_harmonic_mean_of_hand_computed_values() -> None:
    assert harmonic_mean([1.0, 0.5]) == pytest.approx(2 / 3)
    assert harmonic_mean([0.25]) == 0.25
    assert harmonic_mean([1.0, 0.0]) == 0.0
    assert math.isnan(harmonic_mean([]))
    assert math.isnan(harmonic_mean([0.5, math.nan]))
    with pytest.raises(InputError, match=">= 0"):
        harmonic_mean([0.5, -0.1])


def test_model_utility_is_the_harmonic_mean_of_nine_named_parts() -> None:
    assert len(set(MODEL_UTILITY_PARTS)) == 9
    parts = {name: 0.1 * (index + 1) for index, name in enumerate(MODEL_UTILITY_PARTS)}
    assert model_utility(parts) == pytest.approx(9 / sum(1 / value for value in parts.values()))


def test_model_utility_with_missing_parts_names_them() -> None:
    parts = dict.fromkeys(MODEL_UTILITY_PARTS, 0.5)
    del parts["real_authors_truth_ratio"]
    parts["world_facts_probability"] = math.nan
    with pytest.raises(InputError, match="missing real_authors_truth_ratio, world_facts_probability"):
        model_utility(parts)


def test_model_utility_with_a_misspelt_part_names_the_nearest() -> None:
    with pytest.raises(InputError, match="Did you mean 'retain_rouge_l_recall'"):
        model_utility({"retain_rouge_recall": 0.5})
