"""What is said about sigma: the network that is measured, and the table."""

from typing import Any

import pandas
import pytest
import torch

from unlora.data.collate import collate
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.importance.spaces import virtual_factors
from unlora.models.load import load_model
from unlora.models.target_modules import find_target_modules
from unlora_research.sigma import RANK, SCALING, SigmaSettings, cells, loss_while_measured, summary
from unlora_research.small_world import TINY_WORLD, build_small_world


def test_loss_of_the_network_with_the_factors_written_into_its_weights():
    files = build_small_world(TINY_WORLD)
    loaded = load_model(str(files.target), dtype=torch.float32, device=torch.device("cpu"))
    tokens = ExampleTokeniser(loaded.tokenizer, template="plain", max_length=512).encode_set(
        load_examples(str(files.forget))
    )

    def loss() -> float:
        batch = collate(tokens, 0)
        logits = loaded.model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        return float(torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten()))

    with torch.no_grad():
        intact = loss()
        for name, target in find_target_modules(loaded.model).items():
            a, b = virtual_factors(name, target.d_out, target.d_in, rank=RANK, probe_std=0.3, seed=1)
            target.module.get_parameter("weight").add_(SCALING * b @ a)
        moved = loss()
    assert loss_while_measured(files, 0.0, 1, "cpu") == pytest.approx(intact, rel=1e-4)
    assert loss_while_measured(files, 0.3, 1, "cpu") == pytest.approx(moved, rel=1e-4)
    assert abs(moved - intact) > 0.05


def test_grid_has_every_sigma_of_the_issue_once_for_each_method_and_seed():
    grid = cells(SigmaSettings())
    assert len({cell.sha256() for cell in grid}) == len(grid) == 2 * 9 * 3
    assert all(cell.world.seed == cell.seed for cell in grid)


def test_summary_takes_the_best_rate_and_counts_what_diverged():
    def row(sigma: float, rate: float, validation: float, test: float) -> dict[str, Any]:
        measures = {"test_forget_probability": 0.1, "test_kept": 0.9, "test_forget_quality_log10": -1.0}
        return measures | {
            "method": "vila", "sigma": sigma, "seed": 0, "learning_rate": rate, "diverged": validation != validation,
            "loss_while_measured": 10 * sigma, "first_gradient_norm": 1.0, "final_retain_term": 0.01,
            "validation_balance": validation, "test_balance": test,
        }  # fmt: skip

    nan = float("nan")
    text = summary(
        pandas.DataFrame([row(0.1, 1, 0.5, 0.4), row(0.1, 2, nan, nan), row(0.3, 1, 0.6, 0.7), row(0.3, 2, 0.9, 0.8)])
    )
    assert "lies between 0.400 (at 0.1) and 0.800 (at 0.3)" in text
    assert "loss of 1.00 at the smallest sigma, 3.00 at the largest" in text
    assert "| `vila` | 0.1 | 1.00 | 1 | 1.00 | 1 of 2 |" in text
    assert "| `vila` | 0.3 | 3.00 | 2 | 1.00 | 0 of 2 |" in text
