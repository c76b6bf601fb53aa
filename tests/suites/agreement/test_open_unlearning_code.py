"""Numbers of TOFU, MUSE and WMDP are those of OpenUnlearning's own code on the same model, if its checkout is given.

UNLORA_OPEN_UNLEARNING=CHECKOUT pytest tests/suites/agreement       (needs hydra-core and hydra_colorlog)
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from tests.muse_files import FORGET_TEXTS, HOLDOUT_TEXTS, QUESTIONS, VERBATIM, learn_texts, write_muse
from tests.suites.asking import score_muse
from tests.suites.wmdp.questions import QUESTIONS as CHOICES
from tests.suites.wmdp.questions import write_questions
from tests.taught import FORGET, RETAIN, Taught
from tests.tiny import build_tiny_model, build_tiny_tokenizer
from unlora.data.muse import load_muse_data
from unlora.data.records import Example, ExampleSet
from unlora.data.tokenise import ExampleTokeniser
from unlora.models.save import save_model
from unlora.recipes.evaluate import evaluate_checkpoint, settings_of_one
from unlora.suites.muse.open_unlearning import muse_logs, write_open_unlearning_muse
from unlora.suites.scores import ModelScores
from unlora.suites.tofu.ask import ask_set, prepare_sets
from unlora.suites.tofu.open_unlearning import evaluation_logs, write_open_unlearning
from unlora.suites.tofu.protocols import PROTOCOLS
from unlora.suites.wmdp.suite import Wmdp

CHECKOUT = os.environ.get("UNLORA_OPEN_UNLEARNING")
pytestmark = pytest.mark.skipif(CHECKOUT is None, reason="UNLORA_OPEN_UNLEARNING names no checkout of OpenUnlearning")

CLOSE = 1e-4
TOFU_METRICS = (
    *("forget_truth_ratio", "forget_quality", "forget_Q_A_Prob", "forget_Q_A_ROUGE", "model_utility"),
    *("extraction_strength", "exact_memorization"),
)
MUSE_METRICS = ("forget_knowmem_ROUGE", "retain_knowmem_ROUGE", "forget_verbmem_ROUGE", "privleak")
FILES = {"tofu": "TOFU", "muse": "MUSE", "lm_eval": "LMEval"}
PLAIN = {"user_start_tag": "Question: ", "user_end_tag": "\n", "asst_start_tag": "Answer:", "asst_end_tag": "\n\n"}
"""Our plain template. Its own ends the prompt with a space, which costs an answer its first scored token."""


def theirs(model: Path, folder: Path, **job: Any) -> dict[str, Any]:
    """What its evaluator writes, item by item."""
    pytest.importorskip("hydra")
    file, output = folder / "job.json", folder / "theirs"
    file.write_text(json.dumps({**job, "output": str(output)}), encoding="utf-8")
    program = Path(__file__).with_name("open_unlearning_runs.py")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONWARNINGS"}
    done = subprocess.run(
        [sys.executable, str(program), str(CHECKOUT), str(model), str(file)],
        env=environment | {"PYTHONPATH": f"{CHECKOUT}/src", "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((output / f"{FILES[job['evaluator']]}_EVAL.json").read_text())


def summarised(model: Path, folder: Path, **job: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Our summary, and what its own summariser makes of the log beside it, computing none of it again."""
    log, summary = (folder / "theirs" / f"{FILES[job['evaluator']]}_{form}.json" for form in ("EVAL", "SUMMARY"))
    written, ours = log.read_bytes(), json.loads(summary.read_text())
    summary.unlink()
    theirs(model, folder, **job)
    assert log.read_bytes() == written
    return ours, json.loads(summary.read_text())


