"""What a command costs before it does anything."""

import os
import sys

import pytest

from benchmarks import startup


def test_every_command_has_its_turn_and_is_compared_within_the_round():
    found = startup.measure(rounds=1)
    assert list(found) == list(startup.COMMANDS)
    assert found[startup.BASE][1] == [1.0]
    for seconds, ratios in found.values():
        assert ratios == [seconds[0] / found[startup.BASE][0][0]]


def test_time_is_the_processors_and_a_failure_ends_the_run():
    def seconds(code: str) -> float:
        return startup.processor_seconds([sys.executable, "-S", "-c", code], dict(os.environ))

    assert seconds("import time; time.sleep(0.5)") < 0.3
    assert seconds("import time\nwhile time.process_time() < 0.5: pass") >= 0.5
    with pytest.raises(SystemExit, match="ended with 3"):
        seconds("raise SystemExit(3)")
