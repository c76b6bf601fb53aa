"""The lines on a model card, run as they stand in a fresh process, give the model that was measured."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, Llama4ForConditionalGeneration

from tests.models.test_named_class import llama4
from tests.taught import Taught, build_taught
from tests.training.runs import logits
from unlora.adapters.export import load_trained_adapter
from unlora.cards.model_card import adapter_card
from unlora.cards.naming import name_target
from unlora.models.quiet import quiet
from unlora.recipes.export import export_adapter, export_merged
from unlora.recipes.fine_tune import fine_tune
from unlora.recipes.unlearn import unlearn
from unlora.run.loading import load
from unlora.run.settings import FineTuneSettings, ModelSettings, UnlearnSettings

RUN_CARDS = """
import os, sys, torch
from safetensors.torch import load_file, save_file
batch, found = load_file(sys.argv[1]), {}
for folder in sys.argv[3:]:
    os.chdir(folder)
    text = open("README.md", encoding="utf-8").read()
    names = {}
    exec(text.split("```python\\n")[1].split("```")[0], names)
    with torch.no_grad():
        found[folder] = names["model"].eval()(**batch).logits.float()
save_file(found, sys.argv[2])
"""


class Case(NamedTuple):
    """A run, and the settings from which its target is loaded."""

    run: Path
    settings: UnlearnSettings


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """Wide enough for blocks of 64 weights."""
    return build_taught(tmp_path_factory.mktemp("wide"), hidden=64)


def run_on(taught: Taught, folder: Path, **model: Any) -> Case:
    settings = taught.settings(
        model=model, training={"epochs": 2, "save_steps": 100}, evaluation={"skip": True}, data={"template": "plain"}
    )
    with quiet():
        unlearn(settings, folder)
    return Case(folder, settings)


def teach_adapter(taught: Taught, folder: Path, **model: Any) -> Path:
    learn = {
        "model": {"name": str(taught.target)} | model, "data": [str(taught.forget)], "rank": 4, "alpha": 8.0,
        "epochs": 6, "learning_rate": 1e-2,
    }  # fmt: skip
    fine_tune(FineTuneSettings.from_mapping(learn), folder)
    return folder


def measured(case: Case, taught: Taught) -> torch.Tensor:
    return logits(load_trained_adapter(load(case.settings.model).model, case.run / "adapter"), taught.batch())


def by_the_card(folders: list[Path], taught: Taught, tmp_path: Path) -> dict[str, torch.Tensor]:
    """Run the code of each card where it says, in a process that knows nothing of this one."""
    inputs = {key: value for key, value in taught.batch().items() if key != "labels"}
    save_file({key: value.contiguous() for key, value in inputs.items()}, tmp_path / "batch")
    (tmp_path / "run_cards.py").write_text(RUN_CARDS)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    command = [sys.executable, tmp_path / "run_cards.py", tmp_path / "batch", tmp_path / "found", *folders]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return load_file(tmp_path / "found")


@pytest.fixture(scope="module")
def cases(wide: Taught, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Case]:
    """One run on every kind of target that lies in folders, and what is exported of the first three."""
    place = tmp_path_factory.mktemp("kinds")
    own = teach_adapter(wide, place / "own")
    moved = place / "moved"
    shutil.copytree(own, moved)
    (moved / "unlora.json").unlink()  # As other tools write an adapter, for a base that lies elsewhere now.
    config = json.loads((moved / "adapter_config.json").read_text())
    (moved / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "somebody/else"}))
    found = {
        "a folder": run_on(wide, place / "plain-run", name=str(wide.target)),
        "an adapter": run_on(wide, place / "adapter-run", name=str(own)),
        "an adapter with --base": run_on(wide, place / "moved-run", name=str(moved), base=str(wide.target)),
    }
    for case in found.values():
        export_adapter(case.run, case.run / "export" / "adapter")
        export_merged(case.run, case.run / "export" / "merged")
    export_adapter(found["an adapter"].run, found["an adapter"].run / "export" / "on-target", public_base=False)
    if find_spec("bitsandbytes") is None:
        return found
    found["rounded by us"] = run_on(wide, place / "4bit-run", name=str(wide.target), quantisation="4bit")
    nf4 = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(wide.target, quantization_config=nf4, device_map={"": "cpu"})
        model.save_pretrained(place / "nf4")
    wide.load().tokenizer.save_pretrained(place / "nf4")
    found["files in 4 bits"] = run_on(wide, place / "files-run", name=str(place / "nf4"))
    found["an adapter, rounded by us"] = run_on(wide, place / "both-run", name=str(own), quantisation="4bit")
    return found


def test_lines_on_the_card_give_the_unlearned_model(cases: dict[str, Case], wide: Taught, tmp_path: Path):
    """On the card of a run's adapter, and of each export: a target that is an adapter has one for the base, too."""
    folders = {case.run / "adapter": name for name, case in cases.items()}
    folders |= {place: name for name, case in cases.items() for place in (case.run / "export").glob("*")}
    assert len(folders) == len(cases) + 7
    found = by_the_card(list(folders), wide, tmp_path)
    for name, case in cases.items():
        expected = measured(case, wide)
        for folder in (folder for folder, its in folders.items() if its == name):
            difference = float((found[str(folder)] - expected).abs().max())
            assert difference < 1e-4, f"{name}, {folder}: {difference}"
        without = logits(load(case.settings.model).model, wide.batch())
        assert float((expected - without).abs().max()) > 0.1, name


