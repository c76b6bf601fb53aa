"""MUSE's files: where they lie, what is in them, how long texts are cut, and what is refused."""

from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.muse_files import FORGET_TEXTS, HOLDOUT_TEXTS, VERBATIM, write_json, write_muse
from unlora.data.muse import load_muse, load_muse_data, muse_folds, muse_names
from unlora.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both corpora. Read only."""
    folder = tmp_path_factory.mktemp("muse")
    write_muse(folder, "books")
    return write_muse(folder, "news")


def test_evaluation_data_has_every_part(folder: Path) -> None:
    data = load_muse_data("news", folder)
    assert [(one.prompt, one.completion) for one in data.verbatim] == list(VERBATIM)
    assert [one.prompt for one in data.forget_questions] == ["Where did the ferry sink?", "What does Mira paint?"]
    assert [one.completion for one in data.forget_demonstrations] == ["a baker", "forty"]
    assert (len(data.retain_questions), len(data.retain_demonstrations)) == (3, 1)
    assert [one.completion for one in data.forget_texts] == list(FORGET_TEXTS)
    assert [one.completion for one in data.holdout_texts] == list(HOLDOUT_TEXTS)
    assert data.verbatim.examples[1].source == f"{folder}/news/verbmem/forget.json, entry 2"
    assert data.holdout_texts.examples[0].source == f"{folder}/news/privleak/holdout.json, document 1"


def test_the_folder_of_one_corpus_will_do_and_gives_the_same_data(folder: Path) -> None:
    above, itself = load_muse_data("books", folder), load_muse_data("books", folder / "books")
    assert above.sha256() == itself.sha256()
    assert load_muse_data("news", folder).sha256() != above.sha256()
    with pytest.raises(InputError, match="holds books, and news was asked for"):
        load_muse_data("news", folder / "books")


def test_first_items_keep_every_demonstration(folder: Path) -> None:
    data = load_muse_data("news", folder)
    first = data.select(1)
    counts = [len(first.verbatim), len(first.forget_questions), len(first.forget_texts), len(first.holdout_texts)]
    assert counts == [1, 1, 1, 1]
    assert first.forget_demonstrations == data.forget_demonstrations
    assert data.select(None) is data


@pytest.mark.parametrize("name", muse_names())
def test_every_set_loads_under_its_name(folder: Path, name: str) -> None:
    examples = load_muse(name, folder)
    assert examples.name == f"muse:{name}"
    assert len(examples) > 0
    kinds = {"knowmem": "question_answer", "verbmem": "prompt_completion"}
    parts = name.split("/")
    assert {one.shape for one in examples} == {kinds.get(parts[1], "text")}


def test_raw_is_the_corpus_itself_and_folds_are_their_own_files(folder: Path) -> None:
    assert [one.completion for one in load_muse("news/forget", folder)] == list(FORGET_TEXTS)
    assert [one.completion for one in load_muse("news/scal/forget_3", folder)] == list(FORGET_TEXTS[:3])
    assert [one.completion for one in load_muse("news/sust/forget_3", folder)] == [FORGET_TEXTS[2]]
    (first, *_) = load_muse("news/forget", folder)
    assert first.source == f"{folder}/news/raw/forget.json, document 1, piece 1 of 1"


def test_long_documents_come_in_pieces_and_no_word_is_lost(tmp_path: Path) -> None:
    long = "\n\n".join(f"Paragraph {number} tells  of a heron, again." for number in range(100))  # 700 words
    write_json(tmp_path / "news" / "raw" / "forget.json", ["A short one.", long])
    short, *pieces = load_muse("news/forget", tmp_path)
    assert short.completion == "A short one."
    assert len(pieces) == 4
    assert " ".join(piece.completion for piece in pieces).split() == long.split()
    assert all(len(piece.completion.split()) <= 192 and piece.completion in long for piece in pieces)
    assert pieces[1].source == f"{tmp_path}/news/raw/forget.json, document 2, piece 2 of 4"


def test_the_settings_with_four_requests_name_their_four_sets(folder: Path) -> None:
    assert muse_folds("news/sust") == tuple(f"news/sust/forget_{fold}" for fold in (1, 2, 3, 4))
    assert muse_folds("news/scal")[3] == "news/scal/forget_4"
    assert muse_folds("news/forget") == ("news/forget",)
    with pytest.raises(InputError, match=r"muse:news/sust: names 4 sets, .* such as news/sust/forget_1"):
        load_muse("news/sust", folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("news/forgt", "no such set. Did you mean 'news/forget'"),
        ("books/sust/forget_1", "no such set"),
        ("x", "Known sets: news/forget, news/retain1"),
    ],
)
def test_unknown_set_names_the_nearest(folder: Path, name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_muse(name, folder)


@pytest.mark.parametrize(
    ("part", "content", "message"),
    [
        ("raw/forget", {"text": "x"}, r"raw/forget\.json: must hold a list"),
        ("raw/forget", [], r"raw/forget\.json: must hold a list with at least one entry"),
        ("raw/forget", ["good", 7], r"raw/forget\.json, document 2: the text must be text, found int"),
        ("raw/forget", ["good", " \n"], r"raw/forget\.json, document 2: the text is empty"),
        ("raw/forget", ["\ud800"], r"raw/forget\.json, document 1: .* surrogate"),
        ("verbmem/forget", [{"prompt": "p", "gt": "g"}, {"prompt": "p"}], r"entry 2: must be an object .* 'gt'"),
        ("verbmem/forget", ["text"], r"entry 1: must be an object with the key 'prompt'"),
        ("knowmem/forget_qa", [{"question": "q", "answer": None}], r"entry 1: 'answer' must be text, found NoneType"),
        ("knowmem/forget_qa", [{"question": "", "answer": "a"}], r"entry 1: 'question' is empty"),
    ],
)
def test_bad_file_or_entry_is_refused_by_name_and_number(tmp_path: Path, part: str, content: Any, message: str) -> None:
    write_json(tmp_path / "news" / f"{part}.json", content)
    name = "news/forget" if part == "raw/forget" else f"news/{part}"
    with pytest.raises(InputError, match=message):
        load_muse(name, tmp_path)


def test_missing_or_broken_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder; it must hold news/"):
        load_muse("news/forget", tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds neither news/ nor one of raw/, knowmem/"):
        load_muse("news/forget", tmp_path)
    (tmp_path / "news").mkdir()
    with pytest.raises(InputError, match=r"raw/forget\.json: no such file; MUSE's load_data\.py"):
        load_muse("news/forget", tmp_path)
    write_json(tmp_path / "news" / "raw" / "forget.json", []).write_text("[\n1,")
    with pytest.raises(InputError, match=r"forget\.json, line 2: not valid JSON"):
        load_muse("news/forget", tmp_path)


def test_hub_is_asked_for_corpus_part_and_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks only what is asked of `datasets`; there is no network here."""
    asked = []
    rows = {
        "knowmem": {"question": "q", "answer": "a", "id": 1},
        "verbmem": {"prompt": "p", "gt": "g"},
        "privleak": {"text": "whole text"},
        "scal": {"text": "fold text"},
    }

    def load_dataset(hub_id: str, part: str, *, split: str) -> list[dict[str, Any]]:
        asked.append((hub_id, part, split))
        return [rows[part]]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    data = load_muse_data("books")
    assert data.forget_texts.examples[0].completion == "whole text"
    assert data.verbatim.examples[0].source == "muse-bench/MUSE-Books verbmem forget, entry 1"
    assert set(asked) == {
        ("muse-bench/MUSE-Books", "verbmem", "forget"),
        *(("muse-bench/MUSE-Books", "knowmem", f"{side}_qa") for side in ("forget", "retain")),
        *(("muse-bench/MUSE-Books", "knowmem", f"{side}_qa_icl") for side in ("forget", "retain")),
        *(("muse-bench/MUSE-Books", "privleak", split) for split in ("forget", "holdout")),
    }
    asked.clear()
    (fold,) = load_muse("news/scal/forget_2")
    assert asked == [("muse-bench/MUSE-News", "scal", "forget_2")]
    assert fold.source == "muse-bench/MUSE-News scal forget_2, document 1, piece 1 of 1"


def test_unreachable_hub_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: str, **options: str) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(
        InputError,
        match=r"muse:news raw forget: muse-bench/MUSE-News cannot be loaded .* \(no route\); .*muse:NAME@FOLDER",
    ):
        load_muse("news/forget")
