import json
from pathlib import Path

import datasets
import pytest

from unlora.data.records import ExampleSet
from unlora.data.sources import load_examples
from unlora.data.tofu import HUB_SPLITS, companion, load_tofu, perturbed_version
from unlora.errors import InputError

ROWS = [{"question": "q", "answer": "a", "perturbed_answer": ["x", "y", "z"]}]
TOFU_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "tofu"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "forget01.json").write_text(json.dumps({"question": "q", "answer": "a"}))
    (tmp_path / "world_facts_perturbed.jsonl").write_text(json.dumps(ROWS[0]))
    return tmp_path


def test_path_is_read_as_user_data(folder: Path) -> None:
    path = folder / "forget01.json"
    assert load_examples(str(path)).examples[0].source == f"{path}, line 1"


def test_tofu_is_read_from_a_local_folder(folder: Path) -> None:
    examples = load_examples(f"tofu:forget01@{folder}")
    assert examples.name == "tofu:forget01"
    assert examples.examples[0].paraphrased_answer is None


def test_plain_answer_stands_in_for_a_missing_paraphrase(folder: Path) -> None:
    (example,) = load_examples(f"tofu:world_facts_perturbed@{folder}")
    assert example.paraphrased_answer == "a"
    assert example.perturbed_answers == ("x", "y", "z")


def test_tofu_is_read_from_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks only what is asked of `datasets`; there is no network here."""
    asked = []

    def load_dataset(*args: str, **options: str) -> list[dict[str, object]]:
        asked.append((args, options))
        return ROWS

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (example,) = load_examples("tofu:real_authors_perturbed")
    assert asked == [(("locuslab/TOFU", "real_authors_perturbed"), {"split": "train"})]
    assert example.source == "locuslab/TOFU real_authors_perturbed, row 1"


def test_unreachable_hub_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: str, **options: str) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError, match=r"\(no route\); .* write tofu:forget01@FOLDER\.$"):
        load_tofu("forget01")


def test_unknown_split_names_the_nearest(folder: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'forget01'"):
        load_examples("tofu:forgt01")
    with pytest.raises(InputError, match=r"Known splits: full, forget01"):
        load_examples("tofu:")
    with pytest.raises(InputError, match=r"no TOFU split 'forget1' .* Did you mean 'forget01'"):
        load_examples(f"tofu:forget1@{folder}")
    with pytest.raises(InputError, match="no such folder"):
        load_examples(f"tofu:forget01@{folder}/nowhere")


def test_holdout_splits_are_on_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Never trained on: OpenUnlearning's non-members."""
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: [{"question": "q", "answer": "a"}])
    for split in ("holdout01", "holdout05", "holdout10"):
        assert load_examples(f"tofu:{split}").name == f"tofu:{split}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("tofu:forget01", "tofu:forget01_perturbed"),
        ("tofu:forget10@some/folder", "tofu:forget10_perturbed@some/folder"),
        ("tofu:retain99", "tofu:retain_perturbed"),
        ("tofu:retain90@some/folder", "tofu:retain_perturbed@some/folder"),
        ("tofu:world_facts", "tofu:world_facts_perturbed"),
        ("tofu:forget05_perturbed", "tofu:forget05_perturbed"),
        ("tofu:full", "tofu:full"),
        ("tofu:holdout10", "tofu:holdout10"),
        ("forget.jsonl", "forget.jsonl"),
    ],
)
def test_perturbed_version_of_a_split(source: str, expected: str) -> None:
    assert perturbed_version(source) == expected


def test_companion_of_a_forget_split_is_at_the_same_place_if_it_is_there(folder: Path) -> None:
    assert companion("tofu:forget05", "real_authors_perturbed") == "tofu:real_authors_perturbed"
    here = f"tofu:forget01_perturbed@{folder}"
    assert companion(here, "world_facts_perturbed") == f"tofu:world_facts_perturbed@{folder}"
    assert companion(here, "real_authors_perturbed") is None
    assert companion(f"tofu:forget01@{folder}/nowhere", "world_facts_perturbed") is None
    assert companion("tofu:full", "world_facts_perturbed") is None
    assert companion("forget.jsonl", "world_facts_perturbed") is None


@pytest.mark.skipif(not TOFU_FOLDER.is_dir(), reason="the TOFU files are not here")
def test_real_tofu_files_load() -> None:
    splits = {path.stem: load_tofu(path.stem, TOFU_FOLDER) for path in TOFU_FOLDER.glob("*.json")}
    assert set(splits) <= set(HUB_SPLITS)
    assert len(splits["forget01"]) == 40
    assert len(splits["retain99"]) == 3960
    assert splits["forget10"].sha256() == splits["forget10_perturbed"].sha256()
    last = ExampleSet("last", splits["full"].examples[-40:])
    assert splits["forget01"].sha256() == last.sha256()
    assert {len(example.perturbed_answers) for example in splits["forget01_perturbed"]} == {5}
    assert all(example.paraphrased_answer == example.completion for example in splits["world_facts_perturbed"])
