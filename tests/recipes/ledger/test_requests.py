"""Requests one after another: the sum of their adapters, what is refused, what is taken back, what is found again."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from tests.recipes.test_export import plain
from tests.recipes.test_unlearn import Lines
from tests.taught import FORGET, RETAIN, Taught, write_jsonl
from tests.training.runs import logits
from unlora.adapters.export import load_trained_adapter, read_adapter
from unlora.errors import InputError
from unlora.ledger.book import Ledger
from unlora.ledger.entries import Recheck, Request, Settling
from unlora.recipes.export import export_adapter
from unlora.recipes.ledger.add import add_request
from unlora.recipes.ledger.begin import begin_ledger
from unlora.recipes.ledger.evidence import attach_audit
from unlora.recipes.ledger.roll_back import roll_back
from unlora.recipes.ledger.settle import settle_ledger
from unlora.recipes.ledger.status import check_requests, standings
from unlora.recipes.ledger.verify import verify_ledger
from unlora.run.settings import ModelSettings, UnlearnSettings

QUICK = {
    "adapter": {"rank": 4, "alpha": 8.0},
    "objective": {"retain_weight": 1.3},
    "training": {"learning_rate": 5e-3, "epochs": 12, "batch_size": 4, "save_steps": 100},
    "evaluation": {"max_new_tokens": 4},
}
TOMAS, LENA = RETAIN[:4], RETAIN[4:]


class Files(NamedTuple):
    """Records of two people who asked to be forgotten, of one who did not, and the ledger."""

    mira: Path
    tomas: Path
    lena: Path
    book: Path
    target: Path

    @property
    def model(self) -> ModelSettings:
        return ModelSettings(name=str(self.target))

    def take_back(self, request: int) -> None:
        roll_back(self.book, request, self.model)


def settings_of(book: Ledger, forget: Path, retain: Path | None, **sections: object) -> UnlearnSettings:
    data = {"forget": str(forget), "retain": str(retain) if retain is not None else None, "template": "plain"}
    return UnlearnSettings.from_mapping({"model": book.model_settings(), "data": data} | QUICK | sections)


def add(files: Files, forget: Path, retain: Path | None, **sections: object) -> Request:
    entry = add_request(files.book, settings_of(Ledger(files.book), forget, retain, **sections))
    assert isinstance(entry, Request)
    return entry


@pytest.fixture(scope="module")
def filled(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Files:
    """Two requests of two starts, one of them anchored (it begins with another product, which its anchor cancels)."""
    place = tmp_path_factory.mktemp("ledger")
    files = Files(
        *(
            write_jsonl(place / f"{name}.jsonl", pairs)
            for name, pairs in (("mira", FORGET), ("tomas", TOMAS), ("lena", LENA))
        ),
        place / "requests",
        Path(shutil.copytree(taught.target, place / "target")),
    )
    begin_ledger(files.book, files.model)
    add(files, files.mira, taught.retain, start={"kind": "marginal"})
    add(files, files.tomas, files.lena, start={"kind": "contrast_inputs"})
    return files


@pytest.fixture
def files(filled: Files, tmp_path: Path) -> Files:
    """The same with its model, to be changed."""
    shutil.copytree(filled.book.parent, tmp_path / "copy")
    return Files(*(tmp_path / "copy" / path.name for path in filled))


def composed(files: Files) -> Path:
    present = Ledger(files.book).composed
    assert present is not None
    return files.book / present.folder / "adapter"


def own(files: Files, request: int) -> Path:
    return files.book / "requests" / str(request) / "adapter"


def texts(folder: Path) -> Iterator[str]:
    yield from (path.read_bytes().decode("utf-8", "replace") for path in folder.rglob("*") if path.is_file())


def test_the_composed_adapter_is_the_sum_of_its_parts(filled: Files, taught: Taught):
    """By the logits of plain PEFT, against weights to which the products were added by hand."""
    model = plain(taught.target)
    weights = model.state_dict()
    for request in (1, 2):
        config = json.loads((own(filled, request) / "adapter_config.json").read_text())
        tensors = load_file(own(filled, request) / "adapter_model.safetensors")
        for key, lora_a in tensors.items():
            if ".lora_A." in key:
                name = key.removeprefix("base_model.model.").replace(".lora_A.weight", ".weight")
                product = tensors[key.replace(".lora_A.", ".lora_B.")].double() @ lora_a.double()
                weights[name] += (config["lora_alpha"] / config["r"] * product).float()
    model.load_state_dict(weights)
    found = PeftModel.from_pretrained(plain(taught.target), str(composed(filled)))
    torch.testing.assert_close(logits(found, taught.batch()), logits(model, taught.batch()), atol=1e-4, rtol=0)
    assert float((logits(found, taught.batch()) - logits(plain(taught.target), taught.batch())).abs().max()) > 0.1
    ranks = [Ledger(filled.book).request(request).rank for request in (1, 2)]
    assert ranks == [8, 4]  # An anchored adapter has rank 2r; where A was frozen, half of it is nothing.
    assert next(iter(read_adapter(composed(filled))[1].values())).lora_a.shape[0] == sum(ranks)


def test_each_request_is_forgotten_and_recorded_without_its_texts(filled: Files):
    book = Ledger(filled.book)
    assert [type(entry).__name__ for entry in book.entries] == ["Beginning", "Request", "Request"]
    for request in book.of_kind(Request):
        assert request.probability.now < 0.5 * request.probability.target
        assert (filled.book / "requests" / str(request.entry) / "evaluation.json").is_file()
    for text in texts(filled.book):
        assert not any(words in text for words in ("Solberg", "Okafor", "glass painter", "ferry captain"))
    assert sorted(path.name for path in filled.book.iterdir()) == ["composed", "ledger.jsonl", "requests"]
    assert [path.name for path in (filled.book / "composed").iterdir()] == ["2"]


def test_a_request_that_is_taken_back_leaves_the_others_and_the_last_one_nothing(files: Files, taught: Taught):
    tomas = read_adapter(own(files, 2))[1]
    files.take_back(1)
    left = read_adapter(composed(files))[1]
    assert left.keys() == tomas.keys()
    for name, factors in left.items():
        assert torch.equal(factors.lora_a, tomas[name].lora_a)
        assert torch.equal(factors.lora_b, tomas[name].lora_b)
    with pytest.raises(InputError, match="was rolled back before, by entry 3"):
        files.take_back(1)
    with pytest.raises(InputError, match="no request 3; the requests are: 1, 2"):
        files.take_back(3)
    files.take_back(2)
    book = Ledger(files.book)
    assert book.composed is None
    assert not (files.book / "composed").exists() or not list((files.book / "composed").iterdir())
    assert [one.rolled_back_by for one in standings(book)] == [3, 4]
    check_requests(files.book, [str(files.mira)], files.model)
    (check,) = Ledger(files.book).of_kind(Recheck)
    assert check.probability.now == check.probability.target == book.request(1).probability.target  # bit for bit
    assert verify_ledger(files.book).faults == []


def test_taken_back_and_added_again(files: Files, taught: Taught):
    files.take_back(1)
    again = add(files, files.mira, files.lena)
    assert again.entry == 4
    assert again.composed.of == [2, 4]
    assert again.probability.now < 0.5 * again.probability.target
    check_requests(files.book, [str(files.mira)], files.model)
    assert [check.request for check in Ledger(files.book).of_kind(Recheck)] == [1, 4]


def test_a_retain_set_that_holds_what_was_forgotten_is_refused(files: Files, taught: Taught):
    with pytest.raises(InputError, match=r"retain\.jsonl, line 1: was forgotten by request 2 of this ledger"):
        add(files, files.mira, taught.retain)
    shouted = tuple((question.upper(), answer.upper()) for question, answer in TOMAS[2:3])
    kept = write_jsonl(files.lena.parent / "kept.jsonl", LENA + shouted)
    with pytest.raises(InputError, match=r"kept\.jsonl, line 5: was forgotten by request 2"):
        add(files, files.mira, kept)
    assert not (files.book / "work").exists()
    lines = Lines()
    corrected = write_jsonl(files.lena.parent / "corrected.jsonl", (*LENA, (TOMAS[0][0], "He was born in Accra.")))
    settings = settings_of(Ledger(files.book), files.mira, corrected)
    add_request(files.book, settings, reporter=lines)
    warned = "Warning: 1 retain examples ask what forgotten records ask"
    assert any(line.startswith(warned) and "line 5 (request 2)" in line for line in lines.lines)
    again = "4 of 4 records are forgotten already"
    assert any(line.startswith(again) for line in lines.lines)


def test_what_comes_back_is_found(files: Files, taught: Taught):
    """An adapter that teaches Mira again, smuggled in as a request."""
    before = len(Ledger(files.book).entries)
    model = files.model
    check_requests(files.book, [str(files.mira)], model)
    assert not any(one.comes_back for one in standings(Ledger(files.book)))
    with pytest.raises(InputError, match=r"lena\.jsonl: holds the records of no request of this ledger"):
        check_requests(files.book, [str(files.lena)], model)
    assert len(Ledger(files.book).entries) == before + 1
    # As if Tomas' request had had Mira's records in its retain set, in words that no hash knows.
    relearn = write_jsonl(files.lena.parent / "other.jsonl", tuple((f"{q} Tell me.", a) for q, a in FORGET))
    lena = write_jsonl(files.lena.parent / "half.jsonl", LENA[:2])
    add(files, lena, relearn, objective={"forget": "gd", "retain": "nll", "retain_weight": 20.0},
        training=QUICK["training"] | {"epochs": 60, "batch_size": 2})  # fmt: skip
    check_requests(files.book, [str(files.mira)], model)
    (mira, tomas, _) = standings(Ledger(files.book))
    assert mira.comes_back
    assert not tomas.comes_back


def test_another_model_in_the_place_of_the_ledger_s_is_refused(files: Files, taught: Taught, tmp_path: Path):
    other = Path(shutil.copytree(taught.target, tmp_path / "other"))
    model = plain(other)
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1.0
    model.save_pretrained(other)
    settings = settings_of(Ledger(files.book), files.mira, files.lena, model={"name": str(other)})
    with pytest.raises(InputError, match=r"is about a model with weights .*; put that model back"):
        add_request(files.book, settings)
    with pytest.raises(InputError, match="is about a model with weights"):
        check_requests(files.book, [str(files.mira)], ModelSettings(name=str(other)))
    assert len(Ledger(files.book).entries) == 3


@pytest.mark.parametrize(
    "name",
    [
        "ledger.jsonl", "composed/2/adapter/adapter_model.safetensors", "composed/2/adapter/adapter_config.json",
        "composed/2/record.json", "requests/1/adapter/adapter_model.safetensors", "requests/2/evaluation.json",
        "requests/1/record.json", "requests/1/config.yaml", "requests/1/train_log.jsonl",
    ],
)  # fmt: skip
def test_any_changed_file_is_found_and_nothing_is_built_on_it(files: Files, name: str):
    file = files.book / name
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    (fault,) = verify_ledger(files.book).faults
    assert fault.startswith(str(file))
    with pytest.raises(InputError, match=r"changed since it was written|not valid JSON"):
        files.take_back(1)
    if name != "ledger.jsonl":
        file.unlink()
        assert verify_ledger(files.book).faults == [f"{file}: missing"]


def test_a_ledger_that_was_cut_off_is_found(files: Files):
    head = verify_ledger(files.book).head
    assert verify_ledger(files.book, head=head[:8]).faults == []
    lines = (files.book / "ledger.jsonl").read_text().splitlines(keepends=True)
    (files.book / "ledger.jsonl").write_text("".join(lines[:2]))
    assert any("composed/1" in fault and "missing" in fault for fault in verify_ledger(files.book).faults)
    for none in ("", "0f", "yes it is"):  # an empty one would be the beginning of every hash
        with pytest.raises(InputError, match=f"--head '{none}': not a hash"):
            verify_ledger(files.book, head=none)
    (fault,) = verify_ledger(files.book, head=head[:8].upper()).faults
    assert "it was cut off, or written anew" in fault


def test_what_another_process_replaces_meanwhile_is_no_fault(files: Files, monkeypatch: pytest.MonkeyPatch):
    """The composition goes after its line was read, and before its files are hashed."""
    hashing = Ledger.changed_files

    def late(book: Ledger) -> list[str]:
        monkeypatch.setattr(Ledger, "changed_files", hashing)
        files.take_back(1)
        return hashing(book)

    monkeypatch.setattr(Ledger, "changed_files", late)
    found = verify_ledger(files.book)
    assert (found.faults, found.entry_count) == ([], 4)
    (files.book / "composed" / "3" / "adapter" / "adapter_config.json").unlink()
    assert len(verify_ledger(files.book).faults) == 1


def test_a_request_that_was_killed_in_its_last_moments_is_not_added_again(
    files: Files, monkeypatch: pytest.MonkeyPatch
):
    """After its entry, while what it replaced is removed: the same command finds it done, and goes on removing."""
    before = len(Ledger(files.book).entries)
    tidy, calls = Ledger.tidy, []

    def killed(book: Ledger) -> None:
        calls.append(len(Ledger(files.book).entries))
        if calls[-1] > before:
            raise KeyboardInterrupt
        tidy(book)

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "tidy", killed)
        with pytest.raises(KeyboardInterrupt):
            add(files, files.mira, files.lena)
    assert len(Ledger(files.book).entries) == before + 1
    again = add(files, files.mira, files.lena)
    assert again.entry == before
    assert len(Ledger(files.book).entries) == before + 1
    assert verify_ledger(files.book).faults == []


def test_settled_all_updates_are_weaker_and_the_records_of_all_at_the_level(files: Files, taught: Taught):
    whole, both = read_adapter(composed(files))[1], [str(files.mira), str(files.tomas)]
    entry = settle_ledger(files.book, both, files.model, level=0.5)
    assert isinstance(entry, Settling)
    assert 0 < entry.strength < 1
    for name, factors in read_adapter(composed(files))[1].items():
        torch.testing.assert_close(factors.lora_b @ factors.lora_a,
                                   entry.strength * whole[name].lora_b @ whole[name].lora_a)  # fmt: skip
    check_requests(files.book, both, files.model)
    found = standings(Ledger(files.book))
    mean = sum(one.latest.now * one.request.forget.example_count for one in found) / 8  # records of both
    assert mean == pytest.approx(0.5, abs=0.03)  # the strength is found to a hundredth
    assert [one.request for one in entry.asked] == [1, 2]
    assert not any(one.comes_back for one in found)  # it was let back on purpose
    assert found[0].left > found[0].request.probability.now
    files.take_back(1)
    for name, factors in read_adapter(composed(files))[1].items():
        tomas = read_adapter(own(files, 2))[1][name]
        torch.testing.assert_close(factors.lora_b, entry.strength * tomas.lora_b)
    again = add(files, files.mira, files.lena)
    book = Ledger(files.book)
    assert [book.strength(number) for number in (2, again.entry)] == [entry.strength, 1.0]
    assert verify_ledger(files.book).faults == []


def test_settling_needs_the_records_of_all_and_a_level_that_is_passed(files: Files, taught: Taught):
    lines = (files.book / "ledger.jsonl").read_text()
    with pytest.raises(InputError, match="records of request 2 are in none of the files"):
        settle_ledger(files.book, [str(files.mira)], files.model, level=0.5)
    both = [str(files.tomas), str(files.mira)]
    with pytest.raises(InputError, match="request 1 aimed at no level; say one with --level"):
        settle_ledger(files.book, both, files.model)
    heard = Lines()
    assert settle_ledger(files.book, both, files.model, level=1e-6, reporter=heard) is None
    assert "not past the level of 0.000; nothing is changed" in heard.lines[-1]
    assert (files.book / "ledger.jsonl").read_text() == lines
    for request in (1, 2):
        files.take_back(request)
    with pytest.raises(InputError, match="no request is in force"):
        settle_ledger(files.book, both, files.model, level=0.5)


def test_a_composition_is_a_run_to_other_commands(files: Files, taught: Taught, tmp_path: Path):
    """Squeezed on request, its error said."""
    done = export_adapter(composed(files).parent, tmp_path / "small", rank=3)
    assert done.rank == 3
    assert 0.01 < done.error < 1
    whole = export_adapter(composed(files).parent, tmp_path / "whole")
    found = load_trained_adapter(taught.load().model, tmp_path / "whole")
    expected = load_trained_adapter(taught.load().model, composed(files))
    assert whole.error < 1e-6
    torch.testing.assert_close(logits(found, taught.batch()), logits(expected, taught.batch()), atol=1e-4, rtol=0)


def test_what_was_exported_beside_a_composition_outlives_it_and_is_said_to_be_old(files: Files):
    replaced = composed(files).parent
    export_adapter(replaced, replaced / "export" / "adapter")
    assert verify_ledger(files.book).notices == []
    files.take_back(1)
    assert (replaced / "export" / "adapter" / "adapter_model.safetensors").is_file()
    (notice,) = verify_ledger(files.book).notices
    assert notice.startswith(f"{replaced}: holds export, of a composition that has been replaced")
    (replaced / "adapter").mkdir()
    assert "left by a command that ended early" in verify_ledger(files.book).notices[0]


def test_an_audit_is_kept_as_evidence_of_its_own_composition_only(files: Files, tmp_path: Path):
    book = Ledger(files.book)
    assert book.composed is not None
    weights = {"unlearned": f"{book.beginning.model.fingerprint}+{book.composed.adapter_sha256}"}
    (tmp_path / "audit").mkdir()
    file = tmp_path / "audit" / "audit.json"
    file.write_text(json.dumps({"verdict": "Nothing came back.", "scope": "s", "attacks": {}, "weights": weights}))
    attach_audit(files.book, tmp_path / "audit")
    assert [one.audit.verdict if one.audit else None for one in standings(Ledger(files.book))] == [
        None, "Nothing came back.",
    ]  # fmt: skip
    assert (files.book / "evidence" / "3" / "audit.json").is_file()
    file.write_text(json.dumps({"verdict": "v", "scope": "s", "weights": {"unlearned": "0+0"}}))
    with pytest.raises(InputError, match="is of no composition of this ledger"):
        attach_audit(files.book, tmp_path / "audit")
    (files.book / "evidence" / "3" / "audit.json").write_text("{}")
    assert len(verify_ledger(files.book).faults) == 1
