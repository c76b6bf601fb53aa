"""What a run says of its layers beside the share that they are."""

import pytest
from transformers import AutoModelForCausalLM, MixtralConfig

from tests.tiny import build_tiny_model
from unlora.run.settings import AdapterSettings, ObjectiveSettings
from unlora.run.targets import SHARED, choose_targets
from unlora.starts.contrast import Contrast


@pytest.mark.parametrize(("separation", "said"), [(0.0, ()), (0.5, (SHARED,))])
def test_separation_says_that_it_does_not_look_at_experts(separation: float, said: tuple[str, ...]):
    config = MixtralConfig(
        vocab_size=64, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=2, num_experts_per_tok=1,
    )  # fmt: skip
    mixture = AutoModelForCausalLM.from_config(config).float().requires_grad_(False)
    objective = ObjectiveSettings(separation=separation)
    adapter, start = AdapterSettings(rank=2), Contrast()
    found = choose_targets(adapter, start, mixture, objective).reach
    assert found.notes == said
    assert found.sentence().endswith(said[0] if said else ".")
    assert choose_targets(adapter, start, build_tiny_model("llama"), objective).reach.notes == ()
