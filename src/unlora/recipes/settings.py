"""Every setting of a run, in the order the run uses them. Pure data: validating a file loads no torch."""

from typing import Literal

from pydantic import Field, JsonValue, field_validator, model_validator

from unlora.config import Config
from unlora.recipes.input_settings import DataSettings, ModelSettings, Template

Initialisation = Literal[
    "importance",
    "contrast",
    "contrast_inputs",
    "plain",
    "uniform",
    "shuffled",
    "olora",
    "corda",
    "eva",
    "lora_ga",
    "reglu",
]

WEIGHTED = ("importance", "shuffled")
"""Initialisations that an importance map decides."""
CONTRAST = ("contrast", "contrast_inputs")
"""Initialisations that a contrast map decides."""

PUBLISHED = (("variance", "lora_factors"), ("second_moment", "full_weights"))
"""Statistic and space of the released VILA and FILA code."""


class ImportanceSettings(Config):
    """Where LoRA may start: measured on the intact model."""

    initialisation: Initialisation = "importance"
    """importance: weights approximated under the ratio; contrast, contrast_inputs: directions that only the forget set
    uses, for both factors or for A alone; plain: ordinary LoRA, B = 0; uniform, shuffled, olora, corda, eva, lora_ga,
    reglu: to compare with."""
    solver: Literal["row", "separable", "elementwise"] = "row"
    """What of the ratio weights the approximation: its row sums, row and column sums, or every entry."""
    damping: float = Field(default=1.0, gt=0)
    """Of the retain matrix, in units of its mean eigenvalue (contrast, contrast_inputs)."""
    statistic: Literal["second_moment", "variance"] = "variance"
    """E[g^2] or its centred form."""
    space: Literal["marginals", "lora_factors", "full_weights"] = "marginals"
    """What the gradient is taken of."""
    gradient_unit: Literal["example", "batch"] = "example"
    """What one sample of the statistic is: an example's gradient, or that of the mean loss of importance.batch_size."""
    reduction: Literal["mean", "sum"] = "mean"
    """Whether an example's loss is the mean or the sum over its completion tokens."""
    offload: Literal["none", "host", "disk"] = "none"
    """Where the running sums of full_weights lie: beside the model, in host memory, or in files of the run folder."""
    batch_size: int = Field(default=8, ge=1)
    """Examples per backward pass."""
    max_retain_examples: int = Field(default=64, ge=2)
    """Retain examples in the statistic, drawn with the run's seed; the forget set is always used whole."""
    probe_std: float = Field(default=0.05, gt=0)
    """Standard deviation of the virtual factors (lora_factors only)."""
    arithmetic: Literal["intact", "published"] = "intact"
    """intact: ours; published: what the released code computes, for comparison (lora_factors and full_weights only; the
    probe stands in the model, retain examples are drawn from the whole set)."""
    passes: int = Field(default=10, ge=1)
    """Passes over the forget set (published only)."""
    accumulator_dtype: Literal["gradient", "float32", "bfloat16"] = "gradient"
    """Number format of the running sums (published only); gradient, as released: the model's own."""
    orthogonality: float = Field(default=0.5, ge=0)
    """Weight of ReGLU's penalty, which keeps B out of the retain set's outputs while it trains (reglu only)."""
    file: str | None = None
    """An importance file made before, in place of measuring."""

    @property
    def inputs_only(self) -> bool:
        """Whether a contrast map needs no output directions."""
        return self.initialisation == "contrast_inputs"

    @model_validator(mode="after")
    def _choices_of_the_intact_model(self) -> "ImportanceSettings":
        ours = {"gradient_unit": "example", "reduction": "mean", "offload": "none"}
        chosen = [key for key, default in ours.items() if getattr(self, key) != default]
        if self.arithmetic == "published" and chosen:
            raise ValueError(f"{chosen[0]} has no effect with arithmetic 'published'; leave it out")
        return self


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
    freeze_a: bool = False
    """Train B alone: only inputs in the span of A's start feel a change."""
    coverage: float = Field(default=1.0, gt=0, le=1)
    """Share of the target modules kept, the most important first."""
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
    refusals: str | None = None
    """JSON lines {"answer": "..."}: what dpo and idk are to answer instead; None takes a short list of unlora's own."""


