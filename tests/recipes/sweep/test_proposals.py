"""What is proposed depends on what earlier rounds found, and on nothing else."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from unlora.errors import InputError
from unlora.recipes.sweep.proposals import Proposal, Proposals, Told, open_storage, pareto_front
from unlora.recipes.sweep.settings import SweepSettings

SEARCH = {
    "rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "epochs": {"low": 1, "high": 8},
    "loss": ["ihl", "npo", None],
}


def settings(**changes: Any) -> SweepSettings:
    return SweepSettings.from_mapping({"search": SEARCH, "trials": 10, "round": 4} | changes)


def found(proposal: Proposal) -> Told:
    """Best at a rate of 1e-3; four epochs fail."""
    rate, epochs = proposal.parameters["rate"], proposal.parameters["epochs"]
    assert isinstance(rate, float)
    assert isinstance(epochs, int)
    if epochs == 4:
        return Told(None, {"failed": "diverged"})
    return Told((abs(math.log10(rate) + 3), epochs / 8), {"seconds": 1.0})


def rounds(proposals: Proposals) -> Iterator[list[Proposal]]:
    while proposed := proposals.next_round():
        yield proposed
        proposals.tell([found(one) for one in proposed])


def run(file: Path, chosen: SweepSettings, *, stop_after: int = 99) -> list[dict[str, Any]]:
    """All parameters, in order; a start of the program goes on for at most `stop_after` rounds."""
    proposals = Proposals(open_storage(file), "plain", chosen)
    for number, _ in enumerate(rounds(proposals), start=1):
        if number == stop_after:
            break
    return [trial.params for trial in proposals.finished]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_interrupted_or_not_the_proposals_are_the_same(tmp_path: Path, sampler: str):
    chosen = settings(sampler=sampler)
    whole = run(tmp_path / "whole", chosen)
    assert len(whole) == 10
    assert len({str(one) for one in whole}) > 5
    for _ in range(3):
        run(tmp_path / "parts", chosen, stop_after=1)
    assert run(tmp_path / "parts", chosen) == whole


def test_a_round_that_was_half_told_is_gone_on_with(tmp_path: Path):
    whole = run(tmp_path / "whole", settings())
    proposals = Proposals(open_storage(tmp_path / "parts"), "plain", settings())
    proposed = proposals.next_round()
    proposals._live = proposals._live[:3]  # killed while it told
    proposals.tell([found(one) for one in proposed[:3]])
    again = Proposals(open_storage(tmp_path / "parts"), "plain", settings())
    assert again.next_round() == proposed[3:]
    assert run(tmp_path / "parts", settings()) == whole


def test_other_seeds_and_other_starts_are_proposed_other_trials(tmp_path: Path):
    first = Proposals(open_storage(tmp_path / "a"), "plain", settings()).next_round()
    assert Proposals(open_storage(tmp_path / "b"), "plain", settings(seed=1)).next_round() != first
    assert Proposals(open_storage(tmp_path / "a"), "marginal", settings()).next_round() != first


def test_with_more_trials_it_goes_on(tmp_path: Path):
    whole = run(tmp_path / "whole", settings(trials=10))
    assert len(run(tmp_path / "parts", settings(trials=6))) == 6
    assert run(tmp_path / "parts", settings(trials=10)) == whole


def test_later_rounds_learn_from_earlier_ones(tmp_path: Path):
    proposals = Proposals(open_storage(tmp_path / "a"), "plain", settings(trials=40))
    for _ in rounds(proposals):
        pass
    distances = [trial.values[0] for trial in proposals.finished if trial.values is not None]
    assert sum(distances[-12:]) / 12 < sum(distances[:12]) / 12


def test_a_line_cut_by_a_kill_is_taken_away(tmp_path: Path):
    file = tmp_path / "journal"
    whole = run(tmp_path / "whole", settings())
    run(file, settings(), stop_after=2)
    with file.open("ab") as handle:
        handle.write(b'{"op_code": 4, "worker_')
    Path(f"{file}.lock").write_text("")
    assert run(file, settings()) == whole


def test_a_damaged_journal_is_refused(tmp_path: Path):
    file = tmp_path / "journal"
    run(file, settings(), stop_after=1)
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join([lines[0], "nonsense\n", *lines[1:]]))
    with pytest.raises(InputError, match=r"journal, line 2: .*; remove it, and the same command"):
        run(file, settings())


def test_pareto_front():
    assert pareto_front([(0.1, 0.9), (0.2, 0.8), (0.05, 0.5), (0.3, 0.99)]) == [0, 2, 3]
