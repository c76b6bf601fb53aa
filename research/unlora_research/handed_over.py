"""What a run hands over, loaded as others load it and asked the forget questions again."""

from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, CompressedTensorsConfig

from unlora.artifacts import read_json_object
from unlora.data.sources import load_examples
from unlora.data.tokenise import ExampleTokeniser
from unlora.models.load import load_tokenizer
from unlora.models.quiet import quiet
from unlora.models.score import score_completions
from unlora.recipes.export import export_adapter, export_merged
from unlora.run.finished import run_settings
from unlora.run.reporter import SILENT
from unlora.run.settings import ModelSettings
from unlora.suites.tofu.scores import TOFU_FILE

REFACTORED, AS_TRAINED = "`export --adapter`", "the run's own (on experts)"


class HandedOver(NamedTuple):
    """Largest distance from what was measured, in nats of an answer's mean log-probability."""

    adapter: float
    """On the target in the run's format, in plain PEFT."""
    merged: float
    """Of `export --merged`, in plain transformers and float32."""
    adapter_form: str
    """Which adapter was loaded."""


def read_handed_over(path: Path) -> HandedOver:
    """Read what `hand_over` found before."""
    return HandedOver(**read_json_object(path))


def hand_over(run: Path, forget: Path, folder: Path) -> HandedOver:
    """Export a finished run both ways and compare each with the scores that the run has of its unlearned model.

    Args:
        run: of the suite that scores a forget set.
        forget: that set.
        folder: for the exports; removed by whoever wants the place.
    """
    settings = run_settings(run, trust_remote_code=False, reporter=SILENT)
    expected = [one.mean_log_prob for one in TOFU_FILE.load(run / "scores" / "unlearned.jsonl").sets["forget"]]
    on_experts = read_json_object(run / "record.json")["reach"]["experts"] > 0
    adapter = run / "adapter" if on_experts else folder / "adapter"
    if not on_experts and not adapter.is_dir():
        export_adapter(run, adapter)
    if not (folder / "merged").is_dir():
        export_merged(run, folder / "merged")
    with quiet():
        adapted = PeftModel.from_pretrained(_target(settings.model), str(adapter))
        merged = AutoModelForCausalLM.from_pretrained(folder / "merged", dtype=torch.float32)
    distances = [_distance(model, settings.model, forget, expected) for model in (adapted, merged)]
    return HandedOver(distances[0], distances[1], AS_TRAINED if on_experts else REFACTORED)


def _target(chosen: ModelSettings) -> Any:
    """As users of the adapter load it, rounded if the run rounded it, or read out of the files' format.

    Its layers compute in float32, as the run's did.
    """
    if chosen.quantisation is None:
        # PEFT takes no layer that is still packed.
        recorded = read_json_object(Path(chosen.name) / "config.json").get("quantization_config", {})
        packed = recorded.get("quant_method") == "compressed-tensors"
        options = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if packed else {}
        model = AutoModelForCausalLM.from_pretrained(chosen.name, dtype=torch.float32, **options)
        return read_out(model) if recorded.get("quant_method") == "torchao" else model
    options = BitsAndBytesConfig(load_in_8bit=True)
    if chosen.quantisation == "4bit":
        options = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.float32)
    place: dict[str, Any] = {"device_map": {"": "cpu"}, "dtype": torch.float32}
    return AutoModelForCausalLM.from_pretrained(chosen.name, quantization_config=options, **place)


def read_out(model: Any) -> Any:
    """Put in place of torchao's tensors the numbers that they stand for, as its users would."""
    for layer in model.modules():
        if isinstance(layer, torch.nn.Linear) and type(layer.weight).__module__.startswith("torchao."):
            layer.weight = torch.nn.Parameter(layer.weight.dequantize(), requires_grad=False)
    model.hf_quantizer.remove_quantization_config(model)
    return model


def _distance(model: Any, chosen: ModelSettings, forget: Path, expected: list[float]) -> float:
    tokenizer = load_tokenizer(chosen.name)
    tokeniser = ExampleTokeniser(tokenizer, template="plain", max_length=128)
    sequences = [(one.input_ids, one.prompt_length) for one in tokeniser.encode_set(load_examples(str(forget)))]
    found = score_completions(model.eval(), sequences, pad_token_id=tokeniser.pad_token_id)
    return max(abs(one.mean_log_prob - known) for one, known in zip(found, expected, strict=True))
