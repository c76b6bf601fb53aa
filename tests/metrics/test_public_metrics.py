import inspect

import pytest

from unlora import metrics


@pytest.mark.parametrize("name", [name for name in metrics.__all__ if not name.isupper()])
def test_public_metric_is_documented(name: str) -> None:
    assert inspect.getdoc(getattr(metrics, name))


def test_metrics_that_others_compute_from_their_own_arrays_are_exported() -> None:
    named = {"truth_ratio", "forget_quality", "model_utility", "extraction_strength", "exact_memorisation"}
    assert named | {"privacy_leakage", "membership_auc"} <= set(metrics.__all__)
