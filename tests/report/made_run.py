"""A run folder made by hand, with numbers that can be read off the page."""

import json
from pathlib import Path
from typing import Any

from unlora.artifacts import write_json, write_text
from unlora.run.settings import UnlearnSettings

FINGERPRINT = "f1" * 32
FORGET_SHA256 = "ab" * 32


def measured(value: float | None, **fields: Any) -> dict[str, Any]:
    return {
        "value": value,
        "standard_error": 0.012,
        "example_count": 40,
        "higher_is_better": False,
        "unscored_count": 0,
        **fields,
    }


def made_evaluation() -> dict[str, Any]:
    """Target 0.985 / 0.987, unlearned 0.115 / 0.947, retain-only 0.094 / 0.985."""
    probabilities = {"target": (0.985, 0.987), "unlearned": (0.115, 0.947), "retain_only": (0.094, 0.985)}
    models = {
        role: {
            "metrics": {
                "forget_probability": measured(forget),
                "retain_probability": measured(retain, higher_is_better=True),
                "forget_truth_ratio_arithmetic": measured(0.6, higher_is_better=None),
                "model_utility": measured(None, standard_error=None, note="needs real_authors"),
            }
        }
        for role, (forget, retain) in probabilities.items()
    }
    return {"suite": "tofu", "protocol": {}, "models": models}


def made_further() -> dict[str, Any]:
    """What further suites measured: MUSE before 0.700, now 0.310, retain-only 0.290; one metric without a value."""
    verbatim = {"target": 0.7, "unlearned": 0.31, "retain_only": 0.29}
    models = {
        role: {
            "metrics": {
                "verbatim_memorisation": measured(value),
                "privacy_leakage": measured(None, standard_error=None, note="needs a <holdout>"),
            }
        }
        for role, value in verbatim.items()
    }
    return {"muse:news": {"suite": "muse", "protocol": {"corpus": "news", "batch_size": 4}, "models": models}}


def answer(number: int, set_name: str, *, recall: float | None, generated: str | None = "In Oslo.") -> dict[str, Any]:
    return {
        "set": set_name,
        "question": f"{set_name} question {number}?",
        "answer": "In Bergen.",
        "question_sha256": f"{set_name}-{number}",
        "generated": generated,
        "rouge_l_recall": recall,
    }


def write_scores(run: Path, role: str, answers: list[dict[str, Any]]) -> None:
    lines = [{"kind": "unlora example scores", "schema": 1, "protocol": {}}, *answers]
    write_text(run / "scores" / f"{role}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))


def write_settings(run: Path, **sections: dict[str, Any]) -> None:
    values = {"model": {"name": "models/target"}, "data": {"forget": "forget.jsonl", "retain": "retain.jsonl"}}
    settings = UnlearnSettings.from_mapping({**values, **sections})
    write_text(run / "config.yaml", settings.to_yaml())


def made_record() -> dict[str, Any]:
    return {
        "finished": True,
        "versions": {"python": "3.11.7", "unlora": "0.1.0"},
        "stages": {"training": {"seconds": 183.07, "peak_memory_bytes": 3 * 2**30}},
        "checks": {
            "output_at_step_0": {"largest_difference": 8.87e-5, "tolerance": 1e-4, "logit_count": 1234567},
            "base_weights_unchanged": True,
        },
        "model": {"name": "models/target", "base": None, "dtype": "float32", "fingerprint": FINGERPRINT},
        "data": {"forget_sha256": FORGET_SHA256, "retain_sha256": "cd" * 32},
        "objective": {"forget": "ihl", "retain": "nll", "retain_weight": 1.3},
        "importance": made_importance(),
        "initialisation": {"kind": "importance", "module_count": 14},
    }


def made_importance() -> dict[str, Any]:
    return {
        "statistic": "second_moment",
        "space": "full_weights",
        "gradient_unit": "example",
        "reduction": "mean",
        "forget_examples": 40,
        "retain_examples": 64,
        "module_count": 14,
        "floored_fraction": 0.0125,
        "dynamic_range": 7.25,
        "gini": 0.41,
        "forget_stability": 0.83,
        "retain_stability": 0.79,
        "ratio_stability": 0.5,
        "forget_squared_mean": 0.047,
        "retain_squared_mean": None,
        "flat_module_count": 1,
        "by_depth": {"0": 0.5, "1": 1.5},
        "by_projection": {"mlp.up_proj": 0.75, "mlp.down_proj": 1.25},
        "warnings": ["row weights are nearly uniform <in> 1 of 14 modules"],
    }


def make_run(run: Path, *, retain_only: bool = True) -> Path:
    """Everything that a finished run writes and the report reads."""
    write_settings(run, evaluation={"retain_only": "models/retain_only"} if retain_only else {})
    write_json(run / "record.json", made_record())
    log = [{"step": step, "loss": 2.0 / step, "forget_term": 1.5 / step, "retain_term": 0.1} for step in range(1, 13)]
    write_text(run / "train_log.jsonl", "".join(json.dumps(line) + "\n" for line in log))
    evaluation = made_evaluation()
    if not retain_only:
        del evaluation["models"]["retain_only"]
    write_json(run / "evaluation.json", evaluation)
    for role, recall in (("target", 1.0), ("unlearned", 0.25)):
        write_scores(run, role, [answer(0, "forget", recall=recall), answer(0, "retain", recall=1.0)])
    return run
