"""Every start, from settings to a trained adapter, on a model that knows something."""

from pathlib import Path

import pytest
import torch
from peft import PeftConfig, PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from tests.recipes.test_unlearn import ADAPTER, value
from tests.taught import Taught
from unlora.adapters.initial import FactorRequest
from unlora.artifacts import read_json
from unlora.config import merge
from unlora.errors import InputError
from unlora.importance.contrast_map import ContrastMap
from unlora.models.target_modules import find_target_modules
from unlora.recipes.unlearn import unlearn
from unlora.run.settings import UnlearnSettings
from unlora.starts.representation import RetainSide, representation_start

STARTS = ["contrast", "contrast_inputs", "shuffled", "uniform", "olora", "corda", "eva", "lora_ga", "reglu"]


def settings_of(taught: Taught, kind: str, **changes) -> UnlearnSettings:
    values = taught.settings().model_dump()
    values = merge(values, {"start": {"kind": kind}, "adapter": {"rank": 2, "alpha": 4.0}})
    return UnlearnSettings.from_mapping(merge(values, changes))


@pytest.mark.parametrize("start", STARTS)
def test_start_forgets_from_a_model_that_did_not_move(taught: Taught, tmp_path: Path, start: str):
    unlearn(settings_of(taught, start), tmp_path / "run")
    record = read_json(tmp_path / "run" / "record.json")
    assert record["initialisation"]["kind"] == start
    assert record["initialisation"]["anchored"] == (start not in ("contrast_inputs", "eva"))
    shift = record["checks"]["output_at_step_0"]
    assert shift["largest_difference"] <= shift["tolerance"]
    target, unlearned = (value(tmp_path / "run", model, "forget_probability") for model in ("target", "unlearned"))
    assert unlearned < target
    rank = load_file(tmp_path / "run" / ADAPTER)
    assert {tensor.shape[0] for name, tensor in rank.items() if "lora_A" in name} == {
        4 if record["initialisation"]["anchored"] else 2
    }


def test_frozen_a_does_not_move_and_the_adapter_loads_anywhere(taught: Taught, tmp_path: Path):
    run = tmp_path / "run"
    unlearn(settings_of(taught, "contrast_inputs", adapter={"freeze_a": True}), run)
    contrast = ContrastMap.load(run / "importance.safetensors")
    weights = load_file(run / ADAPTER)
    for name, one in contrast.items():
        lora_a = weights[f"base_model.model.{name}.lora_A.weight"]
        cosines = torch.nn.functional.cosine_similarity(lora_a.T, one.inputs, dim=0)
        assert cosines.tolist() == pytest.approx([1, 1], abs=1e-5)
        assert weights[f"base_model.model.{name}.lora_B.weight"].any()
    config = PeftConfig.from_pretrained(str(run / "adapter"))
    base = AutoModelForCausalLM.from_pretrained(run / "adapter" / str(config.base_model_name_or_path))
    loaded = PeftModel.from_pretrained(base, str(run / "adapter"))
    assert loaded.peft_config["default"].r == 2


def test_reglus_penalty_keeps_b_out_of_the_retain_outputs(taught: Taught, tmp_path: Path):
    """Without it the trained B overlaps the retain subspace more."""
    overlaps = {}
    for weight in (0.0, 50.0):
        run = tmp_path / f"{weight}"
        changes = {"start": {"orthogonality": weight}, "evaluation": {"skip": True}}
        settings = settings_of(taught, "reglu", training={"epochs": 8}, **changes)
        unlearn(settings, run)
        loaded = taught.load()
        targets = find_target_modules(loaded.model)
        batch = taught.batch()
        side = RetainSide(directions=2)
        start = representation_start(loaded.model, targets, [batch], [batch], FactorRequest(2, 2.0), side)
        subspaces = start.retain_subspaces
        weights = load_file(run / ADAPTER)
        overlaps[weight] = sum(
            float((subspace.T @ weights[f"base_model.model.{name}.lora_B.weight"][:, :2]).square().sum())
            for name, subspace in subspaces.items()
        )
    assert overlaps[50.0] < overlaps[0.0]


@pytest.mark.parametrize("start", ["uniform", "plain"])
def test_frozen_a_of_other_starts(taught: Taught, tmp_path: Path, start: str):
    changes = {"adapter": {"freeze_a": True}, "evaluation": {"skip": True}}
    adapters = []
    for epochs in (1, 3):
        run = tmp_path / f"{epochs}"
        unlearn(settings_of(taught, start, training={"epochs": epochs}, **changes), run)
        adapters.append(load_file(run / ADAPTER))
    for name, tensor in adapters[0].items():
        assert torch.equal(tensor, adapters[1][name]) == ("lora_A" in name)


def test_measured_directions_are_found_again(taught: Taught, tmp_path: Path):
    """A run that starts from the file of another is the same run."""
    unlearn(settings_of(taught, "contrast"), tmp_path / "one")
    file = {"start": {"file": str(tmp_path / "one" / "importance.safetensors")}}
    unlearn(settings_of(taught, "contrast", **file), tmp_path / "other")
    one, other = (load_file(tmp_path / name / ADAPTER) for name in ("one", "other"))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    with pytest.raises(InputError, match="not an importance file"):
        unlearn(settings_of(taught, "marginal", **file), tmp_path / "third")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"start": {"kind": "contrast", "damping": 0}}, r"^start 'contrast': start\.damping: must be greater than 0"),
        ({"start": {"kind": "contrast"}, "adapter": {"coverage": 0.5}}, r"^adapter\.coverage: start 'contrast' has no"),
        ({"start": {"kind": "olora", "file": "x"}}, r"^start 'olora': unknown key 'start\.file'"),
        ({"start": {"kind": "plain", "damping": 9}}, r"^start 'plain': unknown key 'start\.damping'"),
        ({"start": {"kind": "vila", "dampin": 9}}, r"^start 'vila': unknown key 'start\.dampin'\. Known keys: "),
        ({"start": {"kind": "fila", "probe_std": 0.1}}, r"^start 'fila': unknown key 'start\.probe_std'"),
        (
            {"start": {"kind": "reglu"}, "data": {"retain": None}, "objective": {"retain": None}},
            r"^start 'reglu': needs",
        ),
        ({"start": {"kind": "contrasts"}}, r"^start: unknown kind 'contrasts'\. Did you mean 'contrast'\?"),
    ],
)
def test_settings_that_do_not_fit_are_refused(taught: Taught, tmp_path: Path, changes, message):
    settings = UnlearnSettings.from_mapping(merge(taught.settings().model_dump(), changes))
    with pytest.raises(InputError, match=message):
        unlearn(settings, tmp_path / "run")
    assert not (tmp_path / "run").exists()
