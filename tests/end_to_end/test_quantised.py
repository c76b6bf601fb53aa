"""A base in 4 or 8 bits from importance to export: measured, trained and kept is what the rounded weights say."""

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel

from tests.taught import PAD, Taught, build_taught
from tests.training.runs import logits
from unlora.adapters.export import load_trained_adapter, read_adapter
from unlora.data.collate import collate
from unlora.errors import InputError
from unlora.importance import estimate_importance
from unlora.importance.importance_map import ImportanceMap
from unlora.models.fingerprint import fingerprint
from unlora.models.load import load_model
from unlora.models.quantised import Bits, compute_in_full
from unlora.models.score import score_completions
from unlora.models.target_modules import find_target_modules
from unlora.recipes.export import export_adapter, export_merged
from unlora.recipes.fine_tune import fine_tune
from unlora.recipes.unlearn import unlearn
from unlora.run.reporter import SilentReporter
from unlora.run.settings import FineTuneSettings, UnlearnSettings
from unlora.suites.tofu.scores import TOFU_FILE

pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed: the extra 'quantisation'")

BITS: tuple[Bits, ...] = ("4bit", "8bit")
WEIGHTS = "adapter_model.safetensors"


class Run(NamedTuple):
    """A finished run and what it says about itself."""

    folder: Path
    metrics: dict[str, dict[str, Any]]
    record: dict[str, Any]


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """The taught model 64 wide: rows of whole nf4 blocks, as models for use have them."""
    return build_taught(tmp_path_factory.mktemp("wide"), hidden=64)


def settings(taught: Taught, bits: Bits, **sections: Any) -> UnlearnSettings:
    """Marginals, the row solver, IHL: what `unlora unlearn` does by default."""
    training = {"learning_rate": 1e-2, "epochs": 8, "batch_size": 4, "save_steps": 3}
    return taught.settings(**{"model": {"quantisation": bits}, "training": training} | sections)


def finished(taught: Taught, bits: Bits, folder: Path) -> Run:
    evaluation = unlearn(settings(taught, bits), folder)
    record = json.loads((folder / "record.json").read_text())
    return Run(folder, {role: model["metrics"] for role, model in evaluation["models"].items()}, record)


