"""Files that people bring, read by libraries that raise whatever comes up: one line instead."""

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from unlora.errors import NO_SPACE, InputError, UnloraError, kind_in_words, text_in_words

SPEAKING = (OSError, ValueError, RuntimeError, ImportError, SafetensorError)
"""Errors that libraries raise on purpose, with a sentence; of all others the kind is named too."""


@contextmanager
def reading(failure: str) -> Iterator[None]:
    """Turn everything that a library raises while it reads something into one line.

    transformers and PEFT check little of a config before they use it, so that a wrong value ends in any error there
    is. Only calls of such a library belong in the block: an error of ours would be taken for one of the file.

    Args:
        failure: what could not be done, without a full stop, such as "model 'x': cannot be loaded".

    Raises:
        InputError: `failure`, with what the library said.
    """
    try:
        yield
    except (UnloraError, MemoryError):
        raise
    except OSError as error:
        if error.errno in NO_SPACE:
            raise
        raise InputError(f"{failure} ({one_line(error)}).") from None
    except Exception as error:
        raise InputError(f"{failure} ({one_line(error)}).") from None


def one_line(error: Exception) -> str:
    """What an error says, its kind before it where that says more, cut to 200 characters."""
    text = text_in_words(error)
    if not isinstance(error, SPEAKING) or not text:
        text = f"{kind_in_words(error)}: {text}".removesuffix(": ")
    return text if len(text) <= 200 else text[:200] + "..."
