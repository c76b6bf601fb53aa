"""What messages are made of."""

import pytest

from unlora.errors import listed


@pytest.mark.parametrize(
    ("names", "longest", "text"),
    [
        ([], 10, ""),
        (["ab", "cd"], 10, "ab, cd"),
        (["ab", "cd", "ef"], 6, "ab, cd and 1 more"),
        (["abcdefgh", "cd"], 6, "abcdefgh and 1 more"),
    ],
)
def test_names_that_do_not_fit_are_counted(names: list[str], longest: int, text: str):
    assert listed(names, longest) == text