@pytest.fixture(scope="module")
def run(wide: Taught, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """In 4 bits; read only."""
    return finished(wide, "4bit", tmp_path_factory.mktemp("four") / "run")


def rounded_layers(model: nn.Module) -> dict[str, Any]:
    """The layers of bitsandbytes, under their plain names."""
    return {
        name.removeprefix("base_model.model.").removesuffix(".base_layer"): module
        for name, module in model.named_modules()
        if type(module).__module__ == "bitsandbytes.nn.modules"
    }


def multiplied_out(module: Any) -> Tensor:
    """W (d_out, d_in) as the formats are defined: level x scale of its block, or code x scale of its row / 127."""
    codes = module.weight.data
    if codes.dtype == torch.int8:
        scales = module.weight.SCB if module.weight.SCB is not None else module.state.SCB
        return codes.float() * scales[:, None] / 127
    packed, state = codes.reshape(-1), module.weight.quant_state
    levels = state.code[torch.stack([packed >> 4, packed & 15], dim=1).reshape(-1).long()]
    return (levels.reshape(-1, 64) * state.absmax[:, None]).reshape(module.out_features, module.in_features)


def float_twin(taught: Taught, rounded: nn.Module) -> PreTrainedModel:
    """An ordinary float32 model whose weights are the rounded model's."""
    twin = taught.load().model
    with torch.no_grad():
        for name, module in rounded_layers(rounded).items():
            twin.get_parameter(f"{name}.weight").copy_(multiplied_out(module))
    return twin


def probability(role: dict[str, Any], name: str) -> float:
    return role[f"{name}_probability"]["value"]


def assert_forgotten(found: Run) -> None:
    target, unlearned = found.metrics["target"], found.metrics["unlearned"]
    assert probability(target, "forget") > 0.9
    assert probability(unlearned, "forget") < 0.5 * probability(target, "forget")
    assert probability(unlearned, "retain") > 0.9 * probability(target, "retain")


def assert_base_as_loaded(taught: Taught, found: Run, bits: Bits) -> None:
    """Every byte of the base after training and evaluation, and its output without the adapter, are a fresh load's."""
    assert found.record["model"]["quantisation"] == bits
    assert found.record["checks"]["base_weights_unchanged"] is True
    assert found.record["checks"]["output_at_step_0"]["largest_difference"] == 0
    untouched = taught.load(quantisation=bits).model
    expected = logits(untouched, taught.batch())
    model = load_trained_adapter(taught.load(quantisation=bits).model, found.folder / "adapter")
    before = {name: module.weight.data.clone() for name, module in rounded_layers(model).items()}
    assert len(before) == 14
    adapted = logits(model, taught.batch())
    with model.disable_adapter():
        assert torch.equal(logits(model, taught.batch()), expected)
    assert not torch.equal(adapted, expected)
    assert all(torch.equal(module.weight.data, before[name]) for name, module in rounded_layers(model).items())
    assert fingerprint(model) == fingerprint(untouched) == found.record["model"]["fingerprint"]


def test_forgets_on_4_bits(run: Run):
    assert_forgotten(run)


def test_base_in_4_bits_is_as_loaded(run: Run, wide: Taught):
    assert_base_as_loaded(wide, run, "4bit")


def test_8_bits_forget_and_stay_as_loaded(wide: Taught, tmp_path: Path):
    found = finished(wide, "8bit", tmp_path / "run")
    assert_forgotten(found)
    assert_base_as_loaded(wide, found, "8bit")


@pytest.mark.parametrize("bits", BITS)
def test_weight_is_what_the_format_says(wide: Taught, bits: Bits):
    model = wide.load(quantisation=bits).model
    targets, layers = find_target_modules(model), rounded_layers(model)
    assert list(targets) == list(layers) == list(find_target_modules(wide.load().model))
    for name, target in targets.items():
        assert (target.d_out, target.d_in) == (layers[name].out_features, layers[name].in_features)
        torch.testing.assert_close(target.weight(), multiplied_out(layers[name]), atol=1e-6, rtol=1e-6)


def test_importance_in_4_bits_is_that_of_the_rounded_weights(run: Run, wide: Taught):
    """A float32 model with these weights has the same marginals; the unrounded model has others."""
    forget, retain = ([collate(tokens, PAD)] for tokens in (wide.tokens(wide.forget), wide.tokens(wide.retain)))
    kept = ImportanceMap.load(run.folder / "importance.safetensors")
    twin = estimate_importance(
        float_twin(wide, wide.load(quantisation="4bit").model), forget, retain, preset="marginal"
    )
    other = estimate_importance(wide.load().model, forget, retain, preset="marginal")
    assert list(kept) == list(twin)
    moved = 0
    for name in kept:
        for part in ("rows", "columns"):
            for set_name in ("forget", "retain"):
                found, expected, unrounded = (
                    getattr(getattr(one[name], set_name), part) for one in (kept, twin, other)
                )
                assert (found - expected).norm() < 1e-4 * expected.norm()
                moved += int((unrounded - expected).norm() > 1e-2 * expected.norm())
    assert moved > 20


def test_importance_in_8_bits_is_near_that_of_the_rounded_weights(wide: Taught):
    """LLM.int8 also rounds activations to 8 bits and computes in float16, so the maps agree to some percent only."""
    forget = [collate(wide.tokens(wide.forget), PAD)]
    model = wide.load(quantisation="8bit").model
    found = estimate_importance(model, forget, None, preset="marginal")
    expected = estimate_importance(float_twin(wide, model), forget, None, preset="marginal")
    for name in found:
        assert (found[name].forget.rows - expected[name].forget.rows).norm() < 0.25 * expected[name].forget.rows.norm()


def test_interrupted_run_ends_with_the_same_adapter(run: Run, wide: Taught, tmp_path: Path):
    class Interrupting(SilentReporter):
        """Stops after the fifth step, between two checkpoints."""

        @contextmanager
        def task(self, title: str, total: int) -> Iterator[Any]:
            steps = 0

            class Counting:
                def plot(self, values: object) -> None:
                    pass

                def advance(self, count: int = 1, note: str = "") -> None:
                    nonlocal steps
                    steps += count
                    if title == "Unlearning" and steps >= 5:
                        raise KeyboardInterrupt

                def update(self, note: str, done: int, total: int) -> None:
                    pass

            yield Counting()

    with pytest.raises(KeyboardInterrupt):
        unlearn(settings(wide, "4bit"), tmp_path / "run", reporter=Interrupting())
    assert not (tmp_path / "run" / "adapter").exists()
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-3"]
    unlearn(settings(wide, "4bit"), tmp_path / "run")
    ours, whole = ((folder / "adapter" / WEIGHTS).read_bytes() for folder in (tmp_path / "run", run.folder))
    assert ours == whole


def test_activation_checkpointing_changes_nothing(run: Run, wide: Taught, tmp_path: Path):
    training = settings(wide, "4bit").training.model_dump() | {"gradient_checkpointing": True}
    unlearn(settings(wide, "4bit", training=training, evaluation={"skip": True}), tmp_path / "run")
    ours, without = (read_adapter(folder / "adapter")[1] for folder in (tmp_path / "run", run.folder))
    for name, factors in without.items():
        torch.testing.assert_close(ours[name].lora_b, factors.lora_b, atol=1e-5, rtol=1e-4)


def test_merged_export_is_the_full_precision_base_plus_the_update(run: Run, wide: Taught, tmp_path: Path):
    export_merged(run.folder, tmp_path / "merged")
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    assert rounded_layers(merged) == {}
    _, factors = read_adapter(run.folder / "adapter")
    for name, weight in wide.load().model.state_dict().items():
        update = factors.get(name.removesuffix(".weight"))
        expected = weight if update is None else weight + update.lora_b @ update.lora_a
        torch.testing.assert_close(merged.state_dict()[name], expected, atol=1e-5, rtol=1e-5)
    export_adapter(run.folder, tmp_path / "squeezed", rank=2)
    squeezed = PeftModel.from_pretrained(wide.load(quantisation="4bit").model, str(tmp_path / "squeezed"))
    assert squeezed.peft_config["default"].r == 2


@pytest.mark.parametrize(("bits", "allowed"), [("4bit", 1e-4), ("8bit", 0.05)])
def test_exported_adapter_gives_the_answers_that_were_measured_in_plain_peft(
    run: Run, wide: Taught, bits: Bits, allowed: float, tmp_path: Path
):
    """In 8 bits the inputs of every layer are rounded too, and a step of theirs falls either way."""
    found = run if bits == "4bit" else finished(wide, "8bit", tmp_path / "run")
    export_adapter(found.folder, tmp_path / "adapter")
    options: dict[str, Any] = {"load_in_8bit": True} if bits == "8bit" else {
        "load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": torch.float32,
    }  # fmt: skip
    base = AutoModelForCausalLM.from_pretrained(
        wide.target, quantization_config=BitsAndBytesConfig(**options), device_map={"": "cpu"}, dtype=torch.float32
    )
    compute_in_full(base)
    expected = [one.mean_log_prob for one in TOFU_FILE.load(found.folder / "scores" / "unlearned.jsonl").sets["forget"]]
    asked = [(one.input_ids, one.prompt_length) for one in wide.tokens(wide.forget)]
    adapted = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).eval()
    answers = [one.mean_log_prob for one in score_completions(adapted, asked, pad_token_id=PAD)]
    assert answers == pytest.approx(expected, abs=allowed)
    with adapted.disable_adapter():
        without = [one.mean_log_prob for one in score_completions(adapted, asked, pad_token_id=PAD)]
    assert min(before - after for before, after in zip(without, expected, strict=True)) > 10 * allowed


