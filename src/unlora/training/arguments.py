"""The few settings that unlearning needs on top of `transformers.TrainingArguments`.

Defaults that differ from the stock ones, and why:
    train_sampling_strategy = "sequential"  the data set already holds the seeded order of every epoch
    num_train_epochs = 1                     for the same reason: one pass over all epochs laid end to end
    weight_decay = 0                         decay would move the frozen half of an anchored adapter
    logging_steps = 1                        a run has tens of steps; each is a line of train_log.jsonl
    report_to = none, disable_tqdm = True    the command line shows its own progress; trackers are asked for by name
"""

from pathlib import Path

from transformers import TrainingArguments

from unlora import processes
from unlora.errors import InputError
from unlora.models.quiet import quiet


def training_arguments(
    output_dir: Path,
    *,
    learning_rate: float,
    batch_size: int,
    gradient_accumulation_steps: int,
    warmup_steps: int,
    max_grad_norm: float,
    gradient_checkpointing: bool,
    save_steps: int | None,
    seed: int,
    use_cpu: bool,
    lr_scheduler_type: str = "linear",
    max_steps: int = -1,
    report_to: str | list[str] = "none",
    run_name: str | None = None,
) -> TrainingArguments:
    """Build the arguments of one run; `save_steps` None keeps no checkpoint, `max_steps` -1 reads all data.

    Trackers to report to are named as transformers does; `run_name` is what they call the run.
    """
    with quiet():  # It announces a new name for gradient_checkpointing that older versions do not know.
        return TrainingArguments(
            output_dir=str(output_dir),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=gradient_accumulation_steps,
            learning_rate=learning_rate,
            lr_scheduler_type=lr_scheduler_type,
            warmup_steps=warmup_steps,
            max_grad_norm=max_grad_norm,
            weight_decay=0.0,
            num_train_epochs=1,
            max_steps=max_steps,
            train_sampling_strategy="sequential",
            gradient_checkpointing=gradient_checkpointing,
            gradient_checkpointing_kwargs={"use_reentrant": False} if gradient_checkpointing else None,
            save_strategy="steps" if save_steps is not None else "no",
            save_steps=save_steps or 1,
            save_total_limit=2,
            logging_steps=1,
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            dataloader_pin_memory=not use_cpu,
            report_to=report_to,
            run_name=run_name,
            disable_tqdm=True,
            seed=seed,
            use_cpu=use_cpu,
            # Keep what `processes.join` set up; by default the processes would meet anew.
            accelerator_config={"use_configured_state": True} if processes.count() > 1 else None,
        )


def refuse_weight_decay(arguments: TrainingArguments) -> None:
    """Refuse weight decay on an adapter whose second half must not move.

    Raises:
        InputError: weight_decay is not 0.
    """
    if arguments.weight_decay != 0:
        raise InputError(f"weight_decay {arguments.weight_decay}: must be 0, it would move the anchor.")
