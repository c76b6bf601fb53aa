import math

import pytest
import torch
from torch import Tensor

from tests.low_rank.problems import dense_weights, elementwise_problem, row_problem, separable_problem, weighted_error
from unlora.errors import InputError
from unlora.low_rank import WeightedLowRankProblem, problem

MATRIX = torch.ones(4, 3)
ROWS, COLUMNS, WEIGHTS = torch.ones(4), torch.ones(3), torch.ones(4, 3)


@pytest.mark.parametrize(
    ("matrix", "rank", "weights", "message"),
    [
        (MATRIX, 4, {"row_weights": ROWS}, "between 1 and 3"),
        (MATRIX, 0, {"row_weights": ROWS}, "between 1 and 3"),
        (MATRIX * math.inf, 2, {"row_weights": ROWS}, "matrix: holds numbers that are not finite"),
        (MATRIX, 2, {}, "give either row_weights"),
        (MATRIX, 2, {"row_weights": ROWS, "weights": WEIGHTS}, "give either row_weights"),
        (MATRIX, 2, {"column_weights": COLUMNS}, "give either row_weights"),
        (MATRIX, 2, {"column_weights": COLUMNS, "weights": WEIGHTS}, "column_weights: go beside row_weights"),
        (MATRIX, 2, {"row_weights": COLUMNS}, r"row_weights: one weight a row is needed, found \(3,\) for \(4, 3\)"),
        (MATRIX, 2, {"row_weights": ROWS * math.nan}, "row_weights: must be finite"),
        (MATRIX, 2, {"row_weights": -ROWS}, "row_weights: must be finite, not negative"),
        (MATRIX, 2, {"row_weights": 0 * ROWS}, "row_weights: .* not all zero"),
        (MATRIX, 2, {"row_weights": ROWS, "column_weights": ROWS}, "column_weights: one weight a column is needed"),
        (MATRIX, 2, {"row_weights": ROWS, "column_weights": 0 * COLUMNS}, "column_weights: .* not all zero"),
        (MATRIX, 2, {"weights": WEIGHTS.T}, r"weights: one weight an entry is needed, found \(3, 4\)"),
        (MATRIX, 2, {"weights": WEIGHTS * math.inf}, "weights: must be finite"),
        (MATRIX, 2, {"weights": WEIGHTS - 2}, "weights: must be finite, not negative"),
        (MATRIX, 2, {"weights": 0 * WEIGHTS}, "weights: .* not all zero"),
    ],
)
def test_wrong_problem_is_refused(matrix: Tensor, rank: int, weights: dict[str, Tensor], message: str) -> None:
    with pytest.raises(InputError, match=message) as refusal:
        WeightedLowRankProblem(matrix, rank, **weights)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("make", [row_problem, separable_problem, elementwise_problem])
@pytest.mark.parametrize("rows_at_a_time", [2, 64])
def test_norm_and_chunks_are_those_of_all_weights(make, rows_at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(problem, "CHUNK_ENTRIES", 1)
    monkeypatch.setattr(problem, "CHUNK_ROWS", rows_at_a_time)
    made = make(7, 5, 2)
    chunks = list(made.chunks())
    assert len(chunks) == math.ceil(7 / rows_at_a_time)
    assert [row for rows, _ in chunks for row in range(7)[rows]] == list(range(7))
    torch.testing.assert_close(torch.cat([weights for _, weights in chunks]), dense_weights(made))
    assert made.weighted_norm(made.matrix) == pytest.approx(weighted_error(made, torch.zeros(7, 5)), rel=1e-12)