def compare(found: Mapping[str, Any], expected: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    """Hold every mean, and of every item the values of `keys`, against theirs; how many numbers there were."""
    count = 0
    for metric, log in found.items():
        assert log["agg_value"] == pytest.approx(expected[metric]["agg_value"], abs=CLOSE), metric
        count += 1
        for item, values in log.get("value_by_index", {}).items():
            for key in keys:
                if key in values:
                    other = expected[metric]["value_by_index"][item][key]
                    assert values[key] == pytest.approx(other, abs=CLOSE), (metric, item, key)
                    count += 1
    return count


def tofu_sets() -> dict[str, ExampleSet]:
    """Four sets; every answer has a paraphrase and two wrong ones."""

    def examples(pairs: tuple[tuple[str, str], ...], paraphrased: bool) -> tuple[Example, ...]:
        answers = [answer for _, answer in pairs]
        return tuple(
            Example(
                *("question_answer", question, answer, f"line {place}"),
                paraphrased_answer=f"It is so: {answer}" if paraphrased else answer,
                perturbed_answers=(answers[place - 1], answers[place - 2]),
            )
            for place, (question, answer) in enumerate(pairs)
        )

    parts = {"forget": FORGET, "retain": RETAIN[:4], "real_authors": RETAIN[4:7], "world_facts": RETAIN[5:]}
    return {
        name: ExampleSet(name, examples(pairs, name in ("forget", "retain"))) for name, pairs in parts.items()
    }  # fmt: skip


def tofu_rows(sets: Mapping[str, ExampleSet]) -> dict[str, list[dict[str, Any]]]:
    """Under the names of its data sets; the answer begins with the space that our template puts there."""
    names = {
        "forget": "forget01_perturbed train",
        "retain": "retain_perturbed train",
        "real_authors": "real_authors_perturbed train",
        "world_facts": "world_facts_perturbed train",
    }
    return {
        names[name]: [
            {
                "question": one.prompt,
                "answer": f" {one.completion}",
                "paraphrased_answer": f" {one.paraphrased_answer}",
                "perturbed_answer": [f" {answer}" for answer in one.perturbed_answers],
            }
            for one in examples
        ]
        for name, examples in sets.items()
    }


def test_every_number_of_tofu(taught: Taught, tmp_path: Path) -> None:
    sets, loaded = tofu_sets(), taught.load()
    tokeniser = ExampleTokeniser(loaded.tokenizer, template="plain", max_length=512)
    asked = prepare_sets(sets, tokeniser, PROTOCOLS["open_unlearning"])

    def scored(model: PreTrainedModel) -> ModelScores[Any]:
        return ModelScores(
            {name: tuple(ask_set(model, asked.means, items, 4, None)) for name, items in asked.sets.items()},
            asked.protocol,
        )

    never_taught = build_tiny_model("llama", vocab_size=len(loaded.tokenizer))
    retain_only = scored(never_taught)
    write_open_unlearning(tmp_path / "retain_only", retain_only, None)
    scores = scored(loaded.model)
    ours = evaluation_logs(scores, retain_only)
    job = {
        "evaluator": "tofu",
        "metrics": TOFU_METRICS,
        "rows": tofu_rows(sets),
        "template": PLAIN,
        "retain_logs_path": str(tmp_path / "retain_only" / "TOFU_EVAL.json"),
    }
    logs = theirs(taught.target, tmp_path, **job)
    assert set(logs) == set(ours)
    assert compare(ours, logs, ("prob", "avg_loss", "score", "rougeL_recall")) > 100
    write_open_unlearning(tmp_path / "ours" / "theirs", scores, retain_only)
    summary, its = summarised(taught.target, tmp_path / "ours", **job)
    assert its == summary
    assert set(its) == set(TOFU_METRICS)


@pytest.fixture(scope="module")
def reader() -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
    """A tiny model that knows the forget texts, and its tokenizer."""
    tokenizer = build_tiny_tokenizer((*FORGET_TEXTS, *HOLDOUT_TEXTS))
    model = build_tiny_model("llama", vocab_size=len(tokenizer))
    with torch.random.fork_rng(devices=[]):
        learn_texts(model, tokenizer, FORGET_TEXTS, steps=40)
    return model, tokenizer


def test_every_number_of_muse(reader: tuple[PreTrainedModel, PreTrainedTokenizerFast], tmp_path: Path) -> None:
    """Its Min-K% leaves the last token of a text out, for it takes it for an end token: here it is one."""
    model, tokenizer = reader
    save_model(model, tokenizer, tmp_path / "model")
    data = load_muse_data("news", write_muse(tmp_path / "muse"))
    scores = score_muse(model, tokenizer, data, batch_size=3)
    ours = muse_logs(scores, None)
    end = str(tokenizer.eos_token)
    rows = {
        **{
            f"knowmem {split}": [{"question": question, "answer": answer} for question, answer in pairs]
            for split, pairs in QUESTIONS.items()
        },
        # It puts a space between prompt and text; the file's own begins with one.
        "verbmem forget": [{"prompt": prompt, "gt": gt.removeprefix(" ")} for prompt, gt in VERBATIM],
        "privleak forget": [{"text": text + end} for text in FORGET_TEXTS],
        "privleak holdout": [{"text": text + end} for text in HOLDOUT_TEXTS],
    }
    job = {
        "evaluator": "muse",
        "metrics": MUSE_METRICS,
        "rows": rows,
        "template": PLAIN | {"asst_start_tag": "Answer: "},
        "retain_logs_path": None,
    }
    logs = theirs(tmp_path / "model", tmp_path, **job)
    assert set(ours) <= set(logs)
    write_open_unlearning_muse(tmp_path / "ours" / "theirs", scores, scores)
    summary, its = summarised(tmp_path / "model", tmp_path / "ours", **job)
    assert its == summary
    assert set(its) == set(MUSE_METRICS)
    assert compare(ours, logs, ("rougeL_f1",)) >= 4
    for side in ("forget", "holdout"):
        for item, value in ours["mia_min_k"][side]["value_by_index"].items():
            assert value["score"] == pytest.approx(logs["mia_min_k"][side]["value_by_index"][item]["score"], abs=CLOSE)


def harness_task(file: Path) -> dict[str, Any]:
    """The harness's own file of wmdp_bio, with a local one for the hub's questions."""
    lm_eval = pytest.importorskip("lm_eval")
    folder = Path(lm_eval.__file__).parent / "tasks" / "wmdp"
    whole = {}
    for name in ("_default_template_yaml", "wmdp_bio.yaml"):
        whole |= yaml.safe_load((folder / name).read_text())
    local = {"dataset_path": "json", "dataset_name": None, "dataset_kwargs": {"data_files": {"test": str(file)}}}
    return {key: value for key, value in whole.items() if key != "include"} | local


def test_every_likelihood_of_wmdp(tmp_path: Path) -> None:
    """Our `evaluate` on a folder, against its evaluator on the same: both ask lm-evaluation-harness's own task."""
    lines = [f"biology {one.question} {' '.join(one.choices)}\nAnswer: A B C D" for one in CHOICES]
    tokenizer = build_tiny_tokenizer(lines)
    save_model(build_tiny_model("llama", vocab_size=len(tokenizer)), tokenizer, tmp_path / "model")
    file = write_questions(tmp_path / "questions.jsonl")
    settings = {"model": {"name": str(tmp_path / "model")}, "file": str(file), "subject": "bio", "open_ended": False}
    record = evaluate_checkpoint(settings_of_one(Wmdp).from_mapping(settings), tmp_path / "ours")
    scores = (tmp_path / "ours" / "scores" / "target.jsonl").read_text(encoding="utf-8").splitlines()[1:]
    logs = theirs(
        tmp_path / "model",
        tmp_path,
        evaluator="lm_eval",
        tasks=[harness_task(file)],
        template={},
    )
    samples = sorted(logs["wmdp_bio"]["wmdp_bio"], key=lambda sample: sample["doc_id"])
    for line, sample in zip(scores, samples, strict=True):
        ours = json.loads(line)
        assert ours["question"] == sample["doc"]["question"]
        expected = [float(value) for value, _ in sample["filtered_resps"]]
        assert ours["letter_log_probs"] == pytest.approx(expected, abs=CLOSE)
        assert ours["correct"] == sample["acc"]
    accuracy = record["models"]["target"]["metrics"]["wmdp_bio_accuracy"]["value"]
    summary = json.loads((tmp_path / "theirs" / "LMEval_SUMMARY.json").read_text())
    assert accuracy == pytest.approx(summary["wmdp_bio/acc"], abs=CLOSE)
    assert len(samples) == len(CHOICES)