class TrainingSettings(Config):
    """One run of the stock Trainer with AdamW."""

    learning_rate: float = Field(default=5e-4, gt=0)
    """Peak learning rate."""
    epochs: int = Field(default=5, ge=1)
    """Passes over the forget set."""
    batch_size: int = Field(default=8, ge=1)
    """Forget examples per step and device; each brings one retain example along."""
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


class EvaluationSettings(Config):
    """What is measured before and after."""

    protocol: Literal["unlora", "tofu", "open_unlearning"] = "unlora"
    """How: unlora's own, TOFU's (300 items, 200 tokens in all), or OpenUnlearning's (all items, 200 new tokens)."""
    forget: str | None = None
    """Set to evaluate forgetting on; None takes data.forget (or its perturbed version for TOFU)."""
    retain: str | None = None
    """Set to evaluate retention on; None takes data.retain (or its perturbed version for TOFU)."""
    real_authors: str | None = None
    """TOFU's real authors, for model utility; None takes those beside a TOFU forget set (not in protocol unlora)."""
    world_facts: str | None = None
    """TOFU's world facts, for model utility; None as for real_authors."""
    retain_only: str | None = None
    """A model that never saw the forget set, its saved scores (.jsonl), or the log of TOFU or OpenUnlearning about it
    (.json): the reference for forget quality."""
    retain_only_base: str | None = None
    """Base of the retain-only adapter, when not where its own config says."""
    max_examples: int | None = Field(default=None, ge=1)
    """First examples of each set that are evaluated; None is the protocol's number."""
    max_new_tokens: int | None = Field(default=None, ge=1)
    """Longest generated answer; None is the protocol's limit."""
    batch_size: int = Field(default=16, ge=1)
    """Sequences per forward pass."""
    skip: bool = False
    """Train only."""


class UnlearnSettings(Config):
    """The whole of `unlora unlearn`."""

    model: ModelSettings
    data: DataSettings
    importance: ImportanceSettings = ImportanceSettings()
    adapter: AdapterSettings = AdapterSettings()
    objective: ObjectiveSettings = ObjectiveSettings()
    training: TrainingSettings = TrainingSettings()
    evaluation: EvaluationSettings = EvaluationSettings()
    seed: int = Field(default=0, ge=0)
    """Seeds data order, virtual factors and randomised decompositions."""

    @model_validator(mode="after")
    def _retain_where_needed(self) -> "UnlearnSettings":
        if self.data.retain is None and self.objective.retain is not None:
            raise ValueError(
                f"objective.forget '{self.objective.forget}' with retain term '{self.objective.retain}' needs "
                "data.retain (--retain FILE); for forgetting without one use --set objective.retain=null with npo or ga"
            )
        return self

    @model_validator(mode="after")
    def _importance_where_needed(self) -> "UnlearnSettings":
        start = self.importance.initialisation
        if start not in WEIGHTED and self.adapter.coverage != 1:
            raise ValueError(
                f"adapter.coverage: importance.initialisation '{start}' has no importance to choose modules by"
            )
        if start not in WEIGHTED + CONTRAST and self.importance.file is not None:
            raise ValueError(f"importance.file: importance.initialisation '{start}' reads none")
        if start in ("corda", "reglu") and self.data.retain is None:
            raise ValueError(f"importance.initialisation '{start}' needs data.retain (--retain FILE)")
        return self

    @model_validator(mode="after")
    def _published_where_possible(self) -> "UnlearnSettings":
        chosen = self.importance
        if chosen.initialisation not in WEIGHTED or chosen.arithmetic == "intact":
            return self
        if (chosen.statistic, chosen.space) not in PUBLISHED:
            raise ValueError(
                f"importance.arithmetic 'published' has no {chosen.statistic} of {chosen.space}; there are "
                + " and ".join(f"{statistic} of {space}" for statistic, space in PUBLISHED)
            )
        if self.data.retain is None:
            raise ValueError("importance.arithmetic 'published' needs data.retain (--retain FILE)")
        return self


class DataCheckSettings(Config):
    """The whole of `unlora data check`."""

    model: ModelSettings
    """Whose tokenizer counts."""
    data: DataSettings
    """`forget` is the file that is looked through."""


class EvaluateSettings(Config):
    """The whole of `unlora evaluate`."""

    model: ModelSettings
    adapter: str | None = None
    """An unlearning adapter for the model: both are measured, with it off and on."""
    data: DataSettings
    evaluation: EvaluationSettings = EvaluationSettings()


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
