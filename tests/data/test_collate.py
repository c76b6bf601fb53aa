import torch
from hypothesis import given
from hypothesis import strategies as st

from unlora.data.collate import collate, shortest_first
from unlora.data.tokenise import TokenisedExample


def _example(length: int, prompt_length: int = 1) -> TokenisedExample:
    return TokenisedExample(tuple(range(10, 10 + length)), prompt_length, False, "here")


def test_padding_is_on_the_right_and_not_scored() -> None:
    batch = collate([_example(4, 2), _example(2)], pad_token_id=7)
    assert batch["input_ids"].tolist() == [[10, 11, 12, 13], [10, 11, 7, 7]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, -100, 12, 13], [-100, 11, -100, -100]]
    assert {tensor.dtype for tensor in batch.values()} == {torch.int64}


def test_end_token_used_as_padding_is_still_scored_where_it_is_real() -> None:
    """A pad token equal to the end token must not hide the real end from the loss."""
    batch = collate([TokenisedExample((5, 6, 0), 1, False, ""), TokenisedExample((5, 0), 1, False, "")], pad_token_id=0)
    assert batch["labels"].tolist() == [[-100, 6, 0], [-100, 0, -100]]


@given(st.lists(st.integers(1, 20), max_size=30), st.integers(1, 8))
def test_every_index_once_in_order_of_length(lengths: list[int], batch_size: int) -> None:
    batches = shortest_first([_example(length) for length in lengths], batch_size)
    flat = [index for batch in batches for index in batch]
    assert flat == sorted(range(len(lengths)), key=lambda index: (lengths[index], index))
    assert all(len(batch) == batch_size for batch in batches[:-1])
    assert all(batches)
