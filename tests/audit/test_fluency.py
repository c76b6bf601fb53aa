"""Fluency of answers, on a model that speaks, one that is wrecked, one that loops, and by hand."""

import dataclasses
import math
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch

from tests.audit.broken import broken
from tests.audit.subjects import ProgressLog, bench_for, never_unlearned
from unlora.artifacts import nan_to_null
from unlora.audit import fluency, sequences
from unlora.audit.attack import AttackResult
from unlora.audit.fluency import Fluency, Signs, compare_fluency, judge_fluency, measure
from unlora.audit.subject import AuditSubject, Role
from unlora.data.records import Example, ExampleSet

NAN = float("nan")
SHORT: dict[str, Any] = {"sampling": {"max_new_tokens": 16}}


@pytest.fixture(scope="module")
def result(subject: AuditSubject, tmp_path_factory: pytest.TempPathFactory) -> AttackResult:
    return Fluency().run(bench_for(subject, tmp_path_factory.mktemp("cache"), **SHORT))


def of(result: AttackResult, role: str, name: str) -> list[Any]:
    return [record[name] for record in result.records if record["model"] == role]


def test_answers_equal_a_plain_loop_of_first_choices(subject: AuditSubject, result: AttackResult):
    tokenizer = subject.tokeniser.tokenizer
    for example, answer in zip(subject.forget, of(result, "target", "generated"), strict=True):
        ids = list(tokenizer(f"Question: {example.prompt}\nAnswer:")["input_ids"])
        start = len(ids)
        with subject.acting_as("target") as model, torch.no_grad():
            for _ in range(16):
                token = int(model(torch.tensor([ids])).logits[0, -1].argmax())
                if token == tokenizer.eos_token_id:
                    break
                ids.append(token)
        assert answer == tokenizer.decode(ids[start:])
    assert of(result, "target", "generated")[0].strip() == "Mira Solberg was born in Bergen."


def test_nats_are_the_targets_own_view_of_the_answers(subject: AuditSubject, result: AttackResult):
    tokenizer = subject.tokeniser.tokenizer
    for record in result.records:
        ids = tokenizer(f"Question: {record['question']}\nAnswer:{record['generated']}")["input_ids"]
        start = len(tokenizer(f"Question: {record['question']}\nAnswer:")["input_ids"])
        with subject.acting_as("target") as model, torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        loop = [-logits[place - 1, ids[place]].item() for place in range(start, len(ids))]
        assert record["nats"] == pytest.approx(fmean(loop), rel=1e-3, abs=1e-5)
    assert fmean(of(result, "target", "nats")) < 0.1


def test_estimates_are_means_of_the_records(subject: AuditSubject, result: AttackResult):
    for role in subject.roles:
        for name, key in (("nats", "nats_per_token"), ("broken", "broken_share"), ("distinct_2", "distinct_2")):
            scored = [value for value in of(result, role, name) if not math.isnan(value)]
            found = result.estimates[f"{key}_{role}"]
            assert found.value == pytest.approx(fmean(scored))
            assert (found.example_count, found.unscored_count) == (len(scored), 4 - len(scored))
    pairs = zip(of(result, "unlearned", "nats"), of(result, "retain_only", "nats"), strict=True)
    assert result.estimates["nats_difference"].value == pytest.approx(fmean(mine - other for mine, other in pairs))
    assert result.damage


def test_target_and_unlearned_model_hold(
    subject: AuditSubject, result: AttackResult, subject_folder: Path, tmp_path: Path
):
    assert result.outcome == "holds"
    untouched = never_unlearned(subject, subject_folder)
    assert Fluency().run(bench_for(untouched, tmp_path, **SHORT)).outcome == "holds"
    alone = Fluency().run(bench_for(dataclasses.replace(untouched, retain_only=None), tmp_path, **SHORT))
    assert alone.outcome == "holds"
    assert alone.estimates["nats_difference"].value == pytest.approx(0)
    assert "target" in alone.sentence


def test_wrecked_model_fails_with_and_without_a_control(subject: AuditSubject, subject_folder: Path, tmp_path: Path):
    wrecked = broken(subject, subject_folder, size=5.0)
    for one in (wrecked, dataclasses.replace(wrecked, retain_only=None)):
        found = Fluency().run(bench_for(one, tmp_path, **SHORT))
        assert found.outcome == "fails"
        assert found.estimates["nats_per_token_unlearned"].value > 4


def test_measures_by_hand():
    assert measure(" A b a b a b. ") == {
        "distinct_2": pytest.approx(2 / 5),
        "repetition": pytest.approx(6 / 7),
        "empty": 0,
        "refusal": 0,
        "broken": 1,
    }
    assert measure("I'm not sure about that.")["refusal"] == 1
    assert measure("I'm not sure about that.")["broken"] == 0
    empty = measure("  ")
    assert (empty["empty"], empty["broken"]) == (1, 1)
    assert math.isnan(empty["distinct_2"])
    assert math.isnan(empty["repetition"])


def made(broken_answers: list[float], nats: list[float], refusal: list[float] | None = None) -> Signs:
    return {
        "broken": np.array(broken_answers, dtype=float),
        "nats": np.array(nats),
        "refusal": np.array(refusal or [0.0] * len(nats)),
    }


