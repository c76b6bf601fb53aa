"""`unlora unlearn` on a model of fused experts, a hybrid, and the language model of a multimodal checkpoint."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from tests.cli.commands import FORGET, RETAIN, unlora, write_lines
from tests.models.test_choose import tiny_config
from tests.tiny import build_tiny_tokenizer
from unlora.models.load import load_model

LEARN = (
    "--set", "training.epochs=2", "--set", "training.learning_rate=1e-2", "--set", "adapter.rank=4", "--set",
    "evaluation.max_new_tokens=4",
)  # fmt: skip
IDS = torch.arange(2, 22)[None]


def gemma3(vocab_size: int) -> Any:
    """A checkpoint with an image part, whose config.json names the class of both."""
    text = tiny_config("gemma3_text", vocab_size=vocab_size, head_dim=8, query_pre_attn_scalar=8)
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 8,
        "patch_size": 4,
    }  # fmt: skip
    return CONFIG_MAPPING["gemma3"](text_config=text.to_dict(), vision_config=vision, mm_tokens_per_image=4)


def save(folder: Path, kind: str) -> type:
    """Write a random model of a kind with its tokenizer; return the automatic class that reads it."""
    tokenizer = build_tiny_tokenizer()
    auto: Any = AutoModelForImageTextToText if kind == "gemma3" else AutoModelForCausalLM
    config = gemma3(len(tokenizer)) if kind == "gemma3" else tiny_config(kind, vocab_size=len(tokenizer))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: PreTrainedModel = auto.from_config(config)
    model.float().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return auto


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("mixtral", "16 matrices of experts"),
        ("bamba", "mamba.out_proj"),
        ("gemma3", "vision_tower"),
        ("falcon", "reaches 100 % of the weights"),
    ],
)
def test_run_says_its_reach_and_its_adapter_moves_the_class_that_is_deployed(kind: str, said: str, tmp_path: Path):
    auto: Any = save(tmp_path / "model", kind)
    sets = (write_lines(tmp_path / "forget.jsonl", FORGET), write_lines(tmp_path / "retain.jsonl", RETAIN))
    words = ("--model", tmp_path / "model", "--forget", sets[0], "--retain", sets[1], *LEARN)
    result = unlora("unlearn", *words, "--output", tmp_path / "run")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert said in result.stderr
    assert record["checks"]["base_weights_unchanged"] is True
    assert 0 < record["reach"]["weights"] <= record["reach"]["weights_in_all"]
    deployed = auto.from_pretrained(tmp_path / "model").eval()
    with torch.no_grad():
        before = deployed(input_ids=IDS).logits
        after = PeftModel.from_pretrained(deployed, str(tmp_path / "run" / "adapter")).eval()(input_ids=IDS).logits
    assert float((after - before).abs().max()) > 1e-3
    merged = unlora("export", tmp_path / "run", "--merged")
    assert merged.exit_code == 0, merged.output
    folder = next(path.parent for path in (tmp_path / "run" / "export").rglob("config.json"))
    with torch.no_grad():
        whole = load_model(str(folder), device=torch.device("cpu")).model(input_ids=IDS).logits
    torch.testing.assert_close(whole, after, atol=1e-4, rtol=1e-4)
