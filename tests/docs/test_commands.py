"""Every command that the README and the pages name is one that `unlora` takes, with options and settings that exist."""

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest
from pydantic import ValidationError

from unlora.audit.settings import AuditSettings
from unlora.cli.main import main
from unlora.config import Config, parse_overrides
from unlora.run.settings import EvaluateSettings, FineTuneSettings, UnlearnSettings

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SETTINGS: dict[str, type[Config]] = {
    "unlearn": UnlearnSettings, "plan": UnlearnSettings, "importance": UnlearnSettings, "sequence": UnlearnSettings,
    "evaluate": EvaluateSettings, "finetune": FineTuneSettings, "audit": AuditSettings,
}  # fmt: skip


PLACEHOLDERS = {"N": "2", "PRESET": "contrast_inputs", "SEED": "0"}
"""Words that a page writes where a value of the reader's goes."""


def fenced(text: str) -> Iterator[str]:
    """Command lines of the blocks of code, comments and line ends in the middle taken out."""
    for block in re.findall(r"^```(?:bash|sh)?\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("unlora ") and not line.startswith("unlora ..."):
                yield line.split("  #")[0]


def inline(text: str) -> Iterator[str]:
    """Commands within a sentence that name an option or an argument."""
    for span in re.findall(r"`(unlora [a-z]+ [^`]+)`", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)):
        yield " ".join(span.split())


def commands() -> list[tuple[str, str]]:
    found = [
        (str(page.relative_to(ROOT)), line)
        for page in PAGES
        for line in (*fenced(page.read_text("utf-8")), *inline(page.read_text("utf-8")))
        if "..." not in line and "…" not in line
    ]
    return sorted(set(found))


def parsed(line: str) -> tuple[click.Command, click.Context]:
    """Parse as the shell and click would; required arguments may be missing where a sentence names but an option."""
    name, *rest = [PLACEHOLDERS.get(word, word) for word in shlex.split(line)[1:]]
    parent = click.Context(main, info_name="unlora")
    command = main.get_command(parent, name)
    assert command is not None, f"no command {name}"
    while isinstance(command, click.Group):
        name, *rest = rest
        command = command.get_command(parent, name)
        assert command is not None, f"no command {name}"
    return command, command.make_context(name, list(rest), parent=parent, resilient_parsing=False)


def unknown_keys(settings: type[Config], overrides: Sequence[str]) -> list[str]:
    """Dotted keys that the settings have not; what else is missing or wrong is no matter here."""
    try:
        settings.model_validate(parse_overrides(overrides))
    except ValidationError as error:
        found = [one["loc"] for one in error.errors() if one["type"] == "extra_forbidden"]
        return [".".join(map(str, place)) for place in found]
    return []


@pytest.mark.parametrize(("page", "line"), commands())
def test_documented_command_exists(page: str, line: str):
    try:
        command, context = parsed(line)
    except click.MissingParameter:  # a sentence may name one option alone
        return
    settings = SETTINGS.get(command.name or "")
    if settings is not None:
        assert unknown_keys(settings, context.params.get("overrides") or ()) == [], f"{page}: {line}"


def test_the_pages_name_commands():
    assert len(commands()) > 25


def test_a_command_that_there_is_not_is_found():
    with pytest.raises(click.UsageError, match="No such option"):
        parsed("unlora unlearn --forgetting x")


def test_a_setting_that_there_is_not_is_found():
    assert unknown_keys(UnlearnSettings, ["training.learning_rat=1"]) == ["training.learning_rat"]
