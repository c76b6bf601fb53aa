"""Membership: every score against a plain loop, both directions of the verdict, and what is not repeated."""

import dataclasses
import json
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.audit import subjects
from tests.audit.subjects import never_taught, never_unlearned
from unlora.audit import membership, membership_scores
from unlora.audit.attack import AttackResult
from unlora.audit.bench import Workbench
from unlora.audit.membership import Membership, compare_membership
from unlora.audit.settings import AuditSettings
from unlora.audit.subject import AuditSubject
from unlora.data.records import Example, ExampleSet
from unlora.errors import InputError
from unlora.metrics.membership_verdict import membership_difference
from unlora.models.load import load_model
from unlora.models.target_modules import find_target_modules

NAMES = ("loss", "zlib", "min_k", "min_k_plus_plus", "reference", "gradient_norm")

ALL_SIX = AuditSettings.from_mapping({"membership": {"gradient_norm": True}})
"""Gradient norms are off by default: they take most of the time."""


def bench_for(subject: AuditSubject, cache: Path, **sections: Any) -> Workbench:
    """A workbench on which all six attacks are made unless `sections` say otherwise."""
    chosen = {"gradient_norm": True} | sections.pop("membership", {})
    return subjects.bench_for(subject, cache, membership=chosen, **sections)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One memory for the tests of this file."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def found(subject: AuditSubject, cache: Path) -> AttackResult:
    """All six attacks on the unlearned model."""
    return Membership().run(bench_for(subject, cache))


def value(result: AttackResult, name: str) -> float:
    found = result.estimates[name].value
    assert found is not None
    return found


def column(result: AttackResult, role: str, name: str, *, member: bool) -> list[float]:
    return [record[name] for record in result.records if record["model"] == role and record["member"] == member]


@torch.no_grad()
def token_log_probs(model: Any, tokens: tuple[int, ...], start: int) -> torch.Tensor:
    """Whole distributions at the places of the completion's tokens."""
    return model(input_ids=torch.tensor([tokens])).logits[0, start - 1 : -1].log_softmax(-1)


def test_scores_equal_a_plain_loop(found: AttackResult, subject: AuditSubject, subject_folder: Path):
    """The control, because it is a plain model; Min-K% of a fraction of 0.4."""
    base = load_model(str(subject_folder / "base"), device=torch.device("cpu")).model
    examples = [*subject.forget, *subject.holdout]  # type: ignore[misc]
    records = [record for record in found.records if record["model"] == "retain_only"]
    for example, record in zip(examples, records, strict=True):
        one = subject.tokeniser.encode(example)
        distributions = token_log_probs(subject.retain_only, one.input_ids, one.prompt_length)
        chosen = [
            float(row[token]) for row, token in zip(distributions, one.input_ids[one.prompt_length :], strict=True)
        ]
        lowest = max(1, math.floor(0.4 * len(chosen)))
        mean = sum(chosen) / len(chosen)
        assert record["loss"] == pytest.approx(mean, abs=1e-4)
        assert record["zlib"] == pytest.approx(mean / len(zlib.compress(example.completion.encode())), abs=1e-5)
        assert record["min_k"] == pytest.approx(sum(sorted(chosen)[:lowest]) / lowest, abs=1e-4)
        standardised = []
        for row, log_prob in zip(distributions, chosen, strict=True):
            centre = float((row.exp() * row).sum())
            spread = math.sqrt(float((row.exp() * (row - centre) ** 2).sum()))
            standardised.append((log_prob - centre) / max(spread, 1e-3))
        assert record["min_k_plus_plus"] == pytest.approx(
            sum(sorted(standardised)[:lowest]) / lowest, rel=1e-3, abs=1e-3
        )
        theirs = token_log_probs(base, one.input_ids, one.prompt_length)
        there = [float(row[token]) for row, token in zip(theirs, one.input_ids[one.prompt_length :], strict=True)]
        assert record["reference"] == pytest.approx(mean - sum(there) / len(there), abs=1e-4)
        assert (record["source"], record["question"]) == (example.source, example.prompt)


