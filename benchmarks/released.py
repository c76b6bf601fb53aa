"""The procedure by which the released VILA and FILA code measures importance: what it costs, and the numbers it gives.

Written from its description, not from its text. In every step it does one forward and backward pass of the mean loss
over a batch of the forget set, then one over as many retain examples; after each pass it copies the gradient of every
parameter that counts to host memory and adds it to the running sums there; and it goes ten times through the forget
set. VILA's parameters are LoRA factors that stand in the network, A and B both random; FILA's are the weights
themselves, and all of the model's parameters get a gradient. The sums are `unlora.importance.published`'s S1, S2 and N.

Left out, in the released code's favour: FILA's file, which it writes after every pass.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers import PreTrainedModel

from benchmarks.shapes import Subject
from unlora.data.collate import collate
from unlora.importance.published import make_probes, paired_rows
from unlora.models.quiet import quiet
from unlora.models.target_modules import find_target_modules, peft_target_modules

Released = Literal["vila", "fila"]
PASSES = 10
BATCH_SIZE = 4
RANK, ALPHA, PROBE_STD = 8, 16, 0.05


@dataclass
class Sums:
    """Running sums in host memory, in the gradient's number format."""

    centred: bool
    first: dict[str, Tensor] = field(default_factory=dict)
    second: dict[str, Tensor] = field(default_factory=dict)
    label_count: int = 0

    def add(self, parameters: dict[str, nn.Parameter], label_count: int) -> None:
        """Copy the gradient of every parameter to the host and add it there."""
        self.label_count += label_count
        for name, parameter in parameters.items():
            if parameter.grad is None:
                continue
            gradient = parameter.grad.detach().cpu()
            if name not in self.second:
                self.second[name] = torch.zeros_like(gradient)
                self.first[name] = torch.zeros_like(gradient) if self.centred else gradient.new_zeros(0)
            self.second[name] += label_count * gradient**2
            if self.centred:
                self.first[name] += label_count * gradient

    def read(self) -> dict[str, Tensor]:
        """VILA's variances, clamped at 0; FILA's sums as they are."""
        if not self.centred:
            return self.second
        count = self.label_count
        return {name: (self.second[name] / count - (self.first[name] / count) ** 2).clamp(min=0) for name in self.first}


def measure(
    method: Released, subject: Subject, *, passes: int, seed: int = 0, wrap: Callable[..., Any] = lambda work: work()
) -> dict[str, dict[str, Tensor]]:
    """Run the procedure; `wrap` is called with the part that is compared, the adapter in place.

    Returns:
        "forget" and "retain": tensors by parameter; VILA's are "MODULE.lora_A" and "MODULE.lora_B", FILA's "MODULE".
    """
    targets = find_target_modules(subject.model)
    trained = {parameter: parameter.requires_grad for parameter in subject.model.parameters()}
    model: Any = subject.model
    if method == "vila":
        model = _with_probes(subject.model, seed)
        parameters = {
            f"{name}.{factor}": getattr(model.get_submodule(f"base_model.model.{name}"), factor)["default"].weight
            for name in targets
            for factor in ("lora_A", "lora_B")
        }
    else:
        model.requires_grad_(True)
        parameters = {name: target.leaf_weight() for name, target in targets.items()}
    try:
        return wrap(lambda: _run(model, parameters, method == "vila", subject, passes, seed))
    finally:
        if method == "vila":
            model.unload()
        for parameter, was in trained.items():
            parameter.requires_grad_(was)
            parameter.grad = None


def _with_probes(model: PreTrainedModel, seed: int) -> Any:
    """Insert LoRA with both factors random: the network that is measured is another one."""
    targets = find_target_modules(model)
    probes = make_probes(targets, rank=RANK, probe_std=PROBE_STD, seed=seed)
    names = peft_target_modules(model, list(targets))
    with quiet():
        config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=names, task_type="CAUSAL_LM")
        wrapped = get_peft_model(model, config, autocast_adapter_dtype=False)  # type: ignore[arg-type]
    for name, probe in probes.items():
        layer = wrapped.get_submodule(f"base_model.model.{name}")
        for factor, values in (("lora_A", probe.lora_a), ("lora_B", probe.lora_b)):
            getattr(layer, factor)["default"].weight.data.copy_(values)
    return wrapped


def _run(
    model: Any, parameters: dict[str, nn.Parameter], centred: bool, subject: Subject, passes: int, seed: int
) -> dict[str, dict[str, Tensor]]:
    sums = {"forget": Sums(centred), "retain": Sums(centred)}
    examples = {"forget": subject.forget, "retain": subject.retain}
    for pair in paired_rows(len(subject.forget), len(subject.retain), passes, BATCH_SIZE, seed):
        for set_name, rows in zip(("forget", "retain"), pair, strict=True):
            batch = collate([examples[set_name][row] for row in rows], subject.pad_token_id)
            batch = {key: value.to(model.device) for key, value in batch.items()}
            model(**batch, use_cache=False).loss.backward()
            sums[set_name].add(parameters, int((batch["labels"] != -100).sum()))
            model.zero_grad(set_to_none=True)
    return {set_name: one.read() for set_name, one in sums.items()}


def bytes_on_disk(result: dict[str, dict[str, Tensor]]) -> int:
    """What the file of both sets holds, without its header."""
    return sum(tensor.nbytes for tensors in result.values() for tensor in tensors.values())
