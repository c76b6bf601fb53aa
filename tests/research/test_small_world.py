"""A small world: who is in which set, and that it is built once."""

from pathlib import Path

import pytest
import torch

from unlora.data.sources import load_examples
from unlora.models.load import load_model
from unlora_research.small_world import TINY_WORLD, build_small_world

WORLD = TINY_WORLD.model_copy(update={"epochs": 2})


def test_sets_do_not_overlap_the_models_differ_and_a_world_is_found_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("UNLORA_CACHE", str(tmp_path))
    files = build_small_world(WORLD)
    sets = [{one.prompt for one in load_examples(str(path))} for path in (files.forget, files.retain, files.held_out)]
    assert [len(one) for one in sets] == [6, 12, 6]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]
    target, retain_only = (
        load_model(str(path), dtype=torch.float32, device=torch.device("cpu")).model
        for path in (files.target, files.retain_only)
    )
    pairs = zip(target.parameters(), retain_only.parameters(), strict=True)
    assert any(not one.equal(other) for one, other in pairs)

    monkeypatch.setattr("unlora_research.small_world.fine_tune", lambda *_, **__: pytest.fail("trained again"))
    assert build_small_world(WORLD) == files
