"""Requests one after another: what each step starts from, what stays forgotten, what is refused, and going on."""

import json
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.muse_files import write_muse
from tests.recipes.test_export import plain
from tests.taught import FORGET, RETAIN, Taught, write_jsonl
from tests.training.runs import logits
from unlora.adapters.export import load_trained_adapter
from unlora.artifacts import file_sha256
from unlora.errors import InputError
from unlora.models.load import load_model
from unlora.recipes.fine_tune import fine_tune
from unlora.recipes.sequence import expand, unlearn_sequence
from unlora.run.settings import FineTuneSettings, UnlearnSettings

ADAPTER = Path("adapter") / "adapter_model.safetensors"


class Requests(NamedTuple):
    """Two people to forget one after the other, and one to keep."""

    first: str
    second: str
    retain: str
    alone: str

    @property
    def both(self) -> list[str]:
        return [self.first, self.second]


@pytest.fixture(scope="module")
def requests(tmp_path_factory: pytest.TempPathFactory) -> Requests:
    """The taught model knows all three people. Read only."""
    folder = tmp_path_factory.mktemp("requests")
    return Requests(
        str(write_jsonl(folder / "mira.jsonl", FORGET)),
        str(write_jsonl(folder / "lena.jsonl", RETAIN[4:])),
        str(write_jsonl(folder / "tomas.jsonl", RETAIN[:4])),
        str(write_jsonl(folder / "alone.jsonl", RETAIN[4:5])),
    )


def settings_for(taught: Taught, requests: Requests, **sections: Any) -> UnlearnSettings:
    """A second a step; `sections` are laid over."""
    data = {"forget": requests.first, "retain": requests.retain, "template": "plain"}
    return taught.settings(**{"data": data, "evaluation": {"max_new_tokens": 2}, **sections})


