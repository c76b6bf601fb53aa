"""Files of a saved model that transformers 4 reads as transformers 5 does, and that say nothing of this machine.

Tools that serve or convert models still ask for transformers 4. It takes the rotary embedding from keys of its own,
finds none of them in a configuration that transformers 5 wrote, and falls back to its default without a word; and it
does not know the classes and keys under which transformers 5 saves a tokenizer.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import PretrainedConfig, PreTrainedTokenizerBase

OF_THE_CALL = ("is_local", "local_files_only")
"""Arguments with which a tokenizer was read; transformers keeps them among its settings."""


def save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a tokenizer to `folder`, such that transformers 4 and 5 read the same."""
    tokenizer.save_pretrained(str(folder))
    file = folder / "tokenizer_config.json"
    settings = {key: value for key, value in _read(file).items() if key not in OF_THE_CALL}
    if settings.get("tokenizer_class") == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    if isinstance(settings.get("extra_special_tokens"), list):
        settings["additional_special_tokens"] = settings.pop("extra_special_tokens")
    _write(file, settings)


def add_old_rope_keys(folder: Path, config: PretrainedConfig) -> None:
    """Add to a saved config.json how transformers 4 writes the rotary embedding.

    Only what transformers 5 then still reads as the same model is added.

    Args:
        folder: holds the config.json that was written of `config`.
        config: of the model.
    """
    file = folder / "config.json"
    written = _read(file)
    extended = written | old_rope_keys(written)
    if isinstance(inner := written.get("text_config"), Mapping):
        extended["text_config"] = {**inner, **old_rope_keys(inner)}
    before = _as_read(config, written)
    try:
        after = _as_read(config, extended)
    except Exception:  # The classes check their values in many ways; Gemma 4 takes no key of the old form.
        return
    if all(after.get(key) == value for key, value in before.items()):
        _write(file, extended)


def old_rope_keys(config: Mapping[str, Any]) -> dict[str, Any]:
    """Keys by which transformers 4 knows the rotary embedding that `rope_parameters` describes; empty without one."""
    rope = config.get("rope_parameters")
    if not isinstance(rope, Mapping):
        return {}
    everywhere, local = rope, None
    if isinstance(rope.get("full_attention"), Mapping):
        everywhere, local = rope["full_attention"], rope.get("sliding_attention")
    if "rope_theta" not in everywhere:
        return {}
    theta, partial = everywhere["rope_theta"], everywhere.get("partial_rotary_factor")
    if config.get("model_type") == "gpt_neox":
        keys = {"rotary_emb_base": theta, "rotary_pct": partial}
    else:
        keys = {"rope_theta": theta, "partial_rotary_factor": partial}
    if isinstance(local, Mapping) and local.get("rope_theta") != theta:
        keys["rope_local_base_freq"] = local.get("rope_theta")
    if str(config.get("model_type")).startswith("phi3"):
        keys |= _old_phi3(everywhere)
    elif everywhere.get("rope_type", "default") != "default":
        own = ("rope_theta", "partial_rotary_factor")
        keys["rope_scaling"] = {key: value for key, value in everywhere.items() if key not in own}
    return {key: value for key, value in keys.items() if value is not None}


def _old_phi3(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Phi-3 of transformers 4 takes a scaling of exactly three keys, and the length it was trained at beside it."""
    if "short_factor" not in rope:
        return {}
    scaling = {"type": rope["rope_type"], "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}
    return {"rope_scaling": scaling, "original_max_position_embeddings": rope.get("original_max_position_embeddings")}


def _as_read(config: PretrainedConfig, settings: dict[str, Any]) -> dict[str, Any]:
    """What the installed transformers makes of a config.json, without a second name of the rotary type."""
    with TemporaryDirectory() as folder:  # A file, because only there an infinite number has a spelling of its own.
        _write(Path(folder) / "config.json", settings)
        found = type(config).from_json_file(Path(folder) / "config.json").to_dict()
    for part in (found, found.get("text_config") or {}):
        if isinstance(rope := part.get("rope_parameters"), dict):
            rope.pop("type", None)
    return found


def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))


def _write(file: Path, settings: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(settings, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")
