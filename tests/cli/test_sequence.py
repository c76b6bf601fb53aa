"""`unlora sequence`: two requests from the command line, resumed, and what is refused in one line."""

import json
import re
from pathlib import Path

from tests.cli.commands import FORGET, QUICK, RETAIN, error_line, unlora, write_lines
from tests.cli.conftest import Inputs

LENA = (
    {"question": "Where was Lena Fuchs schooled?", "answer": "Lena Fuchs went to school in Linz."},
    {"question": "What does Lena Fuchs collect?", "answer": "Lena Fuchs collects maps."},
)


def test_two_requests_from_the_command_line(inputs: Inputs, tmp_path: Path) -> None:
    lena = write_lines(tmp_path / "lena.jsonl", LENA)
    command = (
        "sequence",
        *inputs.options,
        "--forget",
        lena,
        *QUICK,
        "--mode",
        "sequential",
        "--output",
        tmp_path / "seq",
    )
    result = unlora(*command)
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "seq" / "sequence.json").read_text())
    assert [step["forget"] for step in record["steps"]] == [str(inputs.forget), str(lena)]
    for step in ("step-1", "step-2"):
        assert (tmp_path / "seq" / step / "adapter" / "adapter_model.safetensors").is_file()
        assert (tmp_path / "seq" / step / "report.html").is_file()

    def shown(measured: dict) -> str:
        return f"{measured['value']:.3f}"

    rows = [line.split() for line in result.stdout.splitlines() if re.match(r"[12] ", line)]
    first, second = record["steps"]
    for row, step in zip(rows, (first, second), strict=True):
        assert row[0] == str(step["step"])
        now = [one["metrics"]["forget_probability"] for one in step["earlier"]]
        numbers = [
            *(step["current"][role]["forget_probability"] for role in ("target", "unlearned")),
            *now,
            *(step["retain"][role]["retain_probability"] for role in ("target", "unlearned")),
        ]
        assert [cell for cell in row if re.fullmatch(r"\d\.\d{3}", cell)] == [shown(one) for one in numbers]
    assert f"written: {tmp_path / 'seq' / 'sequence.json'}" in result.stdout

    again = unlora(*command)
    assert again.exit_code == 0
    assert again.stderr.count("This run was finished before; nothing is repeated") == 2
    assert again.stdout == result.stdout


def test_wrong_use_is_one_line(inputs: Inputs, tmp_path: Path) -> None:
    output = ("--output", tmp_path / "seq")
    kept = ("--model", inputs.model, "--retain", inputs.retain, *output)
    assert "Missing option '--forget'" in unlora("sequence", *kept).stderr
    assert "Missing option '--model'" in unlora("sequence", "--forget", inputs.forget, *output).stderr
    twice = unlora("sequence", *kept, "--forget", inputs.forget, "--forget", inputs.forget)
    assert "is named twice" in error_line(twice)
    both = write_lines(tmp_path / "both.jsonl", FORGET + RETAIN[:1])
    assert "both.jsonl, line 3: is to be forgotten, but" in error_line(unlora("sequence", *kept, "--forget", both))
    assert not (tmp_path / "seq").exists()
