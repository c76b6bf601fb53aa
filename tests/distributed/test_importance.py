"""Importance by several processes: the same as by one, whoever gets which batch, and if some get none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from tests.distributed.ranks import run_ranks
from tests.taught import PAD
from tests.tiny import build_tiny_model
from unlora import processes
from unlora.data.collate import collate
from unlora.data.tokenise import TokenisedExample
from unlora.importance import estimate_importance
from unlora.importance.contrast_map import estimate_contrast
from unlora.importance.importance_map import ImportanceMap

SIZES = {"many": [3, 2, 1, 1, 4, 1, 2, 3, 2, 1], "one batch": [4], "one sample": [1, 1], "odd": [2, 1, 3]}
"""Examples in each batch of either set: single ones wait for the next, every fourth is compared in pairs."""
GRID = [
    ("variance", "marginals", "example", "none"),
    ("variance", "marginals", "batch", "none"),
    ("variance", "lora_factors", "example", "none"),
    ("variance", "full_weights", "example", "disk"),
    ("second_moment", "full_weights", "example", "host"),
]


def batches(sizes: list[int], seed: int) -> Iterator[dict[str, Tensor]]:
    """Random tokens; the second batch also holds an example that is not scored."""
    random = torch.Generator().manual_seed(seed)
    for number, size in enumerate(sizes):
        rows = []
        for _ in range(size):
            length = int(torch.randint(5, 12, (1,), generator=random))
            tokens = torch.randint(2, 128, (length,), generator=random).tolist()
            rows.append(TokenisedExample(tuple(tokens), prompt_length=3, truncated=False, source=""))
        batch = collate(rows, PAD)
        if number == 1:
            batch = {key: torch.cat([value, value[:1]]) for key, value in batch.items()}
            batch["labels"][-1] = -100
        yield batch


def measure(folder: Path, forget: list[int], retain: list[int]) -> None:
    """Measure everything; main writes."""
    processes.join(torch.device("cpu"))
    model = build_tiny_model("llama")
    for statistic, space, unit, offload in GRID:
        if unit == "batch" and min(len(forget), len(retain)) < 2:
            continue
        found = estimate_importance(
            model, batches(forget, 1), batches(retain, 2), statistic=statistic, space=space, gradient_unit=unit,
            rank=4, offload=offload, scratch=folder,
        )  # fmt: skip
        if processes.is_main():
            found.save(folder / f"{statistic}-{space}-{unit}.safetensors")
    contrast = estimate_contrast(model, batches(forget, 1), batches(retain, 2), rank=2, sketch_columns=24)
    if processes.is_main():
        contrast.save(folder / "contrast.safetensors")


@pytest.mark.parametrize(("count", "forget", "retain"), [(2, "many", "one batch"), (3, "one sample", "odd")])
def test_importance_is_that_of_one_process(tmp_path: Path, count: int, forget: str, retain: str):
    alone, together = tmp_path / "alone", tmp_path / "together"
    alone.mkdir()
    together.mkdir()
    measure(alone, SIZES[forget], SIZES[retain])
    for ended in run_ranks(count, measure, together, SIZES[forget], SIZES[retain]):
        assert ended.code == 0, ended.text
    files = sorted(path.name for path in alone.iterdir())
    assert sorted(path.name for path in together.iterdir()) == files
    assert len(files) > 3
    for name in files:
        expected, found = load_file(alone / name), load_file(together / name)
        assert found.keys() == expected.keys()
        for key, tensor in expected.items():
            scale = float(tensor.nan_to_num().abs().max())
            torch.testing.assert_close(found[key], tensor, rtol=1e-6, atol=1e-6 * scale, equal_nan=True, msg=key)
        if name != "contrast.safetensors":
            assert_same_evidence(ImportanceMap.load(together / name), ImportanceMap.load(alone / name))


def assert_same_evidence(found: ImportanceMap, expected: ImportanceMap) -> None:
    """Rounding may turn two rows round, so ranks agree less closely than the sums that they are taken of."""
    for module in expected:
        one, two = found[module].evidence, expected[module].evidence
        assert one is not None
        assert two is not None
        for key, value in two.model_dump().items():
            assert getattr(one, key) == (pytest.approx(value, abs=1e-2) if value is not None else None), (module, key)
            if key.endswith("squared_mean") and value is not None:
                assert getattr(one, key) == pytest.approx(value, abs=1e-6)
