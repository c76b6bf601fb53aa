"""The attacker's adapter: the function is unmoved when it is put on, and everything is as before when it is off."""

import torch

from unlora.audit.adversary import ATTACKER, attacked
from unlora.audit.subject import AuditSubject
from unlora.data.collate import collate
from unlora.models.fingerprint import fingerprint
from unlora.models.forward import completion_logits
from unlora.models.wrapping import CausalModel


@torch.no_grad()
def logits(subject: AuditSubject, model: CausalModel) -> torch.Tensor:
    return completion_logits(model, collate(subject.tokeniser.encode_set(subject.forget), pad_token_id=1))


def test_unlearned_model_keeps_its_adapter_under_attack_and_gets_it_back_unchanged(subject: AuditSubject) -> None:
    adapter = {name: value.clone() for name, value in subject.model.state_dict().items() if "lora_" in name}
    with subject.acting_as("unlearned") as model:
        before = logits(subject, model)
        with attacked(model, rank=2, seed=0) as trainee:
            assert torch.equal(logits(subject, trainee), before)  # B = 0
            trained = [name for name, parameter in trainee.named_parameters() if parameter.requires_grad]
            assert trained
            assert all(f".{ATTACKER}." in name for name in trained)
            with torch.no_grad():
                for parameter in trainee.parameters():
                    if parameter.requires_grad:
                        parameter.add_(0.1)
            assert not torch.equal(logits(subject, trainee), before)
        assert torch.equal(logits(subject, model), before)
    assert not [name for name, parameter in subject.model.named_parameters() if parameter.requires_grad]
    after = {name: value for name, value in subject.model.state_dict().items() if "lora_" in name}
    assert after.keys() == adapter.keys()
    assert all(torch.equal(after[name], adapter[name]) for name in adapter)
    with subject.acting_as("target") as target:
        assert not torch.equal(logits(subject, target), before)


def test_control_is_a_plain_model_again(subject: AuditSubject) -> None:
    with subject.acting_as("retain_only") as model:
        before, weights, names = logits(subject, model), fingerprint(model), set(model.state_dict())
        with attacked(model, rank=2, seed=0) as trainee:
            assert torch.equal(logits(subject, trainee), before)
            assert any(parameter.requires_grad for parameter in trainee.parameters())
        assert set(model.state_dict()) == names
        assert fingerprint(model) == weights
        assert torch.equal(logits(subject, model), before)
        assert not any(parameter.requires_grad for parameter in model.parameters())
        with attacked(model, rank=2, seed=0):  # and it can be attacked again
            pass
