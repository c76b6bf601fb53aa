"""Relearning and model utility of the runs that a study chose, against the pieces they are made of."""

import math
from pathlib import Path

import pytest

from unlora.artifacts import read_json
from unlora.data.records import ExampleSet
from unlora.data.sources import load_examples
from unlora.metrics import model_utility
from unlora.suites.tofu.scores import TOFU_FILE
from unlora_research import lasting
from unlora_research.ablation import STUDY, AblationSettings
from unlora_research.lasting import chosen_runs, relearned, relearning_table, utility, utility_table
from unlora_research.small_world import TINY_WORLD, build_small_world
from unlora_research.study import run_study

SETTINGS = AblationSettings(
    world=TINY_WORLD, seeds=(0,), losses=("ihl",), starts=("plain",), learning_rates=(1e-9, 2e-2), epochs=3
)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    run_study(STUDY, SETTINGS, tmp_path / "study")
    return tmp_path / "study"


def some_sets() -> dict[str, ExampleSet]:
    """Any sets with wrong answers will do; three different ones show that each is asked."""
    files = build_small_world(TINY_WORLD.model_copy(update={"seed": 0}))
    parts = {"retain": files.held_out, "real_authors": files.retain, "world_facts": files.forget}
    return {name: load_examples(str(file)) for name, file in parts.items()}


def test_what_comes_back_and_what_is_left(study: Path, monkeypatch: pytest.MonkeyPatch):
    runs = chosen_runs(study)
    ((run,),) = runs.values()
    assert run.name == "lr0.02"  # A learning rate of nothing forgets nothing.

    back = relearned(run)
    estimates = read_json(run / "audit" / "audit.json")["attacks"]["relearning"]["estimates"]
    for variant in ("few", "full"):
        gain = estimates[f"lora_5e-4_{variant}_recovery"]["value"] - estimates[f"lora_5e-4_{variant}_control"]["value"]
        assert getattr(back, variant) == pytest.approx(gain, abs=1e-6)
    assert back.full != 0
    assert relearning_table(runs).splitlines()[-1] == f"| IHL | `plain` | {back.few:.2f} | {back.full:.2f} |"

    sets = some_sets()
    found = utility(run, sets)
    for role in ("target", "unlearned"):
        metrics = read_json(run / "utility.json")["models"][role]["metrics"]
        parts = {
            f"{name}_{kind}": metrics[f"{name}_{kind}"]["value"]
            for name in sets
            for kind in ("probability", "rouge_l_recall", "truth_ratio")
        }
        assert found[role] == pytest.approx(model_utility(parts), rel=1e-6)
        asked = TOFU_FILE.load(run / "utility_scores" / f"{role}.jsonl").sets
        assert {name: len(examples) for name, examples in asked.items()} == {
            name: len(examples) for name, examples in sets.items()
        }
    # Forgetting cost something: "world_facts" is the forget set here.
    assert found["unlearned"] < found["target"]
    assert not math.isnan(found["target"])

    # Asked again, nothing is computed.
    monkeypatch.setattr(lasting, "load", lambda *_: pytest.fail("computed again"))
    monkeypatch.setattr(lasting, "load_examples", lambda file: sets[known[Path(file).name]])
    known = {file: name for name, file in lasting.UTILITY_FILES.items()}
    expected = f"| IHL | `plain` | {found['target']:.3f} | {found['unlearned']:.3f} |"
    assert utility_table(runs, Path("data")).splitlines()[-1] == expected
