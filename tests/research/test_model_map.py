"""One class of each kind through the whole path of the map, and what the map itself computes."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unlora_research.model_map.__main__ import main
from unlora_research.model_map.by_hand import add_by_hand
from unlora_research.model_map.page import NOTES, differences, page
from unlora_research.model_map.path import LEAST, _difference, try_class
from unlora_research.model_map.verdict import LOGITS, NATS, PLANNED, Verdict

LEFT_OUT: dict[str, set[str]] = {
    "llama": set(),
    "gpt2": {"transformer.wpe"},
    "mixtral": {"mlp.gate"},
    "gpt_oss": {"mlp.router", "mlp.experts.gate_up_proj_bias", "mlp.experts.down_proj_bias"},
    "dbrx": {"ffn.experts.mlp.w1", "ffn.experts.mlp.v1", "ffn.experts.mlp.w2", "ffn.router.layer"},
    "deepseek_v3": {
        "mlp.gate", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
        "mlp.shared_experts.gate_proj", "mlp.shared_experts.up_proj", "mlp.shared_experts.down_proj",
    },
    "lfm2": {"conv.conv"},
    "zaya": {"self_attn.qkv_proj.conv_qk_grouped", "self_attn.qkv_proj.conv_qk_depthwise"},
    "llava": {"vision_tower.*", "multi_modal_projector.*"},
}  # fmt: skip
"""Dense, transposed, experts in both orders of axes and in two dimensions, latent attention, a hybrid, keys times a
vector that begins as zero, and images."""


@pytest.mark.parametrize("kind", list(LEFT_OUT))
def test_one_class_of_each_kind(kind: str, tmp_path: Path):
    found = try_class(kind, tmp_path)
    assert (found.outcome, set(found.left_out)) == ("partly" if LEFT_OUT[kind] else "works", LEFT_OUT[kind])
    differences = [found.peft_difference, found.merged_difference, found.score_difference, found.plan_difference]
    for difference, most in zip(differences, (LOGITS, LOGITS, NATS, PLANNED), strict=True):
        assert difference is not None
        assert difference <= most
    assert found.moved is not None
    assert found.moved > 1e-3


def test_what_begins_with_a_factor_of_zero_depends_on_every_layer(tmp_path: Path):
    """Doge multiplies its steps by a vector that begins as zero."""
    assert try_class("doge", tmp_path).outcome == "works"


@pytest.mark.parametrize(
    ("kind", "line"), [("xlnet", "reads both sides of a token"), ("reformer", "cannot be computed with")]
)
def test_what_cannot_work_is_refused_in_one_line(kind: str, line: str, tmp_path: Path):
    found = try_class(kind, tmp_path)
    assert (found.outcome, found.stage) == ("refused", "load")
    assert line in found.line


def test_share_of_a_mixture_in_reach_is_what_its_shapes_say(tmp_path: Path):
    """Two layers of width 32: four heads of 8, two of keys; four experts of inner width 48; a gate of 4 outputs."""
    found = try_class("mixtral", tmp_path)
    attention, experts, gate = 2 * 32 * 32 + 2 * 16 * 32, 4 * 3 * 48 * 32, 4 * 32
    assert found.reach == pytest.approx((attention + experts) / (attention + experts + gate), rel=1e-12)


class Pair(nn.Module):
    """Two layers that share their weight and nothing else, and one of them under a second name."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)
        self.first.weight = nn.Parameter(torch.zeros(2, 2))
        self.second.weight = self.first.weight
        self.again = self.first


def test_by_hand_layers_that_share_a_weight_have_an_adapter_each(tmp_path: Path):
    settings = {"lora_alpha": 6, "r": 1, "target_parameters": None}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings))
    factors: dict[str, Any] = {}
    for name, size in (("first", 1.0), ("again", 1.0), ("second", 10.0)):
        factors[f"base_model.model.{name}.lora_A.weight"] = torch.tensor([[1.0, 2.0]])
        factors[f"base_model.model.{name}.lora_B.weight"] = torch.tensor([[size], [0.0]])
    save_file(factors, tmp_path / "adapter_model.safetensors")
    pair = Pair()
    add_by_hand(pair, tmp_path)
    assert pair.first.weight.tolist() == [[6, 12], [0, 0]]
    assert pair.second.weight.tolist() == [[60, 120], [0, 0]]


def test_forbidden_tokens_do_not_hide_a_difference():
    expected, found = torch.tensor([1.0, 4.0, 10 * LEAST]), torch.tensor([1.0, 5.0, 10 * LEAST])
    assert _difference(expected, found) == pytest.approx(0.25)
    assert _difference(expected, torch.tensor([1.0, 10 * LEAST, 10 * LEAST])) == float("inf")


@pytest.mark.parametrize("name", ["peft_difference", "merged_difference", "score_difference", "plan_difference"])
def test_each_number_that_is_not_as_it_must_be_is_told(name: str):
    right = Verdict(kind="a", name="A", outcome="works", peft_difference=0, merged_difference=0, moved=1.0)
    assert not right.wrong
    assert right.model_copy(update={name: 0.2}).wrong
    assert right.model_copy(update={name: float("nan")}).wrong


def test_page_says_of_a_run_what_its_numbers_say_and_notes_of_types_that_were_tried():
    tried = Verdict(kind="dbrx", name="D", outcome="partly", reach=0.3, score_difference=2e-6, plan_difference=0.0)
    other = Verdict(kind="llama", name="L", outcome="works", reach=1.0, score_difference=1e-6, plan_line="it cannot")
    record: dict[str, Any] = {
        "known": 3, "command": "map", "versions": {"torch": "2"}, "seconds": 7.0, "processor": "p", "starts": ["a"],
        "steps": 2,
    }  # fmt: skip
    written = page(record, [tried, other])
    assert "the largest difference is 2e-06" in written
    assert "reach and adapter of 1 of them, to 10%; of llama it says in one line that it cannot" in written
    assert NOTES["dbrx"] in written
    assert not any(note in written for kind, note in NOTES.items() if kind != "dbrx")


def verdict(kind: str, outcome: Any = "works", **found: Any) -> Verdict:
    return Verdict(kind=kind, name=kind.title(), outcome=outcome, **found)


def test_what_another_version_has_otherwise_is_told_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    old = [
        verdict("a"), verdict("b"), verdict("c", "partly", left_out={"gate": "not linear layers"}),
        verdict("d", "not built", line="it needs an image"), verdict("e", seconds=3.0, score_difference=1e-6),
    ]  # fmt: skip
    new = [
        verdict("b", "error", line="KeyError: x"), verdict("c", "partly", left_out={"router": "not linear layers"}),
        verdict("d"), verdict("e", seconds=5.0, score_difference=2e-6), verdict("f", "refused", line="it is none"),
    ]  # fmt: skip
    expected = [
        "a: gone, was: works, every weight in reach",
        "b: was: works, every weight in reach; now: an error that nobody words (KeyError: x)",
        "c: leaves out not linear layers: `router`; before not linear layers: `gate`",
        "d: was: not built or not run here by transformers itself; now: works, every weight in reach",
        "f: new, refused in one line",
    ]
    assert [line.rstrip() for line in differences(old, new)] == expected
    files = [tmp_path / "old.json", tmp_path / "new.json"]
    for file, verdicts in zip(files, (old, new), strict=True):
        file.write_text(json.dumps({"verdicts": [one.model_dump(mode="json") for one in verdicts]}))
    for pair, told in ((files, expected), ((files[0], files[0]), ["nothing differs"])):
        monkeypatch.setattr(sys, "argv", ["model_map", "--differences", *map(str, pair)])
        main()
        assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == told