def test_gradient_norm_is_that_of_the_mean_loss(found: AttackResult, subject: AuditSubject):
    model = subject.retain_only
    assert model is not None
    one = subject.tokeniser.encode(subject.forget.examples[0])
    weights = [target.module.get_parameter("weight") for target in find_target_modules(model).values()]
    for weight in weights:
        weight.requires_grad_(True)
    logits = model(input_ids=torch.tensor([one.input_ids])).logits[0, one.prompt_length - 1 : -1]
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor(one.input_ids[one.prompt_length :]))
    gradients = torch.autograd.grad(loss, weights)
    model.requires_grad_(False)
    norm = math.sqrt(sum(float(gradient.square().sum()) for gradient in gradients))
    assert column(found, "retain_only", "gradient_norm", member=True)[0] == pytest.approx(-norm, rel=1e-4)


@pytest.mark.parametrize("role", ["target", "unlearned", "retain_only"])
def test_auc_counts_pairs(found: AttackResult, role: str):
    for name in NAMES:
        members, others = (column(found, role, name, member=member) for member in (True, False))
        assert (len(members), len(others)) == (4, 8)
        pairs = [(member > other) + 0.5 * (member == other) for member in members for other in others]
        auc = found.estimates[f"{name}_auc_{role}"]
        assert auc.value == pytest.approx(sum(pairs) / 32)
        assert auc.low is not None
        assert auc.high is not None
        assert auc.low <= auc.value <= auc.high
        assert auc.example_count == 12
        rate = found.estimates[f"{name}_tpr_at_1_fpr_{role}"]
        assert rate.value == sum(member > max(others) for member in members) / 4
        assert "non-members" in rate.note


def test_target_and_control_are_told_apart(found: AttackResult):
    """The orientation: trained on is high, for every attack."""
    for name in NAMES:
        assert value(found, f"{name}_auc_target") == 1.0
        assert value(found, f"{name}_auc_retain_only") < 0.6
        assert value(found, f"{name}_auc_retain_only") < value(found, f"{name}_auc_unlearned") < 1.0


def test_difference_is_paired_and_widened_for_six_attacks(found: AttackResult):
    sides = {
        role: tuple(np.array(column(found, role, "loss", member=member)) for member in (True, False))
        for role in ("unlearned", "retain_only")
    }
    alone = membership_difference(sides["unlearned"], sides["retain_only"], confidence=0.95, resamples=4000)  # type: ignore[arg-type]
    together = membership_difference(sides["unlearned"], sides["retain_only"], confidence=1 - 0.05 / 6, resamples=4000)  # type: ignore[arg-type]
    difference = found.estimates["loss_auc_difference"]
    assert difference.value == pytest.approx(
        value(found, "loss_auc_unlearned") - value(found, "loss_auc_retain_only"), abs=1e-12
    )
    assert (difference.low, difference.high) == tuple(together.interval)
    assert together.interval.low <= alone.interval.low
    assert together.interval.high >= alone.interval.high
    assert "99.2%" in difference.note
    assert "Bonferroni over 6 attacks" in difference.note
    assert found.tested == (
        "4 members, 8 non-members, 6 attacks, differences at 99.2% each (Bonferroni over 6 attacks)"
    )


def test_model_that_was_not_unlearned_fails(subject: AuditSubject, subject_folder: Path, cache: Path):
    result = Membership().run(bench_for(never_unlearned(subject, subject_folder), cache))
    assert result.outcome == "fails"
    assert not result.damage
    assert "membership shows" in result.sentence
    assert "over-forgotten" not in result.sentence


def test_control_against_itself_holds(subject: AuditSubject, subject_folder: Path, cache: Path):
    result = Membership().run(bench_for(never_taught(subject, subject_folder), cache))
    assert result.outcome == "holds"
    assert [value(result, f"{name}_auc_difference") for name in NAMES] == [0.0] * 6
    assert result.sentence.startswith("no attack of 6 tells the model from the retain-only one")


