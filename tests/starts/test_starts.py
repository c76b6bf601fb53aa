"""The table of starts: same model before and after, and the adapter starts at the target."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from tests.adapters.models import FORGET, state_of, unusual
from tests.tiny import build_tiny_model
from unlora.adapters import check_output_unmoved
from unlora.data.tokenise import TokenisedExample
from unlora.errors import InputError
from unlora.models.target_modules import find_target_modules
from unlora.starts import STARTS, Start, StartData, Started, StartInputs, make_start
from unlora.starts.attach import attach_anchored_adapter

ARCHITECTURES = ["llama", "gpt2"]
FEW = {"vila_published": {"passes": 2}, "fila_published": {"passes": 2}}
READS_DATA = [kind for kind in STARTS if kind not in ("plain", "uniform", "olora")]
PER_EXAMPLE = ["contrast", "contrast_inputs", "marginal", "vila", "fila", "reglu"]


def examples(count: int, seed: int, *, highest: int = 128) -> list[TokenisedExample]:
    generator = torch.Generator().manual_seed(seed)
    lengths = [12 + row % 5 for row in range(count)]
    rows = [torch.randint(2, highest, (length,), generator=generator).tolist() for length in lengths]
    return [TokenisedExample(tuple(row), 6, False, f"row {place}") for place, row in enumerate(rows)]


def inputs_of(model: PreTrainedModel, patterns: list[str] | None = None, **changes: Any) -> StartInputs:
    data = StartData(examples(10, 0), examples(8, 1), pad_token_id=1, seed=1)
    targets = find_target_modules(model, patterns)
    return replace(StartInputs(model, targets, data, rank=4, alpha=8.0), **changes)


def begin(kind: str, inputs: StartInputs) -> Started:
    start = make_start(kind, FEW.get(kind, {}))
    return start.begin(inputs, start.measure(inputs))


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kind", STARTS)
def test_every_start_leaves_the_output_at_the_targets(kind: str, arch: str):
    model = build_tiny_model(arch)
    inputs = inputs_of(model)
    factors = begin(kind, inputs).factors
    if kind == "plain":
        assert factors is None
        return
    assert factors is not None
    assert list(factors) == list(inputs.targets)
    for name, start in factors.items():
        assert start.lora_a.shape == (4, inputs.targets[name].d_in)
        assert start.lora_b.shape == (inputs.targets[name].d_out, 4)
        assert bool(start.lora_b.any()) is make_start(kind).anchored
    adapted = attach_anchored_adapter(model, rank=4, alpha=8, factors=factors)
    shift = check_output_unmoved(adapted, FORGET[0])
    assert shift.largest_difference <= shift.tolerance


@pytest.mark.parametrize("kind", STARTS)
def test_bfloat16_model_starts_from_float32_factors_and_stays_as_it_is(kind: str):
    model = build_tiny_model("llama", layers=1).bfloat16()
    before = state_of(model)
    factors = begin(kind, inputs_of(model)).factors
    assert state_of(model) == before
    for start in (factors or {}).values():
        assert start.lora_a.dtype == start.lora_b.dtype == torch.float32
        assert start.lora_a.isfinite().all()
        assert start.lora_b.isfinite().all()


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("kind", STARTS)
def test_model_is_left_as_it_was_found(kind: str, arch: str):
    """Mixed modes, a frozen weight, a gradient and a hook on it."""
    model = unusual(build_tiny_model(arch))
    before = state_of(model)
    begin(kind, inputs_of(model, ["model.layers.0.*" if arch == "llama" else "transformer.h.0.*"]))
    assert state_of(model) == before


@pytest.mark.parametrize("kind", READS_DATA)
def test_model_is_left_as_it_was_found_when_the_data_fail(kind: str):
    model = unusual(build_tiny_model("llama"))
    before, random = state_of(model), torch.get_rng_state()
    broken = StartData(examples(10, 0, highest=10_000), examples(8, 1, highest=10_000), pad_token_id=1)
    with pytest.raises(IndexError):
        begin(kind, inputs_of(model, data=broken))
    assert state_of(model) == before
    assert torch.equal(torch.get_rng_state(), random)


@pytest.mark.parametrize("kind", STARTS)
def test_starts_that_need_a_retain_set_say_so_and_the_others_do_without(kind: str):
    start = make_start(kind, FEW.get(kind, {}))
    inputs = inputs_of(build_tiny_model("llama", layers=1), ["q_proj"])
    alone = replace(inputs, data=replace(inputs.data, retain=None))
    if start.needs_retain:
        with pytest.raises(InputError, match=f"start '{kind}': needs data.retain"):
            start.refuse(retain=False)
        return
    start.refuse(retain=False)
    assert begin(kind, alone) is not None


@pytest.mark.parametrize("kind", [kind for kind in STARTS if kind != "plain"])
def test_planned_batches_are_those_that_are_measured(kind: str):
    """Every example of the forget set is read; a sample of the retain set no larger than the setting."""
    start = make_start(kind, FEW.get(kind, {}))
    data = inputs_of(build_tiny_model("llama", layers=1)).data
    rows = sum(len(batch["input_ids"]) for batch in start.measured_batches(data))
    assert rows == (0 if not start.measures else 2 * 2 * 10 if kind.endswith("published") else 18)


@pytest.mark.parametrize("kind", PER_EXAMPLE)
def test_seed_decides_which_retain_examples_are_read(kind: str):
    start = make_start(kind, {"max_retain_examples": 3})
    data = inputs_of(build_tiny_model("llama", layers=1)).data
    samples = [replace(data, seed=seed).retain_sample(start.max_retain_examples) for seed in (0, 0, 1)]
    assert [len(sample or ()) for sample in samples] == [3, 3, 3]
    assert samples[0] == samples[1] != samples[2]


def test_every_start_says_what_it_is_and_where_it_comes_from():
    for kind, row in STARTS.items():
        assert len(row.summary) <= 90
        assert row.source in ("ours", "ours, after VILA", "control", "VILA's code") or re.match(r"arXiv \d", row.source)
        start = make_start(kind)
        assert start.kind == kind
        for name, field in type(start).model_fields.items():
            assert name == "kind" or field.description, f"{kind}.{name}"


def test_shared_class_differs_by_the_row_and_what_is_set_wins():
    assert make_start("fila").model_dump()["statistic"] == "second_moment"
    assert make_start("variance_full").model_dump()["statistic"] == "variance"
    assert make_start("fila", {"statistic": "variance"}).model_dump()["statistic"] == "variance"


OWN = """
from typing import Any, ClassVar
import torch
from pydantic import Field
from unlora.adapters.initial import InitialFactors
from unlora.starts import Start, Started, StartInputs


