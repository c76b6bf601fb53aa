"""The commands and the Python of README and guide, run one after another on a tiny model; what cannot is named."""

import importlib.util
import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from tests.cli.commands import unlora
from tests.docs.test_commands import ROOT, fenced, inline
from tests.taught import RETAIN, Taught, write_jsonl
from tests.training.runs import logits
from unlora.adapters.export import load_trained_adapter
from unlora.artifacts import write_json
from unlora.models.quiet import quiet

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guide").glob("*.md")), ROOT / "docs" / "serving.md"]
FRAGMENTS = (
    "unlora data check",
    "unlora evaluate --adapter RUN/adapter",
    "unlora export --adapter",
    "unlora export --base-name ORG/MODEL",
    "unlora finetune --exclude forget.jsonl",
    "unlora push RUN ORG/NAME --private",
    "unlora push RUN/export/merged ORG/NAME",
)
"""Commands in sentences about one option, which lack what every call must have, and two that need a hub."""
BENCHMARKS = ("tofu:", "muse:", "rwku:", "--suite wmdp")
"""In a line that reads a benchmark from the hub."""
ELSEWHERE = ("--to gguf",)
"""In a line that needs another program, tested in tests/consumers where that is here."""
PLACEHOLDERS = {
    "DIR_OR_HUB_ID": "target", "DIR": "target", "RUN": "runs/x", "NAME": "default", "CONFIG.yaml": "mine/run.yaml",
}  # fmt: skip
TRAINED = ["training.epochs=4", "training.learning_rate=5e-3", "evaluation.max_new_tokens=4"]
SHORT: dict[tuple[str, ...], list[str]] = {
    ("unlearn",): [word for setting in TRAINED for word in ("--set", setting)],
    ("ledger", "add"): [word for setting in TRAINED for word in ("--set", setting)],
    ("sweep",): ["--set", "starts=[plain]", "--set", "trials=1"],
    ("audit",): ["--attack", "sampling", "--set", "sampling.samples=2", "--set", "sampling.k=[1]"],
}
"""What is added to a line, so that it takes a second and not a minute; the page's own words stand before it."""


def lines() -> list[str]:
    """Every command once, each after those that make what it reads; what works on a run and the cache comes last."""
    found: dict[str, None] = {}
    for page in PAGES:
        text = page.read_text("utf-8")
        found |= dict.fromkeys(
            " ".join(line.split()) for line in (*fenced(text), *inline(text)) if "..." not in line and "…" not in line
        )
    order = ("unlora presets", "unlora data", "unlora sweep", "unlora unlearn CONFIG", "unlora unlearn", "")
    places = {line: next(place for place, start in enumerate(order) if line.startswith(start)) for line in found}
    return sorted(found, key=lambda line: (line.startswith("unlora cache"), places[line]))


def runs_here(line: str) -> bool:
    needs_sweep = line.startswith("unlora sweep") or "best.yaml" in line
    if needs_sweep and importlib.util.find_spec("optuna") is None:
        return False
    return line not in FRAGMENTS and not any(text in line for text in (*BENCHMARKS, *ELSEWHERE))


def write_sweep(folder: Path) -> None:
    """The configuration of the page on sweeps, as it stands there."""
    block, *_ = re.findall(
        r"^```yaml\n(.*?)^```$", (ROOT / "docs/guide/sweep.md").read_text("utf-8"), flags=re.M | re.S
    )
    (folder / "sweep.yaml").write_text(block, encoding="utf-8")


def python(page: Path) -> Iterator[str]:
    """Blocks of code that load a model."""
    for block in re.findall(r"^```python\n(.*?)^```$", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL):
        if "from_pretrained(" in block:
            yield block


def words_of(line: str) -> tuple[str, ...]:
    """What follows `unlora`, with the reader's own names in it."""
    return tuple(PLACEHOLDERS.get(word, word) for word in shlex.split(line)[1:])


def run(*words: str) -> None:
    """Run a command in the current folder; the run that another line left there is in nobody's way."""
    if words[0] == "unlearn":
        shutil.rmtree(words[words.index("--output") + 1], ignore_errors=True)
    done = unlora(*words, *SHORT.get(words[:1], SHORT.get(words[:2], [])))
    assert done.exit_code == 0, f"{words}\n{done.output}"
    if words[:2] == ("presets", "cp"):  # "makes one to edit": the model and the data go into it
        file = Path(words[3])
        settings = yaml.safe_load(file.read_text("utf-8"))
        given = {"model": {"name": "target"}, "data": {"forget": "forget.jsonl", "retain": "retain.jsonl"}}
        file.write_text(yaml.safe_dump(settings | given), encoding="utf-8")


@pytest.fixture(scope="module")
def place(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every line has been run."""
    folder = tmp_path_factory.mktemp("reader")
    shutil.copytree(taught.target, folder / "target")
    shutil.copy(taught.forget, folder / "forget.jsonl")
    shutil.copy(taught.retain, folder / "retain.jsonl")
    write_sweep(folder)
    write_json(folder / "npo" / "evals" / "TOFU_EVAL.json", {"forget_Q_A_Prob": {"agg_value": 0.1}})
    for name, pairs in (("august", RETAIN[:4]), ("still-there", RETAIN[4:])):
        write_jsonl(folder / f"{name}.jsonl", pairs)
    both = (folder / "forget.jsonl").read_text("utf-8") + (folder / "august.jsonl").read_text("utf-8")
    (folder / "both.jsonl").write_text(both, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("UNLORA_CACHE", str(folder / "cache"))
        for words in dict.fromkeys(words_of(line) for line in lines() if runs_here(line)):
            run(*words)
    return folder


def test_every_line_runs(place: Path):
    """The fixture has run them; what they are to leave is there, and the last one removed what the cache held."""
    run_folder = place / "runs" / "x"
    assert (run_folder / "adapter" / "adapter_model.safetensors").is_file()
    assert (run_folder / "audit" / "audit.json").is_file()
    assert (run_folder / "export" / "merged" / "model.safetensors").is_file()
    assert not list((place / "cache").rglob("*.jsonl"))


def test_what_is_not_run_stands_on_a_page():
    assert set(FRAGMENTS) <= set(lines())
    assert sum(map(runs_here, lines())) > 10


def test_python_on_the_pages_gives_the_unlearned_model(place: Path, taught: Taught, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(place)
    blocks = [block for page in PAGES for block in python(page) if "merge_and_unload" not in block]
    assert len(blocks) == 2  # on the README and in the guide
    expected = logits(load_trained_adapter(taught.load().model, place / "runs" / "x" / "adapter"), taught.batch())
    assert float((expected - logits(taught.load().model, taught.batch())).abs().max()) > 0.1
    for block in blocks:
        names: dict[str, object] = {}
        with quiet():
            exec(block.replace('"TARGET"', '"target"'), names)
        with torch.no_grad():
            torch.testing.assert_close(logits(names["model"], taught.batch()), expected, atol=1e-4, rtol=0)
