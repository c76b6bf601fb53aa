"""Classes of transformers that do something that no other does: what they need, tried on tiny ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedModel

from tests.tiny import build_tiny_tokenizer
from unlora.errors import InputError
from unlora.models.causality import refuse_two_sided
from unlora.models.choose import choose_target_modules, is_linear
from unlora.models.context import COUNTED_FROM_PADDING
from unlora.models.forward import Reader, completion_logits, first_place
from unlora.models.generate import Writer, generate_greedy
from unlora.models.load import load_model, load_tokenizer
from unlora.models.peft_trial import RENAMED
from unlora.models.save import save_model
from unlora.models.target_modules import find_target_modules
from unlora_research.model_map.configurations import tiny_configuration


def tiny(kind: str, auto: Any = AutoModelForCausalLM) -> PreTrainedModel:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return auto.from_config(tiny_configuration(kind)).float().eval()


def test_layers_whose_factors_peft_takes_elsewhere_when_it_loads_are_left_out(tmp_path: Path):
    """Laguna's "mlp.shared_expert." is a pattern for old names, and its dot is the s of the new "shared_experts"."""
    model = tiny("laguna")
    targets, left_out, _ = choose_target_modules(model, rank=2)
    lost = {name for name, why in left_out.items() if why == RENAMED}
    assert lost == {name for name in find_target_modules(model) if ".shared_experts." in name}
    kept, all_of_them = tmp_path / "kept", tmp_path / "all"
    for folder, names in ((kept, list(targets)), (all_of_them, [*targets, *lost])):
        config = LoraConfig(r=2, target_modules=names, init_lora_weights=False)
        get_peft_model(tiny("laguna"), config).save_pretrained(str(folder), save_embedding_layers=False)
    with pytest.warns(UserWarning, match="missing adapter keys"):
        PeftModel.from_pretrained(tiny("laguna"), str(all_of_them))
    found = PeftModel.from_pretrained(tiny("laguna"), str(kept)).load_adapter(str(kept), "default")
    assert not [key for key in found.missing_keys if ".lora_" in key]


def test_layer_that_takes_another_shape_than_a_linear_one_is_no_linear_layer():
    model = tiny("deepseek_v4")
    grouped = {name: layer for name, layer in find_target_modules(model).items() if not is_linear(layer)}
    assert grouped
    assert {type(layer.module).__name__ for layer in grouped.values()} == {"DeepseekV4GroupedLinear"}


def test_widths_that_a_class_works_out_with_tensors_are_numbers():
    model = tiny("inkling_mm_model", AutoModelForImageTextToText)
    assert {type(side) for one in find_target_modules(model).values() for side in (one.d_out, one.d_in)} == {int}


def test_configuration_that_takes_no_old_keys_is_saved_without_them(tmp_path: Path):
    model = tiny("gemma4_text")
    save_model(model, build_tiny_tokenizer(), tmp_path / "model")
    again: Any = AutoConfig.from_pretrained(tmp_path / "model")
    assert again.rope_parameters == model.config.rope_parameters


@pytest.mark.parametrize(
    ("kind", "why"), [("reformer", "inconsistent with step sign"), ("blt", "has no attribute 'num_hidden_layers'")]
)
def test_class_that_cannot_read_as_texts_are_scored_is_refused_when_it_is_loaded(kind: str, why: str):
    """Reformer pads to multiples of its chunk and not the places it is given; BLT's memory asks for layers it lacks."""
    with pytest.raises(InputError, match=f"^model 'm': cannot be computed with .*{why}"):
        refuse_two_sided("m", tiny(kind))


def test_class_that_asks_in_training_which_tokens_are_of_an_image_is_told_none_are():
    model = tiny("molmo2", AutoModelForImageTextToText)
    ids = torch.arange(12).reshape(2, 6)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}
    with torch.no_grad():
        evaluated = model(input_ids=ids, attention_mask=batch["attention_mask"]).logits
        model.train()
        with pytest.raises(ValueError, match="mm_token_type_ids"):
            model(input_ids=ids, attention_mask=batch["attention_mask"])
        trained = completion_logits(model, batch)
    torch.testing.assert_close(trained, evaluated[:, -trained.shape[1] :], atol=1e-6, rtol=1e-5)


@torch.no_grad()
def test_class_that_takes_only_places_that_lie_behind_one_another_is_read_on():
    model, ids = tiny("kosmos-2.5", AutoModelForImageTextToText), torch.arange(2, 14).reshape(2, 6)
    reader, mask = Reader(model), torch.ones(2, 6, dtype=torch.long)
    reader.read(ids[:, :2], mask[:, :2], keep=1, more=True)
    last = reader.read(ids[:, 2:], mask[:, 2:], keep=4, more=False)
    expected = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, 2:]
    torch.testing.assert_close(last, expected, atol=1e-5, rtol=1e-5)


def test_reason_that_is_told_where_no_layer_is_left_is_that_of_the_language_model():
    """The layers of images come first and are none of the matter: PEFT loads no adapter of this class's text part."""
    with pytest.raises(InputError, match=rf"{RENAMED} \(model\.language_model\."):
        choose_target_modules(tiny("deepseek_ocr2", AutoModelForImageTextToText), rank=2)


@pytest.mark.parametrize("kind", [*sorted(COUNTED_FROM_PADDING), "bert", "opt", "gpt2", "mpt", "whisper"])
@torch.no_grad()
def test_context_is_what_the_table_of_positions_has_places_for(kind: str, tmp_path: Path):
    """One token more, and the model itself has no place for it."""
    model = tiny(kind)
    assert (first_place(model) > 0) == (kind in COUNTED_FROM_PADDING)
    save_model(model, build_tiny_tokenizer(), tmp_path)
    loaded = load_model(str(tmp_path), device=torch.device("cpu"))
    context = loaded.tokenizer.model_max_length
    assert context == load_tokenizer(str(tmp_path)).model_max_length
    ids = torch.full((1, context + 1), 5)
    assert loaded.model(input_ids=ids[:, 1:]).logits.isfinite().all()
    with pytest.raises((IndexError, RuntimeError)):
        loaded.model(input_ids=ids)
    writer = Writer(loaded.model, loaded.tokenizer, pad_token_id=1)
    assert len(generate_greedy(writer, [[5] * (context - 2), [5] * (context - 1)], max_new_tokens=9)) == 2
    with pytest.raises(InputError, match=rf"prompt 0: has {context} tokens; must have at least 1 and less than"):
        generate_greedy(writer, [[5] * context], max_new_tokens=1)
