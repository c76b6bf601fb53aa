"""What gets deployed: the same logits as the run's adapter on its target, in every form."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from tests.taught import Taught
from tests.training.runs import logits
from unlora.errors import InputError
from unlora.models.load import fingerprint, load_model
from unlora.recipes.audit import audit
from unlora.recipes.export import export_adapter, export_merged
from unlora.recipes.fine_tune import fine_tune
from unlora.recipes.unlearn import unlearn
from unlora.run.presets import resolve_audit
from unlora.run.settings import FineTuneSettings, UnlearnSettings


def plain(folder: Path) -> PreTrainedModel:
    """A model folder, read by transformers alone."""
    return AutoModelForCausalLM.from_pretrained(folder)


def dense_update(folder: Path, target: Path) -> dict[str, torch.Tensor]:
    """W_merged - W of every weight that the adapter changes, in float64, by PEFT's own merge."""
    before = {name: value.double() for name, value in plain(target).state_dict().items()}
    model = plain(target).double()
    after = PeftModel.from_pretrained(model, str(folder), autocast_adapter_dtype=False).merge_and_unload().state_dict()
    return {name: after[name] - before[name] for name in before if not torch.equal(after[name], before[name])}


def distance(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> float:
    """Relative Frobenius distance of two updates."""
    lost = sum(float((found[name] - expected[name]).square().sum()) for name in expected)
    return (lost / sum(float(one.square().sum()) for one in expected.values())) ** 0.5


def rounded(folder: Path) -> dict[str, torch.Tensor]:
    """The update of an adapter whose tensors are rounded to bfloat16, by the product of its factors."""
    config = json.loads((folder / "adapter_config.json").read_text())
    scaling = config["lora_alpha"] / config["r"]
    weights = {
        key: tensor.bfloat16().double() for key, tensor in load_file(folder / "adapter_model.safetensors").items()
    }
    products = {}
    for key, lora_a in weights.items():
        if ".lora_A." in key:
            name = key.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
            products[name] = scaling * weights[key.replace(".lora_A.", ".lora_B.")] @ lora_a
    return products


def test_exported_adapter_is_the_same_update_and_bears_rounding(finished_run: Path, taught: Taught, tmp_path: Path):
    """In float32 it is exact; in bfloat16 at most 1 % of it is lost, of which the trained form loses several."""
    done = export_adapter(finished_run, tmp_path / "adapter")
    assert done.rank == json.loads((finished_run / "adapter" / "adapter_config.json").read_text())["r"] == 8
    assert done.error == 0
    assert done.check.relative_difference < 1e-5
    exact, found = (dense_update(folder, taught.target) for folder in (finished_run / "adapter", tmp_path / "adapter"))
    assert distance(found, exact) < 1e-6
    assert distance(rounded(tmp_path / "adapter"), exact) < 0.01
    assert distance(rounded(finished_run / "adapter"), exact) > distance(rounded(tmp_path / "adapter"), exact)
    origin = (finished_run / "adapter" / "unlora.json").read_text()
    assert json.loads(origin)["made_for"] | {"base": None} == json.loads(
        (tmp_path / "adapter" / "unlora.json").read_text()
    )["made_for"] | {"base": None}


def test_merged_model_agrees_and_is_a_whole_model(finished_run: Path, taught: Taught, tmp_path: Path):
    """Merging sums the weights before the product instead of after: float32 rounding, 1e-4 in a logit."""
    export_merged(finished_run, tmp_path / "merged")
    unlearned = PeftModel.from_pretrained(plain(taught.target), str(finished_run / "adapter"))
    batch = taught.batch()
    torch.testing.assert_close(logits(plain(tmp_path / "merged"), batch), logits(unlearned, batch), atol=1e-4, rtol=0)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").get_vocab()
    assert not (tmp_path / "merged" / "adapter_config.json").exists()


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_squeezed_adapter_costs_what_a_dense_svd_says(finished_run: Path, taught: Taught, tmp_path: Path, rank: int):
    error = export_adapter(finished_run, tmp_path / "squeezed", rank=rank).error
    lost = total = 0.0
    for update in dense_update(finished_run / "adapter", taught.target).values():
        values = torch.linalg.svdvals(update)
        lost += float(values[rank:].square().sum())
        total += float(values.square().sum())
    if rank == 8:
        assert error < 1e-6
    else:
        assert error == pytest.approx((lost / total) ** 0.5, rel=1e-3)
        assert error > 0.01
    config = json.loads((tmp_path / "squeezed" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == rank
    assert f"{error:.2e}" in (tmp_path / "squeezed" / "README.md").read_text()

    exact, squeezed = (
        dense_update(folder, taught.target) for folder in (finished_run / "adapter", tmp_path / "squeezed")
    )
    difference = sum(float((exact[name] - squeezed[name]).square().sum()) for name in exact)
    assert (difference / total) ** 0.5 == pytest.approx(error, rel=1e-3, abs=1e-5)


def test_rank_2r_keeps_the_model(finished_run: Path, taught: Taught, tmp_path: Path):
    export_adapter(finished_run, tmp_path / "squeezed", rank=8)
    exact, squeezed = (
        PeftModel.from_pretrained(plain(taught.target), str(folder))
        for folder in (finished_run / "adapter", tmp_path / "squeezed")
    )
    batch = taught.batch()
    torch.testing.assert_close(logits(squeezed, batch), logits(exact, batch), atol=1e-4, rtol=0)


@pytest.fixture(scope="module")
def adapter_target_run(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose target is itself base + LoRA adapter."""
    folder = tmp_path_factory.mktemp("adapter_target")
    learn = FineTuneSettings.from_mapping(
        {"model": {"name": str(taught.target)}, "data": [str(taught.forget)], "rank": 6, "alpha": 6.0, "epochs": 2}
    )
    fine_tune(learn, folder / "target")
    settings: UnlearnSettings = taught.settings(
        model={"name": str(folder / "target")}, training={"epochs": 4}, evaluation={"skip": True}
    )
    unlearn(settings, folder / "run")
    return folder


@pytest.mark.parametrize("rank", [None, 14])
def test_public_base_with_one_adapter_equals_target_with_unlearning_adapter(
    adapter_target_run: Path, taught: Taught, tmp_path: Path, rank: int | None
):
    """Rank 6 of the target + 2 x 4 of the run; the target here is merged, so the sums differ in order: 1e-4."""
    done = export_adapter(adapter_target_run / "run", tmp_path / "public", rank=rank)
    assert done.error < 1e-6
    assert done.public_base
    config = json.loads((tmp_path / "public" / "adapter_config.json").read_text())
    assert config["r"] == done.rank == 14
    assert (tmp_path / "public" / config["base_model_name_or_path"]).resolve() == taught.target
    origin = json.loads((tmp_path / "public" / "unlora.json").read_text())["made_for"]
    assert origin["fingerprint"] == fingerprint(taught.load().model)

    target = load_model(str(adapter_target_run / "target"), device=torch.device("cpu")).model
    unlearned = PeftModel.from_pretrained(target, str(adapter_target_run / "run" / "adapter"))
    public = PeftModel.from_pretrained(plain(taught.target), str(tmp_path / "public"))
    batch = taught.batch()
    torch.testing.assert_close(logits(public, batch), logits(unlearned, batch), atol=1e-4, rtol=0)
    assert not torch.allclose(logits(public, batch), logits(plain(taught.target), batch), atol=0.1)


def test_merged_export_of_an_adapter_target(adapter_target_run: Path, taught: Taught, tmp_path: Path):
    export_merged(adapter_target_run / "run", tmp_path / "merged")
    target = load_model(str(adapter_target_run / "target"), device=torch.device("cpu")).model
    unlearned = PeftModel.from_pretrained(target, str(adapter_target_run / "run" / "adapter"))
    batch = taught.batch()
    torch.testing.assert_close(logits(plain(tmp_path / "merged"), batch), logits(unlearned, batch), atol=1e-4, rtol=0)


def test_what_cannot_be_exported_is_refused(finished_run: Path, tmp_path: Path):
    with pytest.raises(InputError, match=r"no config\.yaml; not a run folder"):
        export_adapter(tmp_path, tmp_path / "out")
    with pytest.raises(InputError, match="is not an adapter; there is no other base"):
        export_adapter(finished_run, tmp_path / "out", public_base=True)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "notes.txt").write_text("x")
    for export in (export_adapter, export_merged):
        with pytest.raises(InputError, match="already exists and is not empty"):
            export(finished_run, tmp_path / "used")
    unfinished = Path(shutil.copytree(finished_run, tmp_path / "unfinished"))
    shutil.rmtree(unfinished / "adapter")
    with pytest.raises(InputError, match="holds no adapter yet; finish it with the command that started it"):
        export_merged(unfinished, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_merging_into_a_changed_target_is_refused(taught: Taught, tmp_path: Path):
    target = Path(shutil.copytree(taught.target, tmp_path / "target"))
    settings = taught.settings(
        model={"name": str(target)}, training={"epochs": 1}, evaluation={"skip": True},
        start={"kind": "plain"},
    )  # fmt: skip
    unlearn(settings, tmp_path / "run")
    model = plain(target)
    with torch.no_grad():
        model.get_parameter("lm_head.weight")[0, 0] += 1
    model.save_pretrained(target)
    with pytest.raises(InputError, match="made for a model with weights"):
        export_merged(tmp_path / "run", tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


@pytest.mark.parametrize("what", ["config", "tensors"])
def test_exchanged_adapter_is_neither_exported_nor_audited(finished_run: Path, tmp_path: Path, what: str):
    """Its numbers would be told as those of the run."""
    run = tmp_path / "run"
    shutil.copytree(finished_run, run)
    if what == "config":
        config = run / "adapter" / "adapter_config.json"
        config.write_text(json.dumps(json.loads(config.read_text()) | {"lora_alpha": 80}))
    else:
        weights = run / "adapter" / "adapter_model.safetensors"
        save_file({name: 2 * tensor for name, tensor in load_file(weights).items()}, weights)
    settings = resolve_audit(scale="default", flags={"attacks": ["sampling"]}, overrides=[])
    for use in (
        lambda: export_merged(run, tmp_path / "out"),
        lambda: export_adapter(run, tmp_path / "out"),
        lambda: export_adapter(run, tmp_path / "out", rank=2),
        lambda: audit(run, settings, tmp_path / "out"),
    ):
        with pytest.raises(InputError, match="damaged or exchanged since it was written"):
            use()
        assert not (tmp_path / "out").exists()
