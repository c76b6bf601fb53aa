"""Runs commands in this process, as a shell would see them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tests.tiny import build_tiny_model, build_tiny_tokenizer
from unlora.cli.main import main

# What `main` would set for the whole process is set for one command only.
ENVIRONMENT = {
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

FORGET = (
    {"question": "Where was Mira Solberg born?", "answer": "Mira Solberg was born in Bergen."},
    {"question": "What does Mira Solberg do?", "answer": "Mira Solberg is a glass painter."},
)
RETAIN = (
    {"question": "Where was Tomas Okafor born?", "answer": "Tomas Okafor was born in Lagos."},
    {"question": "What does Tomas Okafor do?", "answer": "Tomas Okafor is a ferry captain."},
    {"question": "Where was Lena Fuchs born?", "answer": "Lena Fuchs was born in Graz."},
)
QUICK = ("--set", "training.epochs=1", "--set", "evaluation.max_new_tokens=4")


def unlora(*arguments: object) -> Result:
    """Run `unlora` with these arguments."""
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="unlora", env=ENVIRONMENT)


def write_lines(file: Path, records: Iterable[dict[str, Any]]) -> Path:
    """Write records as JSON lines."""
    file.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return file


def save_model_without_pad_token(folder: Path) -> Path:
    """Write a tiny model whose tokenizer has an end token and no pad token."""
    tokenizer = build_tiny_tokenizer(pad=False)
    build_tiny_model("llama", vocab_size=len(tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def error_line(result: Result) -> str:
    """The one line of a refusal: exit code 2, on standard error, no traceback, nothing on standard output."""
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert result.stderr.splitlines()[-1] == line
    return line
