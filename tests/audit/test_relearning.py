"""Relearning on models that really forgot, never knew, or only pretend."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.audit.own_attackers import ALL, EVERY_WEIGHT, FEW, RUINOUS, UNRELATED
from tests.audit.subjects import bench_for, never_taught, never_unlearned
from unlora.audit.course import measured_steps
from unlora.audit.lessons import draw_lesson
from unlora.audit.relearning import Relearning
from unlora.audit.settings import AuditSettings, RelearningSettings
from unlora.audit.subject import AuditSubject
from unlora.data.records import Example, ExampleSet
from unlora.errors import TrainingDivergedError
from unlora.metrics import extraction_strength
from unlora.models.fingerprint import fingerprint
from unlora.models.score import score_completions

THREE = [FEW, UNRELATED, ALL]
QUICK = {"steps": 4, "measure_every": 2, "fraction": 0.25, "attackers": [FEW]}


def test_unlearned_model_is_attacked_beside_its_control(subject: AuditSubject, tmp_path: Path) -> None:
    weights = fingerprint(subject.model), fingerprint(subject.retain_only)  # type: ignore[arg-type]
    bench = bench_for(subject, tmp_path, relearning=QUICK | {"attackers": THREE})
    result = Relearning().run(bench)
    assert (fingerprint(subject.model), fingerprint(subject.retain_only)) == weights  # type: ignore[arg-type]
    assert {curve.panel for curve in result.curves[:6]} == set(THREE)
    assert all(curve.x == (0.0, 2.0, 4.0) and curve.y[0] == 0.0 for curve in result.curves[:6])
    assert {curve.label for curve in result.curves[6:]} == {"unlearned", "control", "target"}
    assert result.estimates[f"{FEW}_excess"].example_count == 3
    excesses = {name: result.estimates[f"{name}_excess"] for name in THREE}
    assert result.estimates["worst_excess"] == max(excesses.values(), key=lambda one: one.value or 0.0)
    assert result.attackers == tuple(THREE)
    assert all(name in result.tested for name in THREE)
    assert {"agreement_unlearned", "agreement_retain_only", "agreement_difference"} <= set(result.estimates)
    # Three variants, two models, four examples; what was trained on is marked.
    assert len(result.records) == 3 * 2 * 4
    few = [record for record in result.records if record["attacker"] == FEW and record["model"] == "unlearned"]
    assert sum(not record["tested"] for record in few) == 1
    # The attack teaches: with the whole forget set both models know more than before.
    assert result.estimates[f"{ALL}_recovery"].value > 0.2  # type: ignore[operator]
    assert result.estimates[f"{ALL}_control"].value > 0  # type: ignore[operator]


def test_step_zero_is_the_model_before_the_attack(subject: AuditSubject, tmp_path: Path) -> None:
    result = Relearning().run(bench_for(subject, tmp_path, relearning=QUICK))
    tokens = subject.tokeniser.encode_set(subject.forget)
    for role in ("unlearned", "retain_only"):
        with subject.acting_as(role) as model:
            scores = [
                score_completions(model, [(one.input_ids, one.prompt_length)], pad_token_id=1)[0] for one in tokens
            ]
        records = [record for record in result.records if record["model"] == role]
        assert [one["probability"][0] for one in records] == pytest.approx(
            [one.probability for one in scores], abs=1e-5
        )
        strengths = [extraction_strength(one.argmax_match) for one in scores]
        assert [one["extraction_strength"][0] for one in records] == pytest.approx(strengths)


def test_a_model_that_never_knew_shows_nothing_beyond_the_control(
    subject: AuditSubject, subject_folder: Path, tmp_path: Path
) -> None:
    # The "unlearned" model is the control itself: the attack is the same, so the excess is zero to rounding.
    knew_nothing = never_taught(subject, subject_folder)
    knew_nothing = dataclasses.replace(knew_nothing, hashes={**knew_nothing.hashes, "target": "the model that knows"})
    knows = never_unlearned(subject, subject_folder)
    bench = bench_for(knew_nothing, tmp_path, relearning=QUICK | {"attackers": [FEW, ALL]})
    with knows.acting_as("target") as target:  # what there was to take away
        known = {"probability": [], "extraction_strength": []}
        for one in knows.tokeniser.encode_set(knows.forget):
            score = score_completions(target, [(one.input_ids, one.prompt_length)], pad_token_id=1)[0]
            known["probability"].append(score.probability)
            known["extraction_strength"].append(extraction_strength(score.argmax_match))
    bench.once("forget-likelihoods", "target", {}, lambda: known)
    result = Relearning().run(bench)
    assert result.outcome == "holds"
    for name in (FEW, ALL):
        assert result.estimates[f"{name}_excess"].value == pytest.approx(0, abs=1e-3)
    assert result.estimates[f"{ALL}_recovery"].value > 0  # type: ignore[operator]


def test_without_control_it_cannot_be_told(subject: AuditSubject, tmp_path: Path) -> None:
    alone = dataclasses.replace(subject, retain_only=None)
    result = Relearning().run(bench_for(alone, tmp_path, relearning=QUICK | {"attackers": [ALL]}))
    assert result.outcome == "unclear"
    assert "no control" in result.sentence
    assert f"{ALL}_control" not in result.estimates


def test_same_seed_same_course_and_a_second_run_trains_nothing(
    subject: AuditSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = QUICK
    first = Relearning().run(bench_for(subject, tmp_path / "one", relearning=settings))
    torch.manual_seed(123)  # the course must not depend on the state of the global generator
    second = Relearning().run(bench_for(subject, tmp_path / "two", relearning=settings))
    assert second.records == first.records
    monkeypatch.setattr("unlora.audit.course.FineTuneTrainer", None)
    assert Relearning().run(bench_for(subject, tmp_path / "one", relearning=settings)) == first


def test_seeds_draw_other_examples(subject: AuditSubject, tmp_path: Path) -> None:
    bench = bench_for(subject, tmp_path, relearning=QUICK | {"seeds": [0, 1, 2], "steps": 1})
    result = Relearning().run(bench)
    taught = {(one["seed"], one["question"]) for one in result.records if not one["tested"]}
    assert len({question for _, question in taught}) > 1
    assert result.estimates[f"{FEW}_excess"].example_count == 4  # tested in one seed or the other


def test_cost_counts_every_step_and_model(subject: AuditSubject) -> None:
    chosen = {"steps": 10, "measure_every": 4, "batch_size": 2, "attackers": THREE}
    settings = AuditSettings.from_mapping({"relearning": chosen})
    cost = Relearning().cost(subject, settings)
    length, count = subject.mean_length(subject.forget), len(subject.forget)
    assert measured_steps(settings.relearning) == [0, 4, 8, 10]
    assert cost.training_tokens == pytest.approx(2 * (3 * 10 * 2 + count) * length, rel=0.01)
    assert cost.forward_tokens == pytest.approx((3 * 2 * 3 + 3) * count * length, rel=0.01)
    assert measured_steps(RelearningSettings(steps=3, measure_every=5)) == [0, 3]


def test_a_rate_that_ruins_every_attack_gets_advice_and_one_of_several_is_named(
    subject: AuditSubject, tmp_path: Path
) -> None:
    ruinous = QUICK | {"attackers": [RUINOUS], "steps": 1}
    with pytest.raises(TrainingDivergedError, match=r"The attacker's learning rate .* relearning\.attackers"):
        Relearning().run(bench_for(subject, tmp_path, relearning=ruinous))
    both = Relearning().run(bench_for(subject, tmp_path, relearning=ruinous | {"attackers": [RUINOUS, EVERY_WEIGHT]}))
    assert f"not tried: {RUINOUS} (its training diverged)" in both.tested
    assert both.attackers == (EVERY_WEIGHT,)


def test_without_retain_records_an_attacker_that_learns_from_them_is_left_out_and_said(subject: AuditSubject) -> None:
    settings = AuditSettings.from_mapping({"relearning": {"attackers": ["lora_5e-4_retain"]}})
    assert Relearning().lacks(subject, settings) is None
    alone = dataclasses.replace(subject, retain=None)
    assert Relearning().lacks(alone, settings) == "lora_5e-4_retain: there are no retain records"


def test_attackers_known_to_the_training_do_not_count(subject: AuditSubject, tmp_path: Path) -> None:
    bench = bench_for(subject, tmp_path, relearning=QUICK | {"steps": 1}, known_attackers=[FEW])
    result = Relearning().run(bench)
    assert result.outcome == "unclear"
    assert result.attackers == ()
    assert f"known to the training, so not counted: {FEW}" in result.tested


def test_one_example_is_too_few(subject: AuditSubject) -> None:
    one = dataclasses.replace(subject, forget=subject.forget.select(1))
    assert "two forget examples" in (Relearning().lacks(one, AuditSettings()) or "")
    assert Relearning().lacks(subject, AuditSettings()) is None


def test_people_stay_on_one_side_where_that_is_asked_for() -> None:
    forget = ExampleSet(
        "forget",
        tuple(Example("question_answer", f"q{n}", f"a{n}", f"line {n}", person=f"p{n % 5}") for n in range(20)),
    )
    for seed in range(5):
        lesson = draw_lesson("few", forget, None, fraction=0.4, seed=seed, apart="people")
        taught = {one.person for one in lesson.examples}
        tested = {forget.examples[place].person for place in lesson.tested}
        assert (len(taught), len(tested), taught & tested) == (2, 3, set())
        assert len(lesson.examples) + len(lesson.tested) == 20


def test_an_attacker_of_people_is_left_out_where_there_is_one_person(subject: AuditSubject) -> None:
    settings = AuditSettings.from_mapping({"relearning": {"attackers": ["lora_5e-4_few"], "apart": "people"}})
    assert "holds 1 of different people; a split needs two at least" in str(Relearning().lacks(subject, settings))
    assert Relearning().lacks(subject, AuditSettings()) is None
