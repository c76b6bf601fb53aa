"""Silence for work whose progress nobody needs to see."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging

CHECKED_ELSEWHERE = (
    "Model (has|with) `tie_word_embeddings=True`",
    "Input and output embeddings are no longer tied",
)
"""How PEFT's warnings begin that `merge_adapter` answers: it gives the head its own weights and compares the logits."""


@contextmanager
def quiet() -> Iterator[None]:
    """Hide the progress bars of transformers, its messages below an error, and announcements of future changes.

    A warning that says the result may be wrong passes, unless it is one that we check ourselves. All settings are put
    back afterwards.
    """
    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            for beginning in CHECKED_ELSEWHERE:
                warnings.filterwarnings("ignore", beginning)
            yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
