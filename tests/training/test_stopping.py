"""When training asks whether it is at its level."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from unlora.training.stopping import StopAt, next_reading


def steps_asked(
    folder: Path,
    steps: int,
    epochs: int,
    over: Callable[[int], float],
    resumed: tuple[int, ...] = (),
    *,
    exactly: bool = True,
) -> tuple[list[int], int | None]:
    """The steps at which a course is read, and where it stops; all is saved and loaded again after those `resumed`."""
    state, asked = TrainerState(max_steps=steps), []

    def read() -> float:
        asked.append(state.global_step)
        return over(state.global_step)

    stop, control = StopAt(read, epochs, exactly=exactly), TrainerControl()
    arguments = TrainingArguments(output_dir=str(folder))
    for step in range(1, steps + 1):
        state.global_step = step
        stop.on_step_end(arguments, state, control)
        if control.should_training_stop:
            break
        if step in resumed:
            state.save_to_json(str(folder / "state.json"))
            state = TrainerState.load_from_json(str(folder / "state.json"))
            stop = StopAt(read, epochs, exactly=exactly)
    return asked, stop.stopped


@pytest.mark.parametrize(
    ("steps", "epochs", "asked"),
    [
        (15, 3, [5, 10]),
        (24, 4, [6, 12, 18]),
        (30, 3, [5, 10, 15, 20, 25]),
        (23, 3, [4, 8, 12, 16, 20]),  # seven or eight steps in an epoch
        (3, 3, [1, 2]),
        (4, 8, [1, 2, 3]),
    ],
)
def test_a_course_that_does_not_fall_is_read_after_every_epoch_and_in_the_middle_of_a_long_one(
    tmp_path: Path, steps: int, epochs: int, asked: list[int]
):
    """After the last step there is nothing left to stop."""
    assert steps_asked(tmp_path, steps, epochs, lambda _step: 9.0) == (asked, None)


@pytest.mark.parametrize(
    ("readings", "step"),
    [
        ([], None),
        ([(5, 4.0)], None),
        ([(5, 4.0), (10, 4.0)], None),
        ([(5, 4.0), (10, 5.0)], None),
        ([(5, 9.0), (10, 8.0), (15, 4.0)], 20),  # halved in five steps, so at the level in ten more
        ([(15, 4.0), (20, 2.0)], 22),
        ([(20, 2.0), (22, 1.5)], 23),
        ([(22, 1.5), (23, 1.001)], 24),
    ],
)
def test_the_next_reading_is_halfway_to_the_level(readings: list[tuple[int, float]], step: int | None):
    assert next_reading(readings) == step


def falling(step: int) -> float:
    """A probability that falls faster and faster and passes its level after step 17."""
    return 10 * math.exp(-((step / 17) ** 2) * math.log(10)) * 1.001


@pytest.mark.parametrize("resumed", [(), (3,), (11, 14), tuple(range(1, 20))])
def test_a_course_that_falls_is_stopped_at_the_step_that_passes_its_level(tmp_path: Path, resumed: tuple[int, ...]):
    """Where that is asked for, and at the same step, from any checkpoint; else after the epoch."""
    asked, stopped = steps_asked(tmp_path, 50, 10, falling, resumed)
    assert falling(17) > 1 > falling(18)
    assert stopped == 18
    assert asked == [5, 10, 15, 16, 17, 18]
    assert steps_asked(tmp_path, 50, 10, falling, resumed, exactly=False) == ([5, 10, 15, 20], 20)