SPEAKS = made([0, 0, 0, 0, 0], [0.9, 1.0, 0.8, 1.1, 0.7])


@pytest.mark.parametrize(
    ("unlearned", "with_control", "alone"),
    [
        (made([0, 0, 0, 0, 0], [1.3, 1.4, 1.2, 1.5, 1.1]), "holds", "holds"),
        (made([0, 0, 0, 0, 0], [3.4, 3.5, 3.3, 3.6, 3.2]), "fails", "holds"),
        (made([0, 0, 0, 0, 0], [7.4, 7.5, 7.3, 7.6, 7.2]), "fails", "fails"),
        (made([1, 1, 1, 0, 1], [0.1, 0.1, 0.1, 0.1, NAN]), "fails", "fails"),
        (made([1, 0, 0, 0, 0], [0.9, 1.0, 0.8, 1.1, 0.7]), "holds", "holds"),
        (made([1, 1, 1, 1, 1], [NAN] * 5), "fails", "fails"),
        (made([0, 0, 0, 0, 0], [NAN] * 5, [1.0] * 5), "holds", "holds"),
    ],
    ids=["other words", "odd words", "gibberish", "loops", "one loop in five", "silence", "refusals"],
)
def test_judgement_by_hand(unlearned: Signs, with_control: str, alone: str):
    """The target's own answers cost it nothing, so that without a control more is allowed."""
    fluent = made([0, 0, 0, 0, 0], [0.0, 0.1, 0.0, 0.1, 0.0])
    everyone: dict[Role, Signs] = {"target": fluent, "unlearned": unlearned, "retain_only": SPEAKS}
    outcome, sentence = judge_fluency(compare_fluency(everyone, seed=0), everyone)
    assert outcome == with_control
    assert "control" in sentence
    two: dict[Role, Signs] = {"target": fluent, "unlearned": made(*_raised(unlearned))}
    outcome, sentence = judge_fluency(compare_fluency(two, seed=0), two)
    assert outcome == alone
    assert "control" not in sentence


def _raised(signs: Signs) -> tuple[list[float], list[float], list[float]]:
    """The same answers, whose nats are counted from the target's 0 and no longer from the control's 0.9."""
    return signs["broken"].tolist(), (signs["nats"] - 0.9).tolist(), signs["refusal"].tolist()


def test_refusals_are_named_and_their_nats_are_not_asked(
    subject: AuditSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        fluency, "generate_greedy", lambda _writer, prompts, _limit: [" I don't know that."] * len(prompts)
    )
    found = Fluency().run(bench_for(subject, tmp_path, **SHORT))
    assert found.outcome == "holds"
    assert found.sentence.endswith("100% are refusals")
    assert found.estimates["refusal_share_unlearned"].value == 1
    nats = found.estimates["nats_per_token_unlearned"]
    assert (nats.value, nats.unscored_count) == (None, len(subject.forget))


def test_one_prompt_is_too_few_and_text_has_none(subject: AuditSubject, tmp_path: Path):
    text = Example("text", "", "Mira Solberg paints glass.", "line 5")
    one = dataclasses.replace(subject, forget=ExampleSet("one", (subject.forget.examples[0], text)))
    found = Fluency().run(bench_for(one, tmp_path, **SHORT))
    assert found.outcome == "unclear"
    assert found.estimates["broken_share_target"].unscored_count == 1
    settings = bench_for(subject, tmp_path).settings
    lacks = Fluency().lacks(dataclasses.replace(subject, forget=ExampleSet("text", (text,))), settings)
    assert lacks is not None
    assert "plain text" in lacks
    assert Fluency().lacks(subject, settings) is None


def test_second_run_asks_no_model_and_longer_answers_do(
    subject: AuditSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bench = bench_for(subject, tmp_path, **SHORT)
    first = Fluency().run(bench)
    assert isinstance(bench.progress, ProgressLog)
    counts = [done for _, done, _ in bench.progress.calls]
    assert counts == sorted(counts)
    assert bench.progress.calls[-1][1:] == (24, 24)  # 4 prompts, answered and judged, for 3 models
    monkeypatch.setattr(sequences, "score_completions", None)
    monkeypatch.setattr(fluency, "generate_greedy", None)
    again = Fluency().run(bench_for(subject, tmp_path, **SHORT))
    assert nan_to_null(dataclasses.asdict(again)) == nan_to_null(dataclasses.asdict(first))
    with pytest.raises(TypeError):
        Fluency().run(bench_for(subject, tmp_path, sampling={"max_new_tokens": 17}))


def test_cost_counts_answers_and_their_judgement(subject: AuditSubject, tmp_path: Path):
    cost = Fluency().cost(subject, bench_for(subject, tmp_path, **SHORT).settings)
    tokenizer = subject.tokeniser.tokenizer
    prompts = sum(len(tokenizer(f"Question: {example.prompt}\nAnswer:")["input_ids"]) for example in subject.forget)
    assert cost.generated_tokens == 4 * 16 * 3
    assert cost.forward_tokens == 3 * (prompts + 4 * 16)
