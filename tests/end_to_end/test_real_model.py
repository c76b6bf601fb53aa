"""The main job on SmolLM2 and real text: minutes on two cores, so under a mark of its own (`make real`)."""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from peft import PeftModel
from transformers import AutoModelForCausalLM

from unlora.cli.main import main
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.models.embedded import embedded_model_folder
from unlora.models.load import load_model
from unlora.models.score import score_completions

TOFU_MINI = Path(__file__).parents[3] / "shared" / "data" / "tofu-mini"

pytestmark = [pytest.mark.real_model, pytest.mark.filterwarnings("ignore")]


def run_cli(*arguments: str) -> str:
    result = CliRunner().invoke(main, list(arguments))
    assert result.exit_code == 0, result.output
    return result.output


def metric(run: Path, model: str, name: str) -> float:
    return json.loads((run / "evaluation.json").read_text())["models"][model]["metrics"][name]["value"]


@pytest.fixture(scope="module")
def tofu_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """forget01 against 18 authors, default preset, nothing tuned."""
    if not TOFU_MINI.is_dir():
        pytest.skip("the real target model is not here")
    run = tmp_path_factory.mktemp("tofu") / "run"
    run_cli(
        "unlearn",
        *("--model", str(TOFU_MINI / "target"), "--base", "embedded", "--template", "plain", "--dtype", "float32"),
        *("--forget", str(TOFU_MINI / "forget.jsonl"), "--retain", str(TOFU_MINI / "retain.jsonl")),
        *("--set", f"evaluation.forget={TOFU_MINI / 'forget_perturbed.jsonl'}"),
        *("--retain-only", str(TOFU_MINI / "retain_only"), "--set", "evaluation.retain_only_base=embedded"),
        *("--set", "evaluation.max_examples=40", "--set", "evaluation.max_new_tokens=8"),
        *("--output", str(run)),
    )
    return run


def test_tofu_forget_set_falls_to_the_level_of_a_model_that_never_saw_it(tofu_run: Path) -> None:
    """The issue's measure: within 0.1 of retain-only on forget, at least 95 % of the target on retain."""
    unlearned = metric(tofu_run, "unlearned", "forget_probability")
    assert abs(unlearned - metric(tofu_run, "retain_only", "forget_probability")) < 0.1
    kept = metric(tofu_run, "unlearned", "retain_probability") / metric(tofu_run, "target", "retain_probability")
    assert kept >= 0.95
    assert metric(tofu_run, "unlearned", "forget_quality") > metric(tofu_run, "target", "forget_quality")


def test_tofu_target_agrees_with_the_reference_measured_elsewhere(tofu_run: Path) -> None:
    """reference.json was made by other code: probability and truth ratios of the target, question by question."""
    reference = json.loads((TOFU_MINI / "reference.json").read_text())
    assert metric(tofu_run, "target", "forget_probability") == pytest.approx(
        reference["target"]["forget_probability"], abs=2e-3
    )
    assert metric(tofu_run, "retain_only", "forget_probability") == pytest.approx(
        reference["retain_only"]["forget_probability"], abs=5e-3
    )
    assert metric(tofu_run, "target", "forget_quality_log10") == pytest.approx(
        reference["log10_p_target_against_retain_only"], abs=0.01
    )
    lines = (tofu_run / "scores" / "target.jsonl").read_text().splitlines()
    ratios = [truth_ratio_of(json.loads(line)) for line in lines[1:] if json.loads(line).get("perturbed_log_probs")]
    expected = reference["target"]["forget_right_over_wrong_geometric_per_question"]
    assert ratios == pytest.approx(expected, rel=0.02)


def truth_ratio_of(score: dict[str, Any]) -> float:
    wrong = score["perturbed_log_probs"]
    return math.exp(score["paraphrased_log_prob"] - sum(wrong) / len(wrong))


def test_tofu_forget_quality_accepts_retain_only_and_rejects_the_target(tofu_run: Path, tmp_path: Path) -> None:
    """The reference is asked once more, in batches of another size: the same answers, and p = 1 against itself."""
    assert metric(tofu_run, "retain_only", "forget_quality") == 1
    assert metric(tofu_run, "target", "forget_quality") < 0.01
    run_cli(
        "evaluate",
        *("--model", str(TOFU_MINI / "retain_only"), "--base", "embedded", "--template", "plain", "--dtype", "float32"),
        *("--forget", str(TOFU_MINI / "forget_perturbed.jsonl")),
        *("--retain-only", str(tofu_run / "scores" / "retain_only.jsonl")),
        *("--set", "evaluation.max_new_tokens=8", "--set", "evaluation.batch_size=10"),
        *("--output", str(tmp_path / "again")),
    )
    assert metric(tmp_path / "again", "target", "forget_quality") == pytest.approx(1)
    assert metric(tmp_path / "again", "target", "forget_probability") == pytest.approx(
        metric(tofu_run, "retain_only", "forget_probability"), abs=1e-4
    )


def test_tofu_adapter_loads_with_plain_peft_and_merged_export_agrees(tofu_run: Path, tmp_path: Path) -> None:
    """Three lines, none of ours, give the numbers of evaluation.json; so does the merged folder."""
    before = hashlib.sha256((TOFU_MINI / "target" / "adapter_model.safetensors").read_bytes()).hexdigest()
    run_cli("export", str(tofu_run), "--merged", "--output", str(tmp_path / "merged"))

    base = AutoModelForCausalLM.from_pretrained(embedded_model_folder(), dtype=torch.float32)
    target = PeftModel.from_pretrained(base, str(TOFU_MINI / "target")).merge_and_unload()
    unlearned = PeftModel.from_pretrained(target, str(tofu_run / "adapter"))

    expected = metric(tofu_run, "unlearned", "forget_probability")
    assert forget_probability(unlearned) == pytest.approx(expected, abs=1e-4)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "merged", dtype=torch.float32)
    assert forget_probability(merged) == pytest.approx(expected, abs=1e-4)
    after = hashlib.sha256((TOFU_MINI / "target" / "adapter_model.safetensors").read_bytes()).hexdigest()
    assert before == after


def forget_probability(model: Any) -> float:
    tokenizer = load_model("embedded", device=torch.device("cpu")).tokenizer
    tokeniser = ExampleTokeniser(tokenizer, template="plain", max_length=512)
    tokens = tokeniser.encode_set(load_examples(str(TOFU_MINI / "forget.jsonl")))
    scores = score_completions(
        model, [(example.input_ids, example.prompt_length) for example in tokens], pad_token_id=tokeniser.pad_token_id
    )
    return sum(score.probability for score in scores) / len(scores)