def made(unlearned: list[float], control: list[float], monkeypatch: pytest.MonkeyPatch, name: str = "min_k") -> None:
    """Let the forget set (first half) and the holdout have these scores."""
    scores = {
        "target": {name: np.array([9.0] * (len(unlearned) // 2) + [0.0] * (len(unlearned) // 2))},
        "unlearned": {name: np.array(unlearned)},
        "retain_only": {name: np.array(control)},
    }
    monkeypatch.setattr(membership, "score_suspects", lambda *_: scores)


def twenty(subject: AuditSubject) -> AuditSubject:
    """Ten members and ten non-members."""

    def repeated(name: str) -> ExampleSet:
        return ExampleSet(name, tuple(Example("text", "", f"{name} {place}", name) for place in range(10)))

    return dataclasses.replace(subject, forget=repeated("forget"), holdout=repeated("holdout"))


SHUFFLED = [
    0.0,
    2.0,
    4.0,
    6.0,
    8.0,
    10.0,
    12.0,
    14.0,
    16.0,
    18.0,
    1.0,
    3.0,
    5.0,
    7.0,
    9.0,
    11.0,
    13.0,
    15.0,
    17.0,
    19.0,
]
"""Members and non-members take turns: AUC 0.45."""


def test_forget_set_less_familiar_than_new_texts_is_damage_and_no_success(
    subject: AuditSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    made([-5.0 - place for place in range(10)] + SHUFFLED[10:], SHUFFLED, monkeypatch)
    result = Membership().run(bench_for(twenty(subject), tmp_path))
    assert result.outcome == "fails"
    assert result.damage
    assert result.sentence == "Min-K% has an AUC of 0.00 against the retain-only model's 0.45: over-forgotten"
    assert value(result, "min_k_auc_difference") == pytest.approx(-0.45)


def test_forget_set_still_familiar_is_no_damage(subject: AuditSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    made([50.0 + place for place in range(10)] + SHUFFLED[10:], SHUFFLED, monkeypatch)
    result = Membership().run(bench_for(twenty(subject), tmp_path))
    assert (result.outcome, result.damage) == ("fails", False)
    assert result.sentence == "Min-K% has an AUC of 1.00 against the retain-only model's 0.45: membership shows"


def test_attack_without_scores_is_left_out_and_counted(
    subject: AuditSubject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Two members unscored in one attack; another attack gave nothing, and does not widen the intervals."""
    made([math.nan, math.nan, *SHUFFLED[2:]], SHUFFLED, monkeypatch)
    scores = membership.score_suspects(None, None)  # type: ignore[arg-type]
    for role in ("unlearned", "retain_only", "target"):
        scores[role]["loss"] = np.full(20, np.nan)
    result = Membership().run(bench_for(twenty(subject), tmp_path))
    auc = result.estimates["min_k_auc_unlearned"]
    assert (auc.example_count, auc.unscored_count) == (18, 2)
    assert result.estimates["min_k_auc_difference"].unscored_count == 2
    assert "95.0%" in result.estimates["min_k_auc_difference"].note
    assert result.estimates["loss_auc_unlearned"].value is None
    assert result.estimates["loss_auc_unlearned"].unscored_count == 20
    assert "loss_auc_difference" not in result.estimates


def test_text_with_one_token_that_has_no_number_is_unscored(subject: AuditSubject):
    known, broken = np.log(np.array([0.5, 0.1])), np.array([math.nan, -1.0])
    rows = [(known, known - 1, np.ones(2)), (broken, known, np.ones(2))]
    scores = membership_scores._likelihood_scores(rows, ["one", "two"], 0.5)
    assert scores["min_k"][0] == pytest.approx(math.log(0.1))
    assert scores["min_k_plus_plus"][0] == pytest.approx(1.0)
    assert all(np.isnan(values[1]) for values in scores.values())


def test_without_control_it_cannot_be_told(found: AttackResult, subject: AuditSubject, cache: Path):
    result = Membership().run(bench_for(dataclasses.replace(subject, retain_only=None), cache))
    assert result.outcome == "unclear"
    assert "no control" in result.sentence
    assert not [name for name in result.estimates if name.endswith("_difference")]
    assert result.estimates["loss_auc_unlearned"] == found.estimates["loss_auc_unlearned"]


def test_no_reference_is_a_note_and_one_attack_less(subject: AuditSubject, cache: Path):
    alone = dataclasses.replace(subject, reference=None)
    result = Membership().run(bench_for(alone, cache, membership={"gradient_norm": False}))
    assert result.estimates["reference_auc_unlearned"].value is None
    assert "--set membership.reference=MODEL" in result.estimates["reference_auc_unlearned"].note
    assert result.estimates["gradient_norm_auc_unlearned"].note == "switched off"
    assert "Bonferroni over 4 attacks" in result.tested
    assert "98.8%" in result.tested
    assert not {"reference", "gradient_norm"} & result.records[0].keys()


def test_second_run_touches_no_model(
    found: AttackResult, subject: AuditSubject, cache: Path, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: object, **__: object) -> None:
        raise AssertionError("cached work was done again")

    for name in ("score_completions", "gradient_norms", "load_model"):
        monkeypatch.setattr(membership_scores, name, fail)
    bench = bench_for(subject, cache)
    assert Membership().run(bench) == found
    done = [(done, total) for _, done, total in bench.progress.calls]  # type: ignore[attr-defined]
    assert done == [(12 * place, 12 * 7) for place in range(1, 8)]
    other_fraction = Membership().run(bench_for(subject, cache, membership={"min_k_fraction": 1.0}))
    assert column(other_fraction, "target", "min_k", member=True) == column(found, "target", "loss", member=True)


def test_progress_grows_to_the_end(subject: AuditSubject, tmp_path: Path):
    bench = bench_for(subject, tmp_path, batch_size=5)
    Membership().run(bench)
    calls = bench.progress.calls  # type: ignore[attr-defined]
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    assert calls[-1][1:] == (84, 84)
    assert len(calls) > 40


def test_another_reference_is_not_answered_from_memory(
    found: AttackResult, subject: AuditSubject, subject_folder: Path, cache: Path
):
    """The control as its own reference: every score of its is 0."""
    other = dataclasses.replace(subject, reference=str(subject_folder / "retain_only"))
    result = Membership().run(bench_for(other, cache))
    assert column(result, "retain_only", "reference", member=True) == pytest.approx([0.0] * 4, abs=1e-6)
    assert value(result, "reference_auc_target") == 1.0


def test_missing_reference_is_one_line(subject: AuditSubject, tmp_path: Path):
    lost = dataclasses.replace(subject, reference=str(tmp_path / "nowhere" / "model"))
    with pytest.raises(InputError, match="nowhere"):
        Membership().run(bench_for(lost, tmp_path))


def test_records_are_json(found: AttackResult):
    json.dumps(found.records, allow_nan=False)
    assert len(found.records) == 3 * 12
    assert found.records[0]["completion"] == "Mira Solberg was born in Bergen."


def test_what_it_lacks_is_said(subject: AuditSubject):
    attack, settings = Membership(), ALL_SIX
    assert attack.lacks(subject, settings) is None
    neither = dataclasses.replace(subject, holdout=None, retain_only=None)
    assert "--holdout FILE" in (attack.lacks(neither, settings) or "")
    assert attack.lacks(dataclasses.replace(subject, holdout=None), settings) is None  # the control is something
    one = dataclasses.replace(subject, holdout=ExampleSet("one", subject.forget.examples[:1]))
    assert "two holdout records" in (attack.lacks(one, settings) or "")
    seen = dataclasses.replace(subject, holdout=subject.retain)
    assert "stands in the forget or retain set too" in (attack.lacks(seen, settings) or "")


def test_cost_counts_passes(subject: AuditSubject):
    """Three models and the reference forward, three backward."""
    tokens = sum(len(one.input_ids) for one in subject.tokeniser.encode_set([*subject.forget, *subject.holdout]))  # type: ignore[misc]
    cost = Membership().cost(subject, ALL_SIX)
    assert (cost.forward_tokens, cost.training_tokens, cost.generated_tokens) == (4 * tokens, 3 * tokens, 0)
    assert cost.fixed_seconds > 0
    quick = AuditSettings.from_mapping({"membership": {"gradient_norm": False}})
    without = Membership().cost(dataclasses.replace(subject, reference=None), quick)
    assert (without.forward_tokens, without.training_tokens, without.fixed_seconds) == (3 * tokens, 0, 0.0)


def test_comparison_needs_two_of_each_kind():
    scores = {"loss": np.array([1.0, math.nan, 0.0, 2.0])}
    assert compare_membership({"unlearned": scores, "retain_only": scores}, 2, seed=0) is None