@pytest.fixture(scope="module")
def finished(taught: Taught, requests: Requests, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both requests in mode sequential. Copy it before changing anything."""
    folder = tmp_path_factory.mktemp("sequence") / "both"
    unlearn_sequence(settings_for(taught, requests), requests.both, folder, mode="sequential")
    return folder


def read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def probability(metrics: dict[str, Any], side: str = "forget") -> float:
    return metrics[f"{side}_probability"]["value"]


def test_earlier_requests_stay_forgotten_and_the_rest_is_kept(finished: Path, requests: Requests) -> None:
    record = read(finished / "sequence.json")
    first, second = record["steps"]
    assert (record["mode"], record["retain"]) == ("sequential", requests.retain)
    assert [step["forget"] for step in record["steps"]] == requests.both
    assert [step["example_count"] for step in record["steps"]] == [4, 4]
    assert first["earlier"] == []
    (mira,) = second["earlier"]
    assert (mira["step"], mira["forget"]) == (1, requests.first)
    assert mira["metrics"]["forget_probability"]["example_count"] == 4
    known = probability(first["current"]["target"])
    assert known > 0.8
    assert probability(first["current"]["unlearned"]) < 0.5 * known
    assert probability(second["current"]["unlearned"]) < 0.5 * probability(second["current"]["target"])
    assert probability(mira["metrics"]) < 0.5 * known
    assert probability(second["retain"]["unlearned"], "retain") > 0.5


def test_sides_of_the_record_hold_their_own_metrics(finished: Path) -> None:
    step = read(finished / "sequence.json")["steps"][1]
    evaluation = read(finished / "step-2" / "evaluation.json")
    for role in ("target", "unlearned"):
        metrics = evaluation["models"][role]["metrics"]
        for side in ("current", "retain"):
            assert step[side][role].items() <= metrics.items()
        assert {"forget_probability", "exact_memorisation", "extraction_strength"} <= step["current"][role].keys()
        assert {"retain_probability", "model_utility"} <= step["retain"][role].keys()
        assert not step["current"][role].keys() & step["retain"][role].keys()


def test_earlier_numbers_are_those_of_the_second_step_s_model(
    finished: Path, taught: Taught, requests: Requests
) -> None:
    """The probability of the first request, by a plain loop over the model that transformers and PEFT load."""
    model = PeftModel.from_pretrained(plain(taught.target), str(finished / "after-2")).eval()
    values = []
    for example in taught.tokens(Path(requests.first)):
        ids = torch.tensor([example.input_ids])
        log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        chosen = log_probs.gather(1, ids[0, 1:, None])[example.prompt_length - 1 :, 0]
        values.append(chosen.mean().exp().item())
    (mira,) = read(finished / "sequence.json")["steps"][1]["earlier"]
    assert probability(mira["metrics"]) == pytest.approx(sum(values) / len(values), abs=1e-4)


def test_second_step_starts_from_the_first_one_s_model_and_the_target_is_not_touched(
    finished: Path, taught: Taught
) -> None:
    batch = taught.batch()
    first = load_trained_adapter(taught.load().model, finished / "step-1" / "adapter")
    start = load_model(str(finished / "after-1"), device=torch.device("cpu"))
    torch.testing.assert_close(logits(start.model, batch), logits(first, batch), atol=1e-4, rtol=0)
    second = load_trained_adapter(start.model, finished / "step-2" / "adapter")
    end = PeftModel.from_pretrained(plain(taught.target), str(finished / "after-2"))
    torch.testing.assert_close(logits(end, batch), logits(second, batch), atol=1e-3, rtol=0)
    assert read(finished / "after-1" / "adapter_config.json")["r"] == 8  # 2r
    assert read(finished / "after-2" / "adapter_config.json")["r"] == 16
    recorded = [read(finished / step / "record.json")["model"]["fingerprint"] for step in ("step-1", "step-2")]
    assert len(set(recorded)) == 2
    weights = [path for path in finished.rglob("*.safetensors") if "adapter" not in path.name]
    assert {path.name for path in weights} == {"importance.safetensors"}


def test_interrupted_sequence_goes_on_with_the_same_bits(
    finished: Path, taught: Taught, requests: Requests, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped in the second step; and one step alone may be followed by another later."""
    monkeypatch.chdir(tmp_path)
    settings = settings_for(taught, requests)
    unlearn_sequence(settings, requests.both[:1], Path("seq"), mode="sequential")
    first = file_sha256(Path("seq") / "step-1" / ADAPTER)
    assert first == file_sha256(finished / "step-1" / ADAPTER)
    monkeypatch.setattr("unlora.recipes.unlearn.train", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        unlearn_sequence(settings, requests.both, Path("seq"), mode="sequential")
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    record = unlearn_sequence(settings, requests.both, Path("seq"), mode="sequential")
    assert file_sha256(Path("seq") / "step-2" / ADAPTER) == file_sha256(finished / "step-2" / ADAPTER)
    assert record == read(finished / "sequence.json") == read(Path("seq") / "sequence.json")
    assert not [path for path in Path("seq").iterdir() if path.name.startswith(".")]
    trained = []
    monkeypatch.setattr("unlora.recipes.unlearn.train", lambda *args: trained.append(1))
    monkeypatch.setattr("unlora.run.suites.SuiteRun.ask", lambda *args: trained.append(1))
    assert unlearn_sequence(settings, requests.both, Path("seq"), mode="sequential") == record
    assert trained == []


def test_second_step_does_not_aim_at_what_the_target_knew(taught: Taught, requests: Requests, tmp_path: Path) -> None:
    """Level auto: the model under the first step's adapter is the target itself, and no model before it."""
    settings = settings_for(taught, requests, level={"aim": "auto"})
    record = unlearn_sequence(settings, requests.both, tmp_path / "seq", mode="sequential")
    known, left = (record["steps"][1]["current"][role] for role in ("target", "unlearned"))
    assert probability(left) < 0.8 * probability(known)


def test_separate_requests_start_from_the_same_target(taught: Taught, requests: Requests, tmp_path: Path) -> None:
    record = unlearn_sequence(settings_for(taught, requests), requests.both, tmp_path / "seq", mode="separate")
    names = sorted(path.name for path in (tmp_path / "seq").iterdir())
    assert names == ["sequence.json", "step-1", "step-2"]
    fingerprints = {read(tmp_path / "seq" / f"step-{k}" / "record.json")["model"]["fingerprint"] for k in (1, 2)}
    assert len(fingerprints) == 1
    assert [step["earlier"] for step in record["steps"]] == [[], []]
    assert probability(record["steps"][1]["current"]["target"]) > 0.8


def test_target_that_is_an_adapter_with_its_base_elsewhere(taught: Taught, requests: Requests, tmp_path: Path) -> None:
    """after-2 is one adapter for that base: what the target had learned, and both requests."""
    target = tmp_path / "target"
    learned = FineTuneSettings.from_mapping(
        {"model": {"name": str(taught.target)}, "data": [requests.retain], "rank": 2, "epochs": 1, "template": "plain"}
    )
    fine_tune(learned, target)
    config = read(target / "adapter_config.json") | {"base_model_name_or_path": "nowhere/to-be-found"}
    (target / "adapter_config.json").write_text(json.dumps(config))
    model = {"name": str(target), "base": str(taught.target)}
    settings = settings_for(taught, requests, model=model, evaluation={"skip": True}, training={"epochs": 1})
    record = unlearn_sequence(settings, requests.both, tmp_path / "seq", mode="sequential")
    assert [(step["current"], step["earlier"], step["retain"]) for step in record["steps"]] == [({}, [], {})] * 2
    config = read(tmp_path / "seq" / "after-2" / "adapter_config.json")
    assert (config["base_model_name_or_path"], config["r"]) == ("nowhere/to-be-found", 2 + 8 + 8)  # As it is published.
    assert (tmp_path / "seq" / "after-1" / "tokenizer_config.json").is_file()
    start = load_model(str(tmp_path / "seq" / "after-1"), device=torch.device("cpu"))
    second = load_trained_adapter(start.model, tmp_path / "seq" / "step-2" / "adapter")
    end = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(taught.target), tmp_path / "seq" / "after-2")
    torch.testing.assert_close(logits(end, taught.batch()), logits(second, taught.batch()), atol=1e-3, rtol=0)


def test_muse_names_stand_for_four_requests(tmp_path: Path) -> None:
    assert expand("muse:news/sust") == tuple(f"muse:news/sust/forget_{fold}" for fold in (1, 2, 3, 4))
    assert expand(f"muse:news/scal@{tmp_path}")[1] == f"muse:news/scal/forget_2@{tmp_path}"
    assert expand("muse:news/forget") == ("muse:news/forget",)
    assert expand("news/sust") == ("news/sust",)


def test_four_folds_of_muse_in_sequence(taught: Taught, tmp_path: Path) -> None:
    muse = write_muse(tmp_path / "muse")
    settings = taught.settings(
        data={"forget": "unused", "retain": f"muse:news/retain1@{muse}"},
        start={"kind": "marginal", "statistic": "second_moment"},
        training={"epochs": 1},
        evaluation={"max_examples": 1},
    )
    record = unlearn_sequence(settings, [f"muse:news/sust@{muse}"], tmp_path / "seq", mode="sequential")
    assert [step["forget"] for step in record["steps"]] == [f"muse:news/sust/forget_{k}@{muse}" for k in (1, 2, 3, 4)]
    assert [len(step["earlier"]) for step in record["steps"]] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("sections", "requested", "message"),
    [
        ({}, [], "names no forget set"),
        ({}, ["first", "first"], "is named twice"),
        ({}, ["first", "nowhere.jsonl"], r"nowhere\.jsonl: no such file"),
        ({}, ["first", "alone"], r"alone\.jsonl: holds one example, and a variance needs two"),
        ({}, ["first", "retain"], r"tomas\.jsonl, line 1: is to be forgotten, but the retain set holds it too"),
        ({"start": {"file": "map.safetensors"}}, ["first"], r"start\.file: was measured for one forget set"),
        ({"evaluation": {"forget": "x.jsonl"}}, ["first"], r"evaluation\.forget: every step is evaluated on its own"),
        ({"evaluation": {"retain_only": "nowhere"}}, ["first"], "nowhere"),
        ({"evaluation": {"retain_only": "s.jsonl"}}, ["first", "second"], r"saved scores are of one forget set"),
        ({"adapter": {"rank": 64}}, ["first"], "rank"),
        ({"model": {"name": "no/such/model"}}, ["first"], "no such folder"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_is_written(
    taught: Taught, requests: Requests, tmp_path: Path, sections: dict, requested: list[str], message: str
) -> None:
    names = [getattr(requests, name, name) for name in requested]
    with pytest.raises(InputError, match=message):
        unlearn_sequence(settings_for(taught, requests, **sections), names, tmp_path / "seq", mode="sequential")
    assert not (tmp_path / "seq").exists()


def test_folder_in_use_is_refused(finished: Path, taught: Taught, requests: Requests, tmp_path: Path) -> None:
    settings = settings_for(taught, requests)

    def refuse(folder: Path, forget: list[str], message: str) -> None:
        with pytest.raises(InputError, match=message):
            unlearn_sequence(settings, forget, folder, mode="sequential")

    (tmp_path / "notes.txt").write_text("mine")
    refuse(tmp_path, requests.both, "not empty and not a sequence")
    refuse(tmp_path / "notes.txt", requests.both, "is a file")
    copy = Path(shutil.copytree(finished, tmp_path / "copy"))
    refuse(copy, requests.both[:1], "holds step-2, and this command names 1 forget sets")
    refuse(copy, requests.both[::-1], "holds another run")
