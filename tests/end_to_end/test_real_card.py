"""The lines on the card of a run on the embedded model, alone and under an adapter, in a fresh process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.cards.test_cards import RUN_CARDS
from tests.cli.commands import FORGET, RETAIN, unlora, write_lines
from unlora.adapters.export import load_trained_adapter
from unlora.models.load import load_model

pytestmark = [pytest.mark.real_model, pytest.mark.filterwarnings("ignore")]

IDS = torch.tensor([[504, 2, 77, 1024, 31, 9, 4000, 12]])
QUICK = (
    "--template", "plain", "--dtype", "float32", "--set", "training.epochs=2", "--set", "training.learning_rate=2e-3",
    "--set",
    "adapter.target_modules=[q_proj, v_proj]", "--set", "evaluation.skip=true",
)  # fmt: skip


def succeed(*words: object) -> None:
    result = unlora(*words)
    assert result.exit_code == 0, result.output


def test_lines_on_the_card_give_the_unlearned_model(tmp_path: Path) -> None:
    sets = [write_lines(tmp_path / f"{name}.jsonl", some) for name, some in (("forget", FORGET), ("retain", RETAIN))]
    learn = ("--data", sets[0], "--template", "plain", "--epochs", "2", "--dtype", "float32")
    succeed("finetune", "--model", "embedded", *learn, "--output", tmp_path / "target")
    expected, without, adapters = {}, {}, {}
    for name, model in (("alone", ("embedded",)), ("adapter", (tmp_path / "target", "--base", "embedded"))):
        run = tmp_path / name
        succeed("unlearn", "--model", *model, "--forget", sets[0], "--retain", sets[1], *QUICK, "--output", run)
        adapters[name] = run / "adapter"
        base = "embedded" if name == "adapter" else None
        target = load_model(str(model[0]), base=base, device=torch.device("cpu"))
        with torch.no_grad():
            without[name] = target.model(input_ids=IDS).logits.float()
            expected[name] = load_trained_adapter(target.model, adapters[name])(input_ids=IDS).logits.float()
    save_file({"input_ids": IDS}, tmp_path / "batch")
    (tmp_path / "run_cards.py").write_text(RUN_CARDS)
    words = [sys.executable, tmp_path / "run_cards.py", tmp_path / "batch", tmp_path / "found", *adapters.values()]
    done = subprocess.run(words, env=os.environ | {"HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = load_file(tmp_path / "found")
    for name, adapter in adapters.items():
        assert float((found[str(adapter)] - expected[name]).abs().max()) < 1e-3, name
        assert float((expected[name] - without[name]).abs().max()) > 0.1, name
