"""What is kept in every band, on a model that keeps, one that is wrecked, and by hand."""

import dataclasses
from pathlib import Path
from statistics import fmean

import pytest
import torch

from tests.audit.broken import broken
from tests.audit.subjects import ProgressLog, bench_for, never_unlearned
from unlora.audit import sequences
from unlora.audit.attack import AttackResult, Estimate
from unlora.audit.neighbours import Neighbours, judge_neighbours
from unlora.audit.subject import AuditSubject
from unlora.data.records import Example, ExampleSet


@pytest.fixture(scope="module")
def result(subject: AuditSubject, tmp_path_factory: pytest.TempPathFactory) -> AttackResult:
    return Neighbours().run(bench_for(subject, tmp_path_factory.mktemp("cache")))


def band(kept: tuple[float, float, float], *, known: float = 0.8, count: int = 20) -> dict[str, Estimate]:
    return {
        "kept": Estimate(*kept, example_count=count),
        "probability_target": Estimate(known, example_count=count),
    }


def test_probabilities_equal_a_loop_over_single_sequences(subject: AuditSubject, result: AttackResult):
    retain = {example.prompt: example for example in subject.retain or ()}
    records = [one for one in result.records if one["question"] in retain and one["model"] == "unlearned"]
    assert len(records) == len(retain)
    for record in records:
        encoded = subject.tokeniser.encode(retain[record["question"]])
        with torch.no_grad():
            logits = subject.model(torch.tensor([encoded.input_ids])).logits[0].log_softmax(-1)
        places = range(encoded.prompt_length, len(encoded.input_ids))
        log_probs = [logits[place - 1, encoded.input_ids[place]].item() for place in places]
        assert record["probability"] == pytest.approx(torch.tensor(fmean(log_probs)).exp().item(), rel=1e-4)


def test_kept_is_a_ratio_of_means_band_by_band(result: AttackResult):
    for name in ("same_person", "near", "middle", "far", "far_knowledge"):
        means = {
            role: fmean(
                record["probability"] for record in result.records if (record["model"], record["band"]) == (role, name)
            )
            for role in ("target", "unlearned", "retain_only")
        }
        for role, mean in means.items():
            assert result.estimates[f"{name}_probability_{role}"].value == pytest.approx(mean)
        kept = result.estimates[f"{name}_kept"]
        assert kept.value == pytest.approx(means["unlearned"] / means["target"])
        assert kept.low is not None
        assert kept.high is not None
        assert kept.low <= kept.value <= kept.high


def test_small_and_unknown_bands_are_reported_and_not_judged(subject: AuditSubject, result: AttackResult):
    """Two records about the same person, at most four a third, and a tiny target that knows nothing of the world."""
    assert (result.outcome, result.damage) == ("unclear", True)
    assert result.estimates["far_knowledge_probability_target"].value < 0.05
    assert result.estimates["same_person_kept"].value is not None
    assert result.tested.startswith("2 the same people, ")
    assert "40 general knowledge" in result.tested


def with_verbatim_twins(subject: AuditSubject) -> AuditSubject:
    """Every retain record a second time as a verbatim prompt, which gives the same tokens: enough to judge."""
    twins = [
        Example("prompt_completion", f"Question: {one.prompt}\nAnswer:", f" {one.completion}", f"twin of {one.source}")
        for one in subject.retain or ()
    ]
    return dataclasses.replace(subject, retain=ExampleSet("twice", (*(subject.retain or ()), *twins)))


def test_over_forgetting_fails_and_the_untouched_target_holds(
    subject: AuditSubject, subject_folder: Path, tmp_path: Path
):
    wrecked = with_verbatim_twins(broken(subject, subject_folder, size=5.0))
    found = Neighbours().run(bench_for(wrecked, tmp_path))
    assert found.outcome == "fails"
    kept = [found.estimates[f"{name}_kept"] for name in ("near", "middle", "far")]
    assert max(one.example_count for one in kept) >= 5
    assert all(one.high is not None and one.high < 0.9 for one in kept)
    untouched = with_verbatim_twins(never_unlearned(subject, subject_folder))
    held = Neighbours().run(bench_for(untouched, tmp_path))
    assert held.outcome == "holds"
    assert {held.estimates[f"{name}_kept"].value for name in ("near", "middle", "far", "far_knowledge")} == {1.0}


@pytest.mark.parametrize(
    ("found", "outcome", "least"),
    [
        ({"near": band((0.8, 0.7, 0.89)), "far": band((1.0, 0.99, 1.01))}, "fails", "near neighbours: 80%"),
        ({"near": band((0.8, 0.7, 0.91)), "far": band((1.0, 0.99, 1.01))}, "holds", "near neighbours: 80%"),
        ({"near": band((0.7, 0.4, 0.95)), "far": band((0.8, 0.7, 0.85))}, "fails", "near neighbours: 70%"),
        ({"near": band((0.2, 0.1, 0.3), known=0.04), "far": band((1.0, 0.9, 1.1))}, "holds", "far neighbours: 100%"),
    ],
    ids=["interval below", "interval reaches", "damage is not the least kept", "hardly known"],
)
def test_judgement_by_hand(found: dict[str, dict[str, Estimate]], outcome: str, least: str):
    judged, sentence = judge_neighbours(found)
    assert judged == outcome
    assert f"least is kept of {least}" in sentence


def test_nothing_to_judge_is_unclear():
    few, unknown = band((0.1, 0.1, 0.1), count=4), band((0.1, 0.1, 0.1), known=0.01)
    assert judge_neighbours({"near": few, "far": unknown})[0] == "unclear"
    assert judge_neighbours({"near": few, "far": band((0.1, 0.1, 0.1), count=5)})[0] == "fails"


def test_failing_bands_are_named():
    sentence = judge_neighbours({"near": band((0.6, 0.5, 0.7)), "far": band((0.95, 0.9, 1.0))})[1]
    assert sentence == (
        "least is kept of near neighbours: 60% of the target's answer probability (50% to 70%, 20 examples); "
        "far neighbours 95%"
    )


def test_runs_without_control_and_without_retain_set(subject: AuditSubject, tmp_path: Path):
    alone = dataclasses.replace(subject, retain_only=None, retain=None, same_person=None)
    found = Neighbours().run(bench_for(alone, tmp_path))
    assert found.outcome == "unclear"
    assert set(found.estimates) == {
        f"far_knowledge_{name}" for name in ("kept", "probability_target", "probability_unlearned")
    }
    assert Neighbours().lacks(alone, bench_for(alone, tmp_path).settings) is None


def test_second_run_asks_no_model_and_other_examples_do(
    subject: AuditSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    bench = bench_for(subject, tmp_path, max_examples=4)
    first = Neighbours().run(bench)
    assert isinstance(bench.progress, ProgressLog)
    count = len(first.records)
    assert bench.progress.calls[-1] == ("neighbours on retain_only", count, count)
    monkeypatch.setattr(sequences, "score_completions", None)
    assert Neighbours().run(bench_for(subject, tmp_path, max_examples=4)) == first
    with pytest.raises(TypeError):
        Neighbours().run(bench_for(subject, tmp_path, max_examples=5))


def test_cost_counts_every_token_of_every_role(subject: AuditSubject, result: AttackResult, tmp_path: Path):
    tokenizer = subject.tokeniser.tokenizer
    tokens = sum(
        len(tokenizer(f"Question: {record['question']}\nAnswer: {record['answer']}<|end|>")["input_ids"])
        for record in result.records
    )
    assert Neighbours().cost(subject, bench_for(subject, tmp_path).settings).forward_tokens == tokens
