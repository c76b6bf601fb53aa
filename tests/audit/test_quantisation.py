"""Rounding: knowledge that it brings back is found, nothing is found where there is nothing, all against a control."""

import dataclasses
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import fmean

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from tests.adapters.test_export import trained
from tests.audit.hidden import hidden_knowledge, on_nf4_levels
from tests.audit.subjects import bench_for, never_taught, subject_of
from tests.taught import PAD, Taught
from tests.tiny import build_tiny_model
from unlora.audit import quantisation
from unlora.audit.attack import AttackResult
from unlora.audit.quantisation import Quantisation
from unlora.audit.rounding import save_merged
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject
from unlora.errors import UnloraError
from unlora.models.fingerprint import fingerprint
from unlora.models.score import score_completions
from unlora.models.target_modules import find_target_modules

pytest.importorskip("bitsandbytes")


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One memory for the tests of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def hidden(subject: AuditSubject, subject_folder: Path) -> AuditSubject:
    """A subject whose knowledge 4-bit rounding brings back."""
    taught = Taught(subject_folder / "target", subject_folder / "forget.jsonl", subject_folder / "retain.jsonl")
    return subject_of(hidden_knowledge(taught), subject.retain_only, subject.tokeniser.tokenizer, subject_folder)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def found(hidden: AuditSubject, cache: Path) -> AttackResult:
    """The attack on it."""
    return Quantisation().run(bench_for(hidden, cache))


def value(result: AttackResult, name: str) -> float:
    found = result.estimates[name].value
    assert found is not None
    return found


def test_share_that_was_rounded_is_said_where_it_is_not_all(
    found: AttackResult, hidden: AuditSubject, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    """`test_share_in_linear_layers_is_what_bitsandbytes_rounds` checks the share itself."""
    assert "bitsandbytes rounds" not in found.sentence
    monkeypatch.setattr(quantisation, "linear_share", lambda _model: 0.111)
    again = Quantisation().run(bench_for(hidden, cache))
    assert again.sentence.endswith(
        "; bitsandbytes rounds 11% of the weights, those in linear layers, and the others stay as they are"
    )


def test_knowledge_that_rounding_brings_back_is_found(found: AttackResult):
    assert value(found, "as_shipped_forget_probability_unlearned") < 0.6
    assert value(found, "nf4_forget_probability_unlearned") > 0.9
    assert value(found, "nf4_recovery") > 0.8
    assert abs(value(found, "nf4_control")) < 0.05
    assert value(found, "int8_recovery") < 0.1  # its steps are finer than what hides the knowledge
    assert found.outcome == "fails"
    assert not found.damage
    assert found.sentence.startswith("int8 brings back ")
    assert "nf4 brings back " in found.sentence
    assert "(control " in found.sentence
    assert found.tested == "4 forget examples, 8 to keep, merged and rounded to int8, nf4"


def test_recovery_is_the_share_of_what_was_taken_beyond_the_control(found: AttackResult, hidden: AuditSubject):
    """The arithmetic again, from the records."""
    rows = [record for record in found.records if record["set"] == "forget"]
    before, after, control_before, control_after = (
        np.array([row["probability"] for row in rows if (row["model"], row["format"]) == which])
        for which in (
            ("unlearned", "as_shipped"),
            ("unlearned", "nf4"),
            ("retain_only", "as_shipped"),
            ("retain_only", "nf4"),
        )
    )
    taken = fmean(probabilities(hidden, "target")) - before.mean()
    assert value(found, "nf4_recovery") == pytest.approx((after.mean() - before.mean()) / taken)
    assert value(found, "nf4_control") == pytest.approx((control_after.mean() - control_before.mean()) / taken)
    excess = found.estimates["nf4_excess"]
    assert excess.value == pytest.approx(((after - before) - (control_after - control_before)).mean() / taken)
    assert excess.low is not None
    assert excess.high is not None
    assert 0 < excess.low <= excess.value <= excess.high
    assert before == pytest.approx(probabilities(hidden, "unlearned"))


def probabilities(subject: AuditSubject, role: str) -> list[float]:
    tokens = [(one.input_ids, one.prompt_length) for one in subject.tokeniser.encode_set(subject.forget)]
    with subject.acting_as(role) as model:  # type: ignore[arg-type]
        return [score.probability for score in score_completions(model, tokens, pad_token_id=PAD)]


def test_numbers_of_a_format_are_those_of_plain_transformers(found: AttackResult, hidden: AuditSubject, tmp_path: Path):
    """Merge and round by hand: W + B A in nf4 levels, in an ordinary model."""
    save_merged(hidden.model, hidden.tokeniser.tokenizer, tmp_path / "merged")
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "merged")
    for target in find_target_modules(plain).values():
        target.module.get_parameter("weight").data = on_nf4_levels(target.weight())
    tokens = [(one.input_ids, one.prompt_length) for one in hidden.tokeniser.encode_set(hidden.forget)]
    expected = [score.probability for score in score_completions(plain, tokens, pad_token_id=PAD)]
    rows = [row for row in found.records if (row["model"], row["format"], row["set"]) == ("unlearned", "nf4", "forget")]
    assert [row["probability"] for row in rows] == pytest.approx(expected, rel=0.01)