def test_files_in_4_bits_are_taken_as_they_are(run: Run, wide: Taught, tmp_path: Path):
    """A model that was saved in 4 bits has the same weights; merging into it is refused, rounding it again too."""
    stored = tmp_path / "stored"
    shutil.copytree(wide.target, stored)
    (stored / "model.safetensors").unlink()
    wide.load(quantisation="4bit").model.save_pretrained(stored)
    loaded = load_model(str(stored), device=torch.device("cpu"))
    assert loaded.source.quantisation == "4bit"
    assert fingerprint(loaded.model) == run.record["model"]["fingerprint"]

    unlearn(wide.settings(model={"name": str(stored)}, evaluation={"skip": True}), tmp_path / "run")
    card = (tmp_path / "run" / "adapter" / "README.md").read_text()
    assert "BitsAndBytesConfig" not in card
    assert "4bit" in card
    with pytest.raises(InputError, match="hold it in 4bit; deploy the adapter"):
        export_merged(tmp_path / "run", tmp_path / "merged")
    with pytest.raises(InputError, match=r"hold it in 4bit already; leave model\.quantisation out"):
        load_model(str(stored), device=torch.device("cpu"), quantisation="8bit")


def test_adapter_target_is_merged_and_then_rounded(run: Run, wide: Taught, tmp_path: Path):
    adapter = run.folder / "adapter"
    export_merged(run.folder, tmp_path / "merged")
    expected = load_model(str(tmp_path / "merged"), device=torch.device("cpu"), quantisation="4bit")
    found = load_model(str(adapter), base=str(wide.target), device=torch.device("cpu"), quantisation="4bit")
    assert (found.source.kind, found.source.quantisation) == ("adapter", "4bit")
    assert fingerprint(found.model) == fingerprint(expected.model)


def test_fine_tuning_in_4_bits_teaches_an_adapter_and_refuses_every_weight(wide: Taught, tmp_path: Path):
    values = {"model": {"name": str(wide.target), "quantisation": "4bit"}, "data": [str(wide.forget)], "epochs": 1}
    fine_tune(FineTuneSettings.from_mapping(values), tmp_path / "lora")
    assert (tmp_path / "lora" / WEIGHTS).is_file()
    with pytest.raises(InputError, match="weights in 4bit cannot be trained; use lora"):
        fine_tune(FineTuneSettings.from_mapping(values | {"method": "full"}), tmp_path / "full")


@pytest.mark.parametrize("start", ["lora_ga", "corda", "fila_published"])
def test_what_needs_gradients_of_weights_is_refused(wide: Taught, start: str, tmp_path: Path):
    importance = {"initialisation": start}
    if start == "fila_published":
        importance = {"arithmetic": "published", "statistic": "second_moment", "space": "full_weights"}
    with pytest.raises(InputError, match=r"layers\.0\.self_attn\.q_proj") as refused:
        unlearn(settings(wide, "4bit", importance=importance), tmp_path / "run")
    assert "\n" not in str(refused.value)