def test_lines_of_a_fine_tuned_adapter_load_the_class_that_is_named(
    wide: Taught, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The automatic class for text gives another of Llama 4, in which an adapter on the named one is nothing."""
    tokenizer = wide.load().tokenizer
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(0)
        target = Llama4ForConditionalGeneration(llama4(len(tokenizer))).eval()
        target.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    learn = {"model": {"name": str(tmp_path / "model")}, "data": [str(wide.forget)], "rank": 4, "learning_rate": 1e-2}
    fine_tune(FineTuneSettings.from_mapping(learn | {"epochs": 1}), tmp_path / "taught")
    names: dict[str, Any] = {}
    monkeypatch.chdir(tmp_path / "taught")
    exec(Path("README.md").read_text().split("```python\n")[1].split("```")[0], names)
    found, expected = (logits(model, wide.batch()) for model in (names["model"].eval(), target))
    assert float((found - expected).abs().max()) > 1e-3
    fine_tune(FineTuneSettings.from_mapping(learn | {"epochs": 1, "method": "full"}), tmp_path / "whole")
    before, after = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("model", "whole"))
    assert "use_cache" not in before.keys() | after.keys()  # The trainer writes one at the top.
    assert after["text_config"]["use_cache"] is True


def test_nothing_that_is_published_says_whose_machine_it_was(
    cases: dict[str, Case], tmp_path_factory: pytest.TempPathFactory
):
    """Neither an absolute path nor the way into this test's own folders."""
    root = str(tmp_path_factory.getbasetemp())
    for case in cases.values():
        folders = [case.run / "adapter", *(case.run / "export").glob("*")]
        for file in (file for folder in folders for file in folder.rglob("*") if file.is_file()):
            content = file.read_bytes().decode("utf-8", "replace")
            assert root not in content, file
            assert str(Path.home()) + "/" not in content, file
            assert not re.search(r'"/[a-z]+/', content), file


def test_cards_of_adapters_are_valid_and_name_the_weights_they_were_made_for(cases: dict[str, Case]):
    for case in cases.values():
        for folder in (place.parent for place in case.run.rglob("unlora.json")):
            fingerprint = json.loads((folder / "unlora.json").read_text())["made_for"]["fingerprint"]
            card = ModelCard.load(folder / "README.md")
            assert card.data.library_name == "peft"
            assert f"(weights {fingerprint[:16]})" in card.text, folder


AWKWARD = ["a: b", "`tick`", "a|b", "<img src=x onerror=1>", "- x", "'q\"", "#h", "{{ x }}", "ünï ☂", "gpt2", "a```b"]


def test_cards_of_adapters_warn_of_a_base_on_the_disk(cases: dict[str, Case]):
    case = cases["a folder"]
    for folder in (case.run / "adapter", case.run / "export" / "adapter"):
        assert "rewrites that folder's own weights" in " ".join((folder / "README.md").read_text().split())
    assert "rewrites" not in (case.run / "export" / "merged" / "README.md").read_text()


@pytest.mark.parametrize("name", AWKWARD)
def test_card_is_whole_for_any_name(name: str, cases: dict[str, Case], tmp_path: Path):
    case = cases["a folder"]
    shutil.copytree(case.settings.model.name, tmp_path / name)
    record = json.loads((case.run / "record.json").read_text())
    told = name_target(ModelSettings(name=str(tmp_path / name)), tmp_path / "run" / "adapter")
    (tmp_path / "README.md").write_text(adapter_card(case.settings, record, told), encoding="utf-8")
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.to_dict() == {
        "library_name": "peft", "pipeline_tag": "text-generation", "tags": ["lora", "unlearning", "unlora"],
    }  # fmt: skip
    code = card.text.split("```python\n")[1].split("\n```")[0]
    assert f"from_pretrained({json.dumps(f'../../{name}', ensure_ascii=False)}, " in code
    compile(code, "card", "exec")
    row = next(line for line in card.text.splitlines() if line.startswith("| target model"))
    assert len(re.split(r"(?<!\\)\|", row)) == 4


@pytest.mark.parametrize("writes", [export_adapter, export_merged])
def test_hub_id_of_the_base_can_be_given(writes: Callable[..., Any], cases: dict[str, Case], tmp_path: Path):
    """And the licence comes from the base's own card."""
    (Path(cases["a folder"].settings.model.name) / "README.md").write_text("---\nlicense: mit\n---\n# Base\n")
    try:
        writes(cases["a folder"].run, tmp_path / "out", base_name="somebody/base")
    finally:
        (Path(cases["a folder"].settings.model.name) / "README.md").unlink()
    data = ModelCard.load(tmp_path / "out" / "README.md").data.to_dict()
    assert data["base_model"] == "somebody/base"
    assert data["license"] == "mit"
    assert data["library_name"] == ("peft" if writes is export_adapter else "transformers")
    if writes is export_adapter:
        config = json.loads((tmp_path / "out" / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "somebody/base"
        assert 'from_pretrained("somebody/base", ' in (tmp_path / "out" / "README.md").read_text()
