"""The subject of all attacks: who knows what, and that changing roles leaves the models as they were."""

import dataclasses
from pathlib import Path
from statistics import fmean

import pytest

from tests.audit.subjects import never_taught, never_unlearned
from unlora.audit.subject import AuditSubject, Role
from unlora.data.records import ExampleSet
from unlora.models.fingerprint import fingerprint
from unlora.models.score import score_completions


def probability(subject: AuditSubject, role: Role, examples: ExampleSet | None) -> float:
    """Mean probability of the answers."""
    assert examples is not None
    tokens = subject.tokeniser.encode_set(examples)
    with subject.acting_as(role) as model:
        scores = score_completions(model, [(one.input_ids, one.prompt_length) for one in tokens], pad_token_id=1)
    return fmean(score.probability for score in scores)


def test_target_knows_unlearned_forgot_control_never_knew(subject: AuditSubject):
    assert probability(subject, "target", subject.forget) > 0.95
    assert probability(subject, "unlearned", subject.forget) < 0.6
    assert probability(subject, "retain_only", subject.forget) < 0.4
    for role in ("target", "retain_only"):
        assert probability(subject, role, subject.retain) > 0.95
        assert probability(subject, role, subject.same_person) > 0.95
        assert probability(subject, role, subject.holdout) < 0.4
    assert probability(subject, "unlearned", subject.retain) > 0.9


def test_roles_of_the_two_extremes(subject: AuditSubject, subject_folder: Path):
    knows = never_unlearned(subject, subject_folder)
    assert probability(knows, "unlearned", knows.forget) > 0.95
    assert knows.hashes["unlearned"] != subject.hashes["unlearned"]
    knew_nothing = never_taught(subject, subject_folder)
    assert {probability(knew_nothing, role, subject.forget) for role in knew_nothing.roles} == {
        probability(subject, "retain_only", subject.forget)
    }


def test_acting_changes_nothing(subject: AuditSubject):
    before = fingerprint(subject.model), probability(subject, "unlearned", subject.forget)
    for role in subject.roles:
        probability(subject, role, subject.forget)
    assert (fingerprint(subject.model), probability(subject, "unlearned", subject.forget)) == before


def test_without_control_there_are_two_roles(subject: AuditSubject):
    alone = dataclasses.replace(subject, retain_only=None)
    assert alone.roles == ("target", "unlearned")
    with pytest.raises(LookupError), alone.acting_as("retain_only"):
        pass
