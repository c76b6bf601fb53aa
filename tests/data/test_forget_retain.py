import pytest

from unlora.data.forget_retain import ForgetRetainPairs
from unlora.data.tokenise import TokenisedExample
from unlora.errors import InputError


def _examples(count: int, name: str) -> list[TokenisedExample]:
    return [TokenisedExample((1, 2), 1, False, f"{name} {index}") for index in range(count)]


FORGET, RETAIN = _examples(6, "forget"), _examples(10, "retain")


def _retain_sources(pairs: ForgetRetainPairs) -> list[str]:
    return [item["retain"].source for item in map(pairs.__getitem__, range(len(pairs))) if item["retain"]]


def test_each_epoch_is_another_permutation_of_the_forget_set() -> None:
    pairs = ForgetRetainPairs(FORGET, RETAIN, epochs=4, seed=0)
    order = [pairs[index]["forget_index"] for index in range(len(pairs))]
    epochs = [tuple(order[start : start + 6]) for start in range(0, 24, 6)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len(set(epochs)) == 4
    assert all(pairs[place]["forget"] is FORGET[index] for place, index in enumerate(order))


def test_retain_examples_do_not_repeat_before_all_were_drawn() -> None:
    """Through the whole run, not the epoch: with 6 forget and 10 retain examples the borders differ."""
    sources = _retain_sources(ForgetRetainPairs(FORGET, RETAIN, epochs=5, seed=0))
    assert len(sources) == 30
    rounds = [sources[start : start + 10] for start in range(0, 30, 10)]
    assert all(len(set(one)) == 10 for one in rounds)
    assert rounds[0] != rounds[1]


def test_order_follows_from_the_seed() -> None:
    first, again, other = (ForgetRetainPairs(FORGET, RETAIN, epochs=3, seed=seed) for seed in (1, 1, 2))
    assert [first[index] for index in range(18)] == [again[index] for index in range(18)]
    assert [first[index] for index in range(18)] != [other[index] for index in range(18)]


def test_forget_and_retain_orders_are_independent() -> None:
    """One generator for both would give sets of equal size the same permutation."""
    pairs = ForgetRetainPairs(FORGET, _examples(6, "retain"), epochs=20, seed=0)
    retain_order = [int(source[-1]) for source in _retain_sources(pairs)]
    matches = sum(pairs[place]["forget_index"] == index for place, index in enumerate(retain_order))
    assert matches < len(pairs) / 2


def test_small_retain_set_is_used_again() -> None:
    assert set(_retain_sources(ForgetRetainPairs(FORGET, RETAIN[:1], epochs=1, seed=0))) == {"retain 0"}


def test_forget_alone_has_no_retain_example() -> None:
    pairs = ForgetRetainPairs(FORGET, None, epochs=1, seed=0)
    assert {pairs[index]["retain"] for index in range(len(pairs))} == {None}


def test_each_forget_example_brings_its_own_refusal() -> None:
    refusals = _examples(6, "refusal")
    pairs = ForgetRetainPairs(FORGET, None, refusals=refusals, epochs=2, seed=0)
    for item in map(pairs.__getitem__, range(len(pairs))):
        assert item["refusal"] is refusals[item["forget_index"]]
    assert ForgetRetainPairs(FORGET, None, epochs=1, seed=0)[0]["refusal"] is None
    with pytest.raises(InputError, match="5 refusals for 6 forget examples"):
        ForgetRetainPairs(FORGET, None, refusals=refusals[:5], epochs=1, seed=0)


def test_reading_past_the_end_stops() -> None:
    with pytest.raises(IndexError):
        ForgetRetainPairs(FORGET, None, epochs=1, seed=0)[6]


def test_empty_sets_and_no_epochs_are_refused() -> None:
    with pytest.raises(InputError, match="forget set is empty"):
        ForgetRetainPairs([], RETAIN, epochs=1, seed=0)
    with pytest.raises(InputError, match="retain set is empty"):
        ForgetRetainPairs(FORGET, [], epochs=1, seed=0)
    with pytest.raises(InputError, match=r"epochs: must be at least 1 \(found 0\)"):
        ForgetRetainPairs(FORGET, RETAIN, epochs=0, seed=0)
