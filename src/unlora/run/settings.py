"""Every setting of a run, in the order the run uses them. Pure data: validating a file loads no torch."""

from typing import Any, Literal

from pydantic import ConfigDict, Field, JsonValue, field_validator, model_validator

from unlora.config import Config
from unlora.data.settings import DataSettings, Template
from unlora.errors import InputError
from unlora.run.input_settings import ModelSettings
from unlora.run.old_settings import with_start
from unlora.suites.table import read_suites
from unlora.suites.tofu.settings import TofuSettings


class StartSettings(Config):
    """Where LoRA starts: a kind, and the settings that this kind has (docs/starts.md)."""

    model_config = ConfigDict(extra="allow")

    kind: str = "marginal"
    """A name of the table that `unlora presets ls` prints, or module:Class of your own."""

    @property
    def fields(self) -> dict[str, Any]:
        """What is set beside the kind."""
        return dict(self.model_extra or {})


class AdapterSettings(Config):
    """The LoRA adapter."""

    rank: int = Field(default=8, ge=1)
    """r; the anchored adapter is saved with rank 2r."""
    alpha: float = Field(default=16.0, gt=0, le=1e6)
    """The scaling is alpha / rank."""
    target_modules: list[str] | None = None
    """Names or patterns of linear layers; None takes every one of the language model that can have an adapter."""
    exclude_modules: list[str] = Field(default_factory=list)
    """Names or patterns of linear layers that get no adapter."""
    freeze_a: bool | None = None
    """Train B alone: only inputs in the span of A's start feel a change; None is what the start is meant for."""
    coverage: float = Field(default=1.0, gt=0, le=1)
    """Share of the target modules kept, the most important first."""
    expert_excess: float | None = Field(default=None, ge=0, le=100)
    """Of a mixture's experts, only those to which the forget set sends at least 1 + this times the share of its tokens
    that the retain set sends there; None takes all."""
    lora_dropout: float = 0.0
    """Must be 0: with dropout the two halves of an anchored adapter do not cancel."""

    @field_validator("lora_dropout")
    @classmethod
    def _no_dropout(cls, value: float) -> float:
        if value != 0:
            raise ValueError("must be 0, with dropout the two halves of the anchored adapter do not cancel")
        return value


class ObjectiveSettings(Config):
    """forget term + retain_weight x retain term."""

    forget: str = "ihl"
    """ga, gd, npo, ihl, simnpo, dpo, idk, undial, wga, satimp, ce_u, rmu, adaptive_rmu, or module:Class of your own."""
    retain: str | None = "nll"
    """nll, kl, rmu, module:Class, or null for none."""
    retain_weight: float = Field(default=1.6, ge=0)
    """lambda."""
    forget_parameters: dict[str, JsonValue] = Field(default_factory=dict)
    """Parameters of the forget term, such as {beta: 0.1}; those left out keep the term's default (docs/losses.md)."""
    retain_parameters: dict[str, JsonValue] = Field(default_factory=dict)
    """The same of the retain term."""
    separation: float = Field(default=0.0, ge=0)
    """Weight of a third term: what the adapter does to all forget examples of a batch alike, which is what a few of
    them, taught again, undo for all (docs/depth.md); 0 leaves it out."""
    forget_strength: float = Field(default=1.0, gt=0, le=1)
    """Part of the adapter's strength at which the forget term reads it; the retain term reads it at 1. Below 1, what is
    forgotten is forgotten with a reserve (docs/depth.md)."""
    refusals: str | None = None
    """JSON lines {"answer": "..."}: what dpo and idk are to answer instead; None takes a short list of unlora's own."""

    @property
    def by_example(self) -> bool:
        """Whether it wants layers that keep the examples of a batch apart, as layers of experts do not."""
        return self.forget_strength != 1


PASSES, LEVEL_PASSES = 5, 20
STEPS, LEVEL_STEPS = 25, 100
"""The same of 40 examples, eight at once. Fewer steps forget next to nothing, however often a few records are read."""


