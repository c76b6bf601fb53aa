"""Training stops where it has forgotten enough: when that is asked, and how often."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

LONG_EPOCH = 6
"""Steps of an epoch above which a model goes well past a level before it ends (docs/level.md, sets of 60 and 80)."""
READING = "forget_probability_over_level"
"""Under which a reading stands in the Trainer's log history, and so in its checkpoints."""


class StopAt(TrainerCallback):
    """Stops training at the level: read at the end of every epoch and in the middle of a long one.

    Where it is to stop at the very step that passes the level, it is read more often near it. Readings are kept in the
    Trainer's state, so that a run which goes on from a checkpoint reads at the same steps as one that was never
    stopped. The step at which training stops is not saved: a run that is killed right after it goes on from an earlier
    checkpoint, reads again, and stops at the same step.
    """

    def __init__(self, read: Callable[[], float], epochs: int, *, exactly: bool = False) -> None:
        """Fix what to read.

        Args:
            read: how many times its level the forget probability is, read by all processes at once; 1 and less is
                enough.
            epochs: of the whole training.
            exactly: whether to stop at the step that passes the level.
        """
        self._read = read
        self._epochs = epochs
        self._exactly = exactly
        self.stopped: int | None = None
        """The step at which it did."""

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        epoch = state.max_steps / self._epochs
        every = max(1, round(epoch / 2 if epoch > LONG_EPOCH else epoch))
        readings = [(int(line["step"]), line[READING]) for line in state.log_history if READING in line]
        near = self._exactly and state.global_step == next_reading(readings)
        if not (near or state.global_step % every == 0) or state.global_step >= state.max_steps:
            return
        over = self._read()
        if over > 1:
            state.log_history.append({"step": state.global_step, READING: over})
            return
        self.stopped = state.global_step
        control.should_training_stop = True
        control.should_save = False


def next_reading(readings: Sequence[tuple[int, float]]) -> int | None:
    """The step halfway to where the level will be met; None where two readings do not yet fall towards it.

    The logarithm of the probability is taken to go on as between the last two readings. Halfway, because it falls
    faster and faster: each reading comes nearer, the last of them a step apart.

    Args:
        readings: steps, and how many times the level the probability was after them (above 1), in their order.
    """
    if len(readings) < 2:
        return None
    (earlier, before), (step, over) = readings[-2:]
    fall = math.log(before / over) / (step - earlier)
    return step + max(1, int(math.log(over) / fall / 2)) if fall > 0 else None