class Ones(Start):
    size: float = Field(default=0.1, gt=0)
    anchored: ClassVar[bool] = False

    def begin(self, inputs: StartInputs, measured: Any) -> Started:
        return Started({
            name: InitialFactors(torch.zeros(t.d_out, inputs.rank), torch.full((inputs.rank, t.d_in), self.size),
                                 None, "ones", None)
            for name, t in inputs.targets.items()
        })


class Unfinished(Start):
    pass
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_starts_of_the_test.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("own")
def test_start_of_ones_own_needs_one_file_and_no_row():
    start = make_start("my_starts_of_the_test:Ones", {"size": 0.5})
    assert isinstance(start, Start)
    model = build_tiny_model("llama", layers=1)
    inputs = inputs_of(model)
    factors = start.begin(inputs, start.measure(inputs)).factors
    assert factors is not None
    assert {float(one.lora_a.mean()) for one in factors.values()} == {0.5}
    with pytest.raises(InputError, match=r"Ones': unknown key 'start\.sise'\. Did you mean 'size'"):
        make_start("my_starts_of_the_test:Ones", {"sise": 0.5})


@pytest.mark.usefixtures("own")
@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("lora-ga", r"start: unknown kind 'lora-ga'\. Did you mean 'lora_ga'\?"),
        ("my_starts_of_the_test:Unfinished", "has no begin"),
        ("my_starts_of_the_test:Onse", r"has no 'Onse'\. Did you mean 'Ones'\?"),
        ("json:JSONDecoder", "must subclass unlora.starts.Start"),
        ("nowhere_at_all:Start", "nowhere_at_all cannot be imported"),
    ],
)
def test_what_is_no_start_is_refused(kind: str, message: str):
    with pytest.raises(InputError, match=message):
        make_start(kind)
