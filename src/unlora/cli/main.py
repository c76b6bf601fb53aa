"""`unlora`: parses, calls a recipe, prints. Nothing heavy is imported before a command runs."""

import errno
import logging
import os
import sys
import warnings
from typing import Any, NoReturn

import click

from unlora.characters import shortened, visible
from unlora.cli.audit import audit
from unlora.cli.cache import cache
from unlora.cli.data import data
from unlora.cli.demo import demo
from unlora.cli.doctor import doctor
from unlora.cli.evaluate import evaluate
from unlora.cli.export import export
from unlora.cli.finetune import finetune
from unlora.cli.importance import importance
from unlora.cli.launch import ARGUMENTS, leave_the_word_to_others, process_count, process_index
from unlora.cli.ledger import ledger
from unlora.cli.others import others_command, others_names
from unlora.cli.plan import plan
from unlora.cli.presets import presets
from unlora.cli.push import push
from unlora.cli.report import report
from unlora.cli.sequence import sequence
from unlora.cli.sweep import sweep
from unlora.cli.terminal import echo
from unlora.cli.unlearn import unlearn
from unlora.errors import NAME_ERRORS, NO_SPACE, STORAGE_ERRORS, UnloraError

LOST_CONNECTION = ("onnection", "gloo", "NCCL")
"""What torch says, in words that differ by version, when another process is gone."""

LONGEST_WORD = 160
"""Of a name in a message: what is wrong must not be lost behind a name of thousands of characters."""
RESUMABLE = ("unlearn", "sequence", "ledger", "sweep", "demo", "evaluate", "audit", "study")
IN_SEVERAL_PROCESSES = ("unlearn", "importance", "evaluate")


class UnloraGroup(click.Group):
    """Prints our errors as one line and exits with their code: 1 the work failed, 2 wrong use or bad input."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        own = list(self.commands)  # In the order they were added, not by the alphabet.
        return own + [name for name in others_names() if name not in self.commands]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or others_command(cmd_name)

    def make_context(self, *arguments: Any, **options: Any) -> click.Context:
        try:
            return super().make_context(*arguments, **options)
        except KeyboardInterrupt:  # before there is a command that could be gone on with
            _fail("interrupted.", 130)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[ARGUMENTS] = list(args)  # for whoever starts the same command again
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            if process_index() > 0:
                leave_the_word_to_others()
            vars(error)["message"] = visible(error.message)
            raise
        except UnloraError as error:
            _fail(str(error), error.exit_code)
        except OSError as error:
            # A closed pipe (`unlora ... | head`) is click's to end; without a reason it is no system's error.
            if error.errno == errno.EPIPE or error.strerror is None:
                raise
            _fail(*_words_of_the_system(error))
        except ValueError as error:
            if "embedded null" not in str(error):
                raise
            _fail("settings: the name of a file or folder holds a NUL character, which no name can hold.", 2)
        except MemoryError:
            _fail("the memory of this machine is not enough for this; `unlora plan` says what a run takes.", 1)
        except KeyboardInterrupt:
            advice = "; the same command goes on where it stopped" if ctx.invoked_subcommand in RESUMABLE else ""
            _fail(f"interrupted{advice}.", 130)
        except RuntimeError as error:
            if process_count() == 1 or not any(word in str(error) for word in LOST_CONNECTION):
                raise
            leave_the_word_to_others()
            _fail("another process of this run has ended; the same command goes on where it stopped.", 1)


def _words_of_the_system(error: OSError) -> tuple[str, int]:
    """What the system says of a file, what to do about it, and the exit code."""
    what = f"{error.filename if error.filename is not None else 'output'}: {error.strerror}"
    if error.errno in NAME_ERRORS:
        return f"{what}.", 2
    if error.errno in NO_SPACE:
        return f"{what}; free some space and start the same command again.", 1
    return f"{what}; choose another folder." if error.errno in STORAGE_ERRORS else f"{what}.", 1


def _fail(message: str, code: int) -> NoReturn:
    if process_index() > 0:  # The first process says what all of them meet.
        leave_the_word_to_others()
        message = f"process {process_index()}: {message}"
    words = (shortened(word, LONGEST_WORD) for word in message.split())
    echo(f"error: {' '.join(words)}", err=True)
    sys.exit(code)


@click.group(cls=UnloraGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="unlora")
def main() -> None:
    """Remove chosen knowledge from a causal language model with LoRA, and measure how far it is gone."""
    # Other libraries' advice to programmers is not for the user of a command; python -W brings it back.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    if process_count() > 1:
        command = click.get_current_context().invoked_subcommand
        if command not in IN_SEVERAL_PROCESSES:
            raise click.UsageError(f"{command}: runs in one process; several share {', '.join(IN_SEVERAL_PROCESSES)}.")
        if process_index() > 0:
            sys.stdout = open(os.devnull, "w")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        for library in ("bitsandbytes", "accelerate.accelerator"):
            logging.getLogger(library).setLevel(logging.ERROR)
        # DeepSpeed sets its level when it is imported, and speaks where our results go.
        logging.getLogger("DeepSpeed").addFilter(lambda record: record.levelno >= logging.ERROR)


for command in (
    demo, unlearn, plan, sequence, ledger, sweep, importance, finetune, evaluate, audit, report, export, push, data,
    cache, presets, doctor,
):  # fmt: skip
    main.add_command(command)