def test_estimates_and_records_name_model_and_format(found: AttackResult):
    for form in ("as_shipped", "int8", "nf4"):
        for name in ("forget_probability", "extraction_strength", "retain_probability"):
            for role in ("unlearned", "retain_only"):
                assert found.estimates[f"{form}_{name}_{role}"].example_count in (4, 8)
    assert {"int8_retain_change_unlearned", "nf4_retain_change_retain_only"} <= set(found.estimates)
    assert len(found.records) == 2 * 3 * (4 + 8)
    json.dumps(found.records, allow_nan=False)


def test_second_run_loads_and_scores_nothing(
    found: AttackResult, hidden: AuditSubject, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("cached work was done again")

    for name in ("rounded", "save_merged", "measure_forget_set", "score_set"):
        monkeypatch.setattr(quantisation, name, fail)
    bench = bench_for(hidden, cache)
    again = Quantisation().run(bench)
    assert again == found
    done = [(done, total) for _, done, total in bench.progress.calls]  # type: ignore[attr-defined]
    assert done == sorted(done)
    assert done[-1] == (6, 6)


def test_nothing_comes_back_to_a_model_that_never_knew(subject: AuditSubject, subject_folder: Path, cache: Path):
    """The control's weights in every role but the target's: rounding teaches neither anything."""
    nothing = never_taught(subject, subject_folder)
    result = Quantisation().run(bench_for(nothing, cache))
    assert result.outcome == "unclear"  # nor was anything taken from it
    assert "nothing was forgotten" in result.sentence


def test_adapter_that_moved_the_weights_far_holds(subject: AuditSubject, cache: Path):
    before = fingerprint(subject.model)
    result = Quantisation().run(bench_for(subject, cache))
    assert result.outcome == "holds"
    assert fingerprint(subject.model) == before
    assert list(subject.scratch.iterdir()) == []


def test_without_control_it_cannot_be_told(hidden: AuditSubject, cache: Path):
    alone = dataclasses.replace(hidden, retain_only=None, retain=None)
    result = Quantisation().run(bench_for(alone, cache, quantisation={"formats": ["nf4"]}))
    assert result.outcome == "unclear"
    assert "no control" in result.sentence
    assert not [name for name in result.estimates if "retain" in name]
    assert {record["model"] for record in result.records} == {"unlearned"}


def test_damage_to_what_is_to_stay_is_said(subject: AuditSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A rounded model that has lost everything."""
    broken = build_tiny_model("llama", seed=5, vocab_size=len(subject.tokeniser.tokenizer), hidden=64)
    replace_rounded(monkeypatch, lambda: broken)
    result = Quantisation().run(bench_for(subject, tmp_path, quantisation={"formats": ["int8"]}))
    assert "what is to stay falls from 1.00 to 0.0" in result.sentence
    assert value(result, "int8_retain_change_unlearned") < -0.9


def test_numbers_that_are_none_are_unscored_and_counted(
    subject: AuditSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """float16 can overflow inside LLM.int8: then no example gives a number, and that is no success."""
    broken = build_tiny_model("llama", vocab_size=len(subject.tokeniser.tokenizer), hidden=64)
    with torch.no_grad():
        broken.get_parameter("model.norm.weight").fill_(float("nan"))
    replace_rounded(monkeypatch, lambda: broken)
    result = Quantisation().run(bench_for(subject, tmp_path, quantisation={"formats": ["int8"]}))
    assert result.outcome == "unclear"
    assert result.estimates["int8_forget_probability_unlearned"].value is None
    assert result.estimates["int8_forget_probability_unlearned"].unscored_count == 4
    assert result.estimates["int8_excess"].unscored_count == 4


def replace_rounded(monkeypatch: pytest.MonkeyPatch, build: Callable[[], PreTrainedModel]) -> None:
    monkeypatch.setattr(quantisation, "rounded", lambda *_, **__: nullcontext(build()))


def test_failure_leaves_no_folder(subject: AuditSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def fail(*_: object, **__: object) -> None:
        raise UnloraError("int8: no memory")

    monkeypatch.setattr(quantisation, "rounded", fail)
    with pytest.raises(UnloraError, match="no memory"):
        Quantisation().run(bench_for(subject, tmp_path))
    assert list(subject.scratch.iterdir()) == []


def test_what_it_lacks_is_said(subject: AuditSubject, monkeypatch: pytest.MonkeyPatch):
    settings = AuditSettings()
    assert Quantisation().lacks(subject, settings) is None
    narrow = dataclasses.replace(subject, model=trained("llama"))
    assert "formats=[int8]" in (Quantisation().lacks(narrow, settings) or "")
    only_int8 = AuditSettings.from_mapping({"quantisation": {"formats": ["int8"]}})
    assert Quantisation().lacks(narrow, only_int8) is None
    monkeypatch.setattr(quantisation, "has_bitsandbytes", lambda: False)
    assert Quantisation().lacks(subject, settings) == 'needs bitsandbytes: pip install "unlora[quantisation]"'


def test_cost_counts_formats_models_and_files(subject: AuditSubject):
    """Forget and retain set as they are and in two formats, by two models; three passes over the files of each."""
    tokens = sum(len(one.input_ids) for one in subject.tokeniser.encode_set([*subject.forget, *subject.retain]))  # type: ignore[misc]
    cost = Quantisation().cost(subject, AuditSettings())
    assert cost.forward_tokens == 2 * 3 * tokens
    assert cost.fixed_seconds > 0
    alone = Quantisation().cost(dataclasses.replace(subject, retain_only=None), AuditSettings())
    assert alone.forward_tokens == 3 * tokens
    assert alone.fixed_seconds == pytest.approx(cost.fixed_seconds / 2)
