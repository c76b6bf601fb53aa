"""Right numbers, computed by transformers, PEFT and torch alone."""

import json
import math
from pathlib import Path
from typing import Any

import torch

TOLERANCE = 2e-4


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def reported(output: Path, model: str = "target", metric: str = "forget_probability") -> float:
    """What evaluation.json says; NaN where it says nothing."""
    value = read(output / "evaluation.json")["models"][model]["metrics"][metric]["value"]
    return math.nan if value is None else value


def load_plainly(folder: Path, adapter: Path | None = None) -> Any:
    """A model in float32 as transformers and PEFT load it."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    if adapter is not None:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, adapter)
    return model.eval()


def probability(model: Any, tokenizer_folder: Path, file: Path) -> float:
    """`mean_probability` of question and answer in the plain template, with the end token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_folder)
    pairs = [
        (f"Question: {one['question']}\nAnswer:", f" {one['answer']}{tokenizer.eos_token}") for one in records(file)
    ]
    return mean_probability(model, tokenizer, pairs)


def records(file: Path) -> list[dict[str, Any]]:
    """Lines of a file."""
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


@torch.no_grad()
def mean_probability(model: Any, tokenizer: Any, pairs: list[tuple[str, str]]) -> float:
    """Mean over (prompt, completion) of the geometric mean of the completion's tokens' probabilities."""
    found = []
    for prompt, completion in pairs:
        encoded = tokenizer(prompt + completion, return_offsets_mapping=True, add_special_tokens=False)
        border = next(place for place, (_, end) in enumerate(encoded["offset_mapping"]) if end > len(prompt))
        tokens = torch.tensor(encoded["input_ids"])
        log_probs = model(input_ids=tokens[None]).logits[0].float().log_softmax(-1)
        scored = log_probs[border - 1 : -1].gather(1, tokens[border:, None])
        found.append(math.exp(float(scored.mean())))
    return sum(found) / len(found)


def compare(found: float, right: float) -> str | None:
    """What is wrong with a number; None where it is right."""
    if math.isnan(found) and not math.isfinite(right):
        return None
    if abs(found - right) <= TOLERANCE:
        return None
    return f"forget_probability {found}, {right} is right"


def same_as_plain(
    output: Path, folder: Path, data: Path, *, adapter: Path | None = None, model: str = "target"
) -> str | None:
    """Compare what was reported with a plain loop; a model that transformers does not load has no right number."""
    try:
        right = probability(load_plainly(folder, adapter), folder, data)
    except Exception as error:
        return f"transformers and PEFT refuse it ({type(error).__name__}), and yet it was measured"
    return compare(reported(output, model), right)
