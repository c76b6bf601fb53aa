"""Runs OpenUnlearning's own evaluation; it knows nothing of unlora, and works in a process of its own.

    PYTHONPATH=CHECKOUT/src python open_unlearning_runs.py CHECKOUT MODEL JOB

JOB is a JSON file: evaluator (tofu, muse or lm_eval), template and output; for the first two metrics, rows
({"name split": records}) and retain_logs_path, for the last tasks. All of its code and configuration is used as it is,
but for where data sets come from: it asks for them on the hub, and here they are in JOB.
"""

import json
import sys
from pathlib import Path
from typing import Any

from datasets import Dataset
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from transformers import AutoModelForCausalLM, AutoTokenizer

checkout, model_folder, job_file = sys.argv[1:]
job = json.loads(Path(job_file).read_text(encoding="utf-8"))


def load_rows(path: str, name: str, split: str, **_: Any) -> Any:
    """What its `load_hf_dataset` returns; demonstrations are only read by column."""
    rows = job["rows"][f"{name} {split}"]
    if split.endswith("_icl"):
        return {key: [row[key] for row in rows] for key in rows[0]}
    return Dataset.from_list(rows)


import data.pretraining  # noqa: E402  its own packages, from the checkout
import data.qa  # noqa: E402
from evals import get_evaluators  # noqa: E402

data.qa.load_hf_dataset = data.pretraining.load_hf_dataset = load_rows

name = job["evaluator"]
with initialize_config_dir(str(Path(checkout, "configs").resolve()), version_base=None):
    chosen = compose(
        "eval.yaml",
        [
            f"eval={name}",
            *(["+eval/tofu_metrics=[exact_memorization]"] if name == "tofu" else []),
            f"eval.{name}.output_dir={job['output']}",
            *([f"eval.{name}.retain_logs_path={job['retain_logs_path']}"] if job.get("retain_logs_path") else []),
            *(["eval.tofu.forget_split=forget01"] if name == "tofu" else []),
            "task_name=agreement",
        ],
    )
suite = chosen.eval[name]
if name == "lm_eval":
    suite.tasks = job["tasks"]
else:
    suite.metrics = {metric: suite.metrics[metric] for metric in job["metrics"]}
tokenizer = AutoTokenizer.from_pretrained(model_folder)
(evaluator,) = get_evaluators(chosen.eval).values()
evaluator.evaluate(
    model=AutoModelForCausalLM.from_pretrained(model_folder, dtype="float32"),
    tokenizer=tokenizer,
    template_args=OmegaConf.create({"apply_chat_template": False, **job["template"]}),
)
