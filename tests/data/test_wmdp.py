"""WMDP's corpora from a local folder; what is asked of the hub, and what its failures become."""

import json
from pathlib import Path

import datasets
import pytest

from unlora.data.pieces import MAX_WORDS
from unlora.data.wmdp import CORPORA, load_wmdp
from unlora.errors import InputError


def write(folder: Path, name: str, *rows: object) -> Path:
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return folder


def test_long_documents_come_in_pieces_and_nothing_is_lost(tmp_path: Path) -> None:
    long = " ".join(f"word{number}" for number in range(2 * MAX_WORDS + 1))
    folder = write(tmp_path, "cyber-forget-corpus", {"text": "A short one."}, {"text": long})
    first, *pieces = load_wmdp("cyber-forget-corpus", folder)
    assert (first.shape, first.prompt, first.completion) == ("text", "", "A short one.")
    assert first.source == f"{folder}/cyber-forget-corpus.jsonl, line 1"
    assert " ".join(piece.completion for piece in pieces) == long
    assert [piece.source.partition(", ")[2] for piece in pieces] == [f"line 2, piece {n} of 3" for n in (1, 2, 3)]


def test_bio_forget_corpus_is_title_abstract_and_text(tmp_path: Path) -> None:
    rows = (
        {"title": "On yeast", "abstract": "It grows.", "text": "We grew it.", "doi": "10.1/x"},
        {"title": None, "text": "Alone."},
    )
    examples = load_wmdp("bio-forget-corpus", write(tmp_path, "bio-forget-corpus", *rows))
    assert [one.completion for one in examples] == ["On yeast\n\nIt grows.\n\nWe grew it.", "Alone."]
    assert examples.name == "wmdp:bio-forget-corpus"


def test_wikitext_loses_headings_and_empty_lines_and_says_so(tmp_path: Path) -> None:
    texts = (" = Robert <unk> = \n", "", " He acted = and sang . \n", " = = Early life = = \n", "\n", " a = b = \n")
    folder = write(tmp_path, "wikitext", *({"text": text} for text in texts))
    examples = load_wmdp("wikitext", folder)
    assert [one.completion for one in examples] == ["He acted = and sang .", "a = b ="]
    assert examples.name == "wmdp:wikitext (4 empty lines and headings left out)"


@pytest.mark.parametrize("name", CORPORA)
def test_hub_is_asked_for_the_right_data_set(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks only what is asked of `datasets`; there is no network here."""
    asked = []

    def load_dataset(*args: str | None, **options: str) -> list[dict[str, str]]:
        asked.append((args, options))
        return [{"text": ""}, {"text": "Some text."}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (example,) = load_wmdp(name)
    assert asked == [(CORPORA[name], {"split": "train"})]
    assert example.source == f"{CORPORA[name][0]} {name}, row 2"


def test_gated_access_says_how_to_ask_and_how_to_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: str, **options: str) -> None:
        raise datasets.exceptions.DatasetNotFoundError(
            "Dataset 'cais/wmdp-bio-forget-corpus' is a gated dataset on the Hub. You must be authenticated."
        )

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError) as refused:
        load_wmdp("bio-forget-corpus")
    message = str(refused.value)
    assert "log in at https://huggingface.co/datasets/cais/wmdp-bio-forget-corpus, accept its terms" in message
    assert "`hf auth login`" in message
    assert "FOLDER/bio-forget-corpus.jsonl, write wmdp:bio-forget-corpus@FOLDER" in message
    assert "\n" not in message


def test_unreachable_hub_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def load_dataset(*args: str, **options: str) -> None:
        raise ConnectionError("no route\nto the hub")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(InputError, match=r"Salesforce/wikitext .* \(no route\); .* write wmdp:wikitext@FOLDER\.$"):
        load_wmdp("wikitext")


def test_wrong_names_and_bad_lines_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Did you mean 'cyber-forget-corpus'"):
        load_wmdp("cyber-forget")
    with pytest.raises(InputError, match="Known corpora: bio-forget-corpus"):
        load_wmdp("x")
    with pytest.raises(InputError, match=r'wikitext\.jsonl: no such file; it must hold one \{"text": \.\.\.\} a line'):
        load_wmdp("wikitext", tmp_path)
    cases = (
        ({"txt": "a"}, "key 'text' is missing"),
        ({"text": 3}, "'text' must be text"),
        ([1], "must be a JSON object"),
    )
    for row, message in cases:
        with pytest.raises(InputError, match=rf"line 2: {message}"):
            load_wmdp("bio-retain-corpus", write(tmp_path, "bio-retain-corpus", {"text": "a"}, row))
    with pytest.raises(InputError, match="line 1: 'abstract' must be text"):
        load_wmdp("bio-forget-corpus", write(tmp_path, "bio-forget-corpus", {"text": "a", "abstract": 3}))
    with pytest.raises(InputError, match="holds no text"):
        load_wmdp("wikitext", write(tmp_path, "wikitext", {"text": " = Heading = \n"}))
