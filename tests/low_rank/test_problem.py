import math

import pytest
import torch
from torch import Tensor

from unlora.errors import InputError
from unlora.low_rank import WeightedLowRankProblem

MATRIX = torch.ones(4, 3)
WEIGHTS = torch.ones(4)


@pytest.mark.parametrize(
    ("matrix", "row_weights", "rank", "message"),
    [
        (MATRIX, WEIGHTS, 4, "between 1 and 3"),
        (MATRIX, WEIGHTS, 0, "between 1 and 3"),
        (MATRIX, torch.ones(3), 2, "one weight a row"),
        (MATRIX * math.inf, WEIGHTS, 2, "matrix: holds numbers that are not finite"),
        (MATRIX, WEIGHTS * math.nan, 2, "row_weights: must be finite"),
        (MATRIX, -WEIGHTS, 2, "not negative"),
        (MATRIX, 0 * WEIGHTS, 2, "not all zero"),
    ],
)
def test_wrong_problem_is_refused(matrix: Tensor, row_weights: Tensor, rank: int, message: str) -> None:
    with pytest.raises(InputError, match=message):
        WeightedLowRankProblem(matrix, row_weights, rank)
