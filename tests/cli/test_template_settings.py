"""Template arguments and tokens without an embedding, through every command that reads data."""

import json
from pathlib import Path

import pytest
import yaml
from transformers import AutoTokenizer

from tests.cli.commands import QUICK, error_line, unlora
from tests.cli.conftest import Inputs
from tests.tiny import build_tiny_model, build_tiny_tokenizer

THINKING = (
    "{% for m in messages %}[{{ m.role }}] "
    "{% if m.role == 'assistant' and enable_thinking | default(true) %}<hm>\n{% endif %}"
    "{{ m.content }}<|end|>\n{% endfor %}{% if add_generation_prompt %}[assistant] {% endif %}"
)
OFF = ("--set", "data.template_arguments.enable_thinking=false")


@pytest.fixture(scope="module")
def thinking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose chat template has an argument."""
    folder = tmp_path_factory.mktemp("thinking")
    tokenizer = build_tiny_tokenizer()
    tokenizer.chat_template = THINKING
    build_tiny_model("llama", vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model whose tokenizer has three tokens more than it has embeddings; one is its pad token."""
    folder = tmp_path_factory.mktemp("grown")
    tokenizer = build_tiny_tokenizer()
    build_tiny_model("llama", vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.add_tokens(["Bergen", "<hm>"])
    tokenizer.add_special_tokens({"pad_token": "<|fill|>"})
    tokenizer.save_pretrained(folder)
    return folder


def test_data_check_shows_what_the_arguments_do(inputs: Inputs, thinking: Path) -> None:
    shown = [unlora("data", "check", inputs.forget, "--model", thinking, *options).stdout for options in ((), OFF)]
    assert shown[0].endswith("[assistant] <hm>\n>>>Mira Solberg was born in Bergen.<|end|><<<\n")
    assert shown[1].endswith("[assistant]>>> Mira Solberg was born in Bergen.<|end|><<<\n")


def test_unlearn_records_the_arguments_and_measures_with_them(inputs: Inputs, thinking: Path, tmp_path: Path) -> None:
    output = tmp_path / "run"
    sets = ("--model", thinking, "--forget", inputs.forget, "--retain", inputs.retain)
    assert unlora("unlearn", *sets, *OFF, *QUICK, "--output", output).exit_code == 0
    arguments = {"enable_thinking": False}
    assert yaml.safe_load((output / "config.yaml").read_text())["data"]["template_arguments"] == arguments
    assert json.loads((output / "record.json").read_text())["template"]["template_arguments"] == arguments
    evaluation = json.loads((output / "evaluation.json").read_text())
    assert evaluation["protocol"]["template"]["template_arguments"] == arguments


def test_finetune_and_evaluate_take_arguments(inputs: Inputs, thinking: Path, tmp_path: Path) -> None:
    said = unlora(
        *("finetune", "--model", thinking, "--data", inputs.retain, "--epochs", 1, "--set", "rank=4"),
        *("--set", "template_arguments.enable_thinking=false", "--output", tmp_path / "adapter"),
    )
    assert said.exit_code == 0
    evaluated = unlora(
        *("evaluate", "--model", thinking, "--forget", inputs.forget, *OFF),
        *("--set", "evaluation.max_new_tokens=4", "--output", tmp_path / "evaluation"),
    )
    assert evaluated.exit_code == 0
    record = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text())
    assert record["protocol"]["template"]["template_arguments"] == {"enable_thinking": False}


def test_arguments_that_the_template_does_not_know_are_refused_everywhere(
    inputs: Inputs, thinking: Path, tmp_path: Path
) -> None:
    wrong = ("--set", "data.template_arguments.thinking=false")
    sets = ("--model", thinking, "--forget", inputs.forget, "--retain", inputs.retain)
    commands = (
        ("data", "check", inputs.forget, "--model", thinking, *wrong),
        ("plan", *sets, *wrong),
        ("unlearn", *sets, *wrong, "--output", tmp_path / "run"),
        ("importance", *sets, *wrong, "--output", tmp_path / "map.safetensors"),
        ("evaluate", *sets, *wrong, "--output", tmp_path / "run"),
        ("finetune", "--model", thinking, "--data", inputs.forget, *_plain(wrong), "--output", tmp_path / "run"),
    )
    for command in commands:
        line = error_line(unlora(*command))
        assert "template_arguments: the chat template never reads 'thinking'; it reads enable_thinking." in line
    assert list(tmp_path.iterdir()) == []


def test_a_token_without_an_embedding_is_refused_before_anything_is_written(
    inputs: Inputs, grown: Path, tmp_path: Path
) -> None:
    sets = ("--model", grown, "--forget", inputs.forget, "--retain", inputs.retain)
    commands = (
        ("data", "check", inputs.forget, "--model", grown),
        ("plan", *sets),
        ("unlearn", *sets, "--output", tmp_path / "run"),
        ("importance", *sets, "--output", tmp_path / "map.safetensors"),
        ("evaluate", *sets, "--output", tmp_path / "run"),
        ("finetune", "--model", grown, "--data", inputs.forget, "--output", tmp_path / "run"),
        ("sequence", *sets, "--output", tmp_path / "run"),
    )
    tokenizer = AutoTokenizer.from_pretrained(grown)
    token, count = tokenizer.convert_tokens_to_ids("Bergen"), len(tokenizer) - 3
    for command in commands:
        line = error_line(unlora(*command))
        said = f"{inputs.forget}, line 1: token {token} ('Bergen') has no embedding (the model has {count}); the "
        assert said in line, command
    assert list(tmp_path.iterdir()) == []


def test_a_pad_token_without_an_embedding_is_not_used(inputs: Inputs, grown: Path, tmp_path: Path) -> None:
    """What is masked may be any token, but the model looks it up all the same."""
    said = unlora(
        *("evaluate", "--model", grown, "--forget", inputs.retain, "--set", "evaluation.max_new_tokens=4"),
        *("--output", tmp_path / "evaluation"),
    )
    assert said.exit_code == 0, said.output


def _plain(options: tuple[str, ...]) -> tuple[str, ...]:
    """The same for `finetune`, which has these settings at the top."""
    return tuple(option.replace("data.", "", 1) for option in options)
