"""An adapter is used on the model it was made for, or not without a word."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file

from tests.listening import Listening
from tests.taught import Taught
from tests.training.runs import logits
from unlora.errors import InputError
from unlora.models.load import fingerprint, load_model
from unlora.recipes.evaluate import evaluate_checkpoint
from unlora.recipes.export import export_adapter, export_merged
from unlora.run.finished import refuse_changed_adapter
from unlora.run.fitting import put_on
from unlora.run.loading import load
from unlora.run.settings import EvaluateSettings, ModelSettings


def put(folder: Path, **model: Any) -> tuple[torch.nn.Module, str, list[str]]:
    settings, reporter = ModelSettings.from_mapping(model), Listening()
    model, known = put_on(load(settings), folder, settings, reporter)
    return model, known, reporter.said


def another(taught: Taught, folder: Path) -> Path:
    """The taught model with one weight changed."""
    shutil.copytree(taught.target, folder)
    model = taught.load().model
    model.get_parameter("lm_head.weight")[0, 0] += 1
    model.save_pretrained(folder)
    return folder


def alone(run: Path, folder: Path) -> Path:
    """The adapter outside its run folder."""
    return Path(shutil.copytree(run / "adapter", folder))


def test_adapter_knows_its_own_model(finished_run: Path, taught: Taught, tmp_path: Path):
    known = json.loads((finished_run / "adapter" / "unlora.json").read_text())["made_for"]
    assert known["fingerprint"] == fingerprint(taught.load().model)
    assert known["dtype"] == "float32"
    assert put(finished_run / "adapter", name=str(taught.target))[1:] == ("the same weights", [])
    folder = alone(finished_run, tmp_path / "adapter-alone")
    with pytest.raises(
        InputError, match=r"was made for a model with weights [0-9a-f]{12}, and .*other has [0-9a-f]{12}"
    ):
        put(folder, name=str(another(taught, tmp_path / "other")))


def test_evaluation_on_another_base_is_refused(finished_run: Path, taught: Taught, tmp_path: Path):
    settings = EvaluateSettings.from_mapping(
        {
            "model": {"name": str(another(taught, tmp_path / "other"))},
            "adapter": str(alone(finished_run, tmp_path / "lora")),
            "data": {"forget": str(taught.forget), "retain": str(taught.retain)},
        }
    )
    with pytest.raises(InputError, match="was made for a model with weights"):
        evaluate_checkpoint(settings, tmp_path / "out")
    assert not (tmp_path / "out" / "evaluation.json").exists()


def test_same_weights_in_another_precision_are_said_and_another_model_in_it_is_refused(
    finished_run: Path, taught: Taught, tmp_path: Path
):
    folder = alone(finished_run, tmp_path / "lora")
    _, known, said = put(folder, name=str(taught.target), dtype="bfloat16")
    assert known == "the same weights in float32"
    assert "was made for these weights in float32; here they are bfloat16" in said[0]
    with pytest.raises(InputError, match="was made for a model with weights"):
        put(folder, name=str(another(taught, tmp_path / "other")), dtype="bfloat16")


def test_adapter_of_somebody_else_is_said_to_be_unknown(finished_run: Path, taught: Taught, tmp_path: Path):
    folder = alone(finished_run, tmp_path / "lora")
    (folder / "unlora.json").unlink()
    _, known, said = put(folder, name=str(taught.target))
    assert known == "unknown"
    assert "does not say which model it was made for" in said[0]
    (folder / "unlora.json").write_text('{"made_for": {"fingerprint": 5}}')
    with pytest.raises(InputError, match=r"unlora\.json: not as unlora writes it"):
        put(folder, name=str(taught.target))


@pytest.mark.parametrize("kind", ["pissa", "pissa_niter_2", "olora", "corda", "loftq", "lora_ga", "unheard-of"])
def test_start_that_rewrites_the_base_is_refused(kind: str, finished_run: Path, taught: Taught, tmp_path: Path):
    """It would make the target, which is the model with the adapter off, another model."""
    folder = alone(finished_run, tmp_path / "lora")
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps(config | {"init_lora_weights": kind}))
    with pytest.raises(InputError, match=f"init_lora_weights '{kind}' changes the base's own weights"):
        put(folder, name=str(taught.target))


def test_adapter_that_changes_the_base_when_it_is_put_on_is_refused(tmp_path: Path):
    """Trained biases are written over the base's own, and stay there with the adapter off."""
    from transformers import AutoModelForCausalLM

    from tests.tiny import save_tiny

    target = save_tiny(tmp_path / "target", "phi")
    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(target),
        LoraConfig(r=4, target_modules=["q_proj"], bias="all", task_type="CAUSAL_LM"),
    )
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter += 0.5
    model.save_pretrained(str(tmp_path / "lora"))
    with pytest.raises(InputError, match="changes the base's own weights when it is put on"):
        put(tmp_path / "lora", name=str(target))


def test_exchanged_adapter_of_a_run_is_refused_wherever_it_is_used(finished_run: Path, taught: Taught, tmp_path: Path):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    model, _, _ = put(run / "adapter", name=str(taught.target))
    before = logits(model, taught.batch())
    config = json.loads((run / "adapter" / "adapter_config.json").read_text())
    (run / "adapter" / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": config["lora_alpha"] / 2}))
    for use in (
        lambda: refuse_changed_adapter(run),
        lambda: export_adapter(run, tmp_path / "out"),
        lambda: export_merged(run, tmp_path / "out"),
        lambda: put(run / "adapter", name=str(taught.target)),
    ):
        with pytest.raises(InputError, match="damaged or exchanged since it was written"):
            use()
    assert not (tmp_path / "out").exists()
    assert before.isfinite().all()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"adapter_sha256": 5}', '{"adapter_sha256": null}'])
def test_run_with_a_damaged_record_is_not_exported(content: str, finished_run: Path, tmp_path: Path):
    run = Path(shutil.copytree(finished_run, tmp_path / "run"))
    (run / "record.json").write_text(content)
    with pytest.raises(InputError, match=re.escape(str(run / "record.json"))):
        export_adapter(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_changes_nothing_is_said(finished_run: Path, taught: Taught, tmp_path: Path):
    """As the model's adapter, and as what is measured on it."""
    folder = alone(finished_run, tmp_path / "untrained")
    file = folder / "adapter_model.safetensors"
    save_file({name: tensor * ("lora_A" in name) for name, tensor in load_file(file).items()}, file)
    assert put(folder, name=str(taught.target))[2] == [
        f"{folder}: this adapter changes nothing; with it the model is the target"
    ]
    notes = load_model(str(folder), base=str(taught.target), device=torch.device("cpu")).notes
    assert f"{folder}: this adapter changes nothing; the model is its base, {taught.target}" in notes
