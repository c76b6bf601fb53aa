"""What is audited: the models of a run, and the records that attacks may use."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from peft import PeftModel
from transformers import PreTrainedModel

from unlora.data.records import ExampleSet
from unlora.data.tokenise import ExampleTokeniser
from unlora.models.wrapping import CausalModel

Role = Literal["target", "unlearned", "retain_only"]


@dataclass(frozen=True, eq=False)
class AuditSubject:
    """Target and unlearned model are one model with its adapter off and on; the retain-only model is the control."""

    model: PeftModel
    """The target model with the unlearning adapter."""
    retain_only: PreTrainedModel | None
    """A model that never saw the forget set: the control of every attack."""
    tokeniser: ExampleTokeniser
    forget: ExampleSet
    retain: ExampleSet | None
    holdout: ExampleSet | None
    """Records like the forget set that no model saw."""
    same_person: ExampleSet | None
    """Records to keep about the same people."""
    hashes: Mapping[str, str]
    """Role -> hash of the weights that answer in it: what a cached result belongs to."""
    reference: str | None
    """Name of the model that the reference attack compares with; None where there is none."""
    scratch: Path
    """Folder for what an attack must write; removed afterwards."""

    @property
    def attacked(self) -> tuple[Role, ...]:
        """The models that an attack changes: all but the target, which shows what there was to take away."""
        return self.roles[1:]

    @property
    def roles(self) -> tuple[Role, ...]:
        """The models there are."""
        return ("target", "unlearned", "retain_only") if self.retain_only is not None else ("target", "unlearned")

    def mean_length(self, examples: ExampleSet) -> float:
        """Mean length of the examples in tokens, for estimates of cost."""
        tokens = self.tokeniser.encode_set(examples)
        return sum(len(example.input_ids) for example in tokens) / len(tokens)

    @contextmanager
    def acting_as(self, role: Role) -> Iterator[CausalModel]:
        """Yield the model of a role; nothing is copied."""
        if role == "target":
            with self.model.disable_adapter():
                yield self.model
        elif role == "unlearned":
            yield self.model
        else:
            if self.retain_only is None:
                raise LookupError("there is no retain-only model")
            yield self.retain_only