class TrainingSettings(Config):
    """One run of the stock Trainer with AdamW."""

    learning_rate: float = Field(default=5e-4, gt=0)
    """Peak learning rate."""
    epochs: int | None = Field(default=None, ge=1)
    """Passes over the forget set. None takes 5, and as many more as make 25 steps of a few records; where training
    stops at a level, as many as it needs of 20, or of 100 steps."""
    batch_size: int = Field(default=8, ge=1)
    """Forget examples per step, of all devices together; each brings one retain example along."""
    gradient_accumulation_steps: int = Field(default=1, ge=1)
    """Batches per optimiser step."""
    warmup_ratio: float = Field(default=0.1, ge=0, lt=1)
    """Share of the steps with a rising learning rate; it falls linearly to zero afterwards."""
    max_grad_norm: float = Field(default=1.0, gt=0)
    """Gradients are clipped to this norm."""
    gradient_checkpointing: bool = False
    """Trade time for memory."""
    save_steps: int = Field(default=10, ge=1)
    """Steps between checkpoints for resuming."""
    report_to: list[str] = Field(default_factory=list)
    """Trackers, by the names that transformers has: tensorboard, wandb, trackio, mlflow, ..."""
    trainer: str | None = None
    """module:Class of your own in place of `UnlearnTrainer`, which it subclasses (docs/losses.md)."""

    @property
    def at_once(self) -> int:
        """Forget examples of one optimiser step."""
        return self.batch_size * self.gradient_accumulation_steps

    def passes(self, examples: int, *, to_level: bool) -> int:
        """Passes over the forget set, at most.

        Args:
            examples: of the forget set.
            to_level: whether training stops at a level. How many it then takes depends on the set and on the model,
                so that its bound is wide; without one, training goes on to its end and past what was to be forgotten.
        """
        if self.epochs is not None:
            return self.epochs
        passes, steps = (LEVEL_PASSES, LEVEL_STEPS) if to_level else (PASSES, STEPS)
        return max(passes, -(-steps * self.at_once // examples))


class LevelSettings(Config):
    """How far to forget: as far as training goes, or to the level of a model that never knew (docs/level.md)."""

    aim: Literal["none", "auto", "control", "before"] | float = "none"
    """none: as training leaves it; control: the retain-only model's forget probability; before: that of the model
    before it was fine-tuned; auto: the first of the two that is there; or a forget probability itself."""
    before: str | None = None
    """The model before fine-tuning; None takes the base of a target that is an adapter."""
    most: float = Field(default=1.5, ge=1)
    """Largest strength of the adapter, where training falls short of the level; 1 is as trained."""
    stop: bool | Literal["exactly"] = False
    """Ask after every epoch, and in the middle of a long one, and stop training at the level: what is never passed need
    not be taken back. exactly: ask more often near the level, and stop at the step that passes it; less is kept than
    where a pass goes further and the strength takes that back, and less comes back (docs/level.md)."""

    @field_validator("aim")
    @classmethod
    def _a_probability(cls, value: str | float) -> str | float:
        if isinstance(value, float) and not 0 < value < 1:
            raise ValueError("must be none, auto, control, before or a probability between 0 and 1")
        return value


class EvaluationSettings(TofuSettings):
    """What is measured before and after; those of TOFU's that other suites have too are theirs as well."""

    suites: list[str | dict[str, JsonValue]] = Field(default_factory=lambda: ["tofu"], min_length=1)
    """What is asked: tofu (the sets of the run), muse:news, muse:books, wmdp, wmdp:bio,cyber, wmdp@FILE, rwku:NAME or
    module:Class of your own, each once; or {name: muse:news@FOLDER, batch_size: 4}, with settings of its own."""
    skip: bool = False
    """Train only."""

    @field_validator("suites")
    @classmethod
    def _known(cls, value: list[str | dict[str, JsonValue]]) -> list[str | dict[str, JsonValue]]:
        try:
            read_suites(value)
        except InputError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return value


class UnlearnSettings(Config):
    """The whole of `unlora unlearn`."""

    model: ModelSettings
    data: DataSettings
    start: StartSettings = StartSettings()
    adapter: AdapterSettings = AdapterSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    training: TrainingSettings = TrainingSettings()
    level: LevelSettings = LevelSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    seed: int = Field(default=0, ge=0)
    """Seeds data order, virtual factors and randomised decompositions."""

    @model_validator(mode="before")
    @classmethod
    def _old_section(cls, values: Any) -> Any:
        """Read what was written for unlora 0.1."""
        return with_start(values) if isinstance(values, dict) else values

    @model_validator(mode="after")
    def _two_to_separate(self) -> "UnlearnSettings":
        if self.objective.separation and self.training.batch_size < 2:
            raise ValueError("objective.separation: needs two forget examples a step (training.batch_size 2 or more)")
        return self

    @model_validator(mode="after")
    def _retain_where_needed(self) -> "UnlearnSettings":
        if self.data.retain is None and self.objective.retain is not None:
            raise ValueError(
                f"objective.forget '{self.objective.forget}' with retain term '{self.objective.retain}' needs "
                "data.retain (--retain FILE); for forgetting without one use --set objective.retain=null with npo or ga"
            )
        return self


class DataCheckSettings(Config):
    """The whole of `unlora data check`."""

    model: ModelSettings
    """Whose tokenizer counts."""
    data: DataSettings
    """`forget` is the file that is looked through."""


class CheckpointSettings(Config):
    """The model that is measured, with an adapter or without."""

    model: ModelSettings
    adapter: str | None = None
    """An unlearning adapter for the model: both are measured, with it off and on."""


class EvaluateSettings(CheckpointSettings):
    """The whole of `unlora evaluate`, but for one suite that brings its own data (see `settings_of_one`)."""

    data: DataSettings | None = None
    """Not needed where every suite brings its own."""
    evaluation: EvaluationSettings = EvaluationSettings()

    @model_validator(mode="after")
    def _data_where_needed(self) -> "EvaluateSettings":
        if self.data is None and not all(one.brings_data for one in read_suites(self.evaluation.suites)):
            raise ValueError("key 'data' is missing")
        return self


class FineTuneSettings(Config):
    """The whole of `unlora finetune`: makes target and retain-only models."""

    model: ModelSettings
    data: list[str] = Field(min_length=1)
    """Sets to learn."""
    exclude: list[str] = Field(default_factory=list)
    """Sets whose examples are left out by content: give the forget set to make a retain-only model."""
    template: Template = "auto"
    """As in `unlora unlearn`."""
    chat_template: str | None = None
    """As in `unlora unlearn`."""
    template_arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """As in `unlora unlearn`."""
    max_length: int = Field(default=512, ge=8)
    """Longest example in tokens."""
    method: Literal["lora", "full"] = "lora"
    """Train a LoRA adapter, or every weight."""
    rank: int = Field(default=32, ge=1)
    """LoRA rank."""
    alpha: float = Field(default=64.0, gt=0, le=1e6)
    """LoRA alpha."""
    learning_rate: float = Field(default=1e-3, gt=0)
    """Peak learning rate (for method full try 2e-5)."""
    epochs: int = Field(default=10, ge=1)
    """Passes over the data."""
    batch_size: int = Field(default=8, ge=1)
    """Examples per step."""
    warmup_ratio: float = Field(default=0.05, ge=0, lt=1)
    """Share of the steps with a rising learning rate; cosine afterwards."""
    seed: int = Field(default=0, ge=0)
    """Seeds the data order and LoRA's A."""
