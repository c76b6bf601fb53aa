"""An attack by each kind of attacker: it teaches, it is measured along the way, and it leaves nothing behind."""

import dataclasses
from pathlib import Path

import pytest
import torch

from tests.audit.subjects import bench_for
from unlora.audit.attackers import Attacker, FullAttacker, LoraAttacker
from unlora.audit.course import Trial, relearn
from unlora.audit.likelihoods import Look, forget_likelihoods
from unlora.audit.settings import RelearningSettings
from unlora.audit.subject import AuditSubject, Role
from unlora.data.records import ExampleSet
from unlora.models.fingerprint import fingerprint
from unlora.models.score import score_completions

QUICK = RelearningSettings(steps=3, measure_every=2, batch_size=4)


@pytest.mark.parametrize("attacker", [LoraAttacker(5e-3), FullAttacker(1e-3)])
def test_an_attacker_teaches_and_leaves_the_model_as_it_was(subject: AuditSubject, attacker: Attacker) -> None:
    tested = ExampleSet("tested", subject.forget.examples[1:])
    before = fingerprint(subject.model)
    course = relearn(subject.model, subject.tokeniser, Trial(subject.forget, tested, attacker), QUICK)
    assert course.steps == (0, 2, 3)
    assert course.probability.shape == course.extraction_strength.shape == (3, 3)
    assert course.probability[1].mean() > course.probability[0].mean() + 0.01
    assert fingerprint(subject.model) == before
    assert not subject.model.training
    tokens = subject.tokeniser.encode_set(tested)
    now = score_completions(subject.model, [(one.input_ids, one.prompt_length) for one in tokens], pad_token_id=1)
    assert course.probability[0] == pytest.approx([one.probability for one in now], abs=1e-6)


@pytest.mark.parametrize("attacker", [LoraAttacker(5e-3), FullAttacker(1e-3)])
@pytest.mark.parametrize("role", ["unlearned", "retain_only"])
def test_a_course_goes_on_alike_from_what_was_seen_before_it(
    subject: AuditSubject, attacker: Attacker, role: Role, tmp_path: Path
) -> None:
    trial = Trial(subject.forget, subject.forget, attacker)
    seen = Look(**forget_likelihoods(bench_for(subject, tmp_path), role))
    with subject.acting_as(role) as model:
        own = relearn(model, subject.tokeniser, trial, QUICK)
        handed = relearn(model, subject.tokeniser, dataclasses.replace(trial, before=seen), QUICK)
    assert handed.probability.tolist() == own.probability.tolist()
    assert handed.extraction_strength.tolist() == own.extraction_strength.tolist()


def test_full_fine_tuning_trains_copies_in_float32_of_every_weight_but_the_adapter(subject: AuditSubject) -> None:
    model = subject.model
    own = {name: parameter.data_ptr() for name, parameter in model.named_parameters()}
    asked = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    with FullAttacker(1e-3).attacking(model, seed=0):
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad == ("lora_" not in name)
            assert parameter.dtype == torch.float32
            assert (parameter.data_ptr() == own[name]) == ("lora_" in name)
    assert {name: parameter.data_ptr() for name, parameter in model.named_parameters()} == own
    assert {name: parameter.requires_grad for name, parameter in model.named_parameters()} == asked
