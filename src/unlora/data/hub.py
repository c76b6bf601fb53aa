"""Data sets of the hub: whatever its client raises becomes one line."""

from typing import Any

from unlora.errors import InputError


def load_from_hub(hub_id: str, configuration: str | None, split: str, *, what: str, advice: str) -> Any:
    """Load one split of a data set.

    Args:
        hub_id: of the data set.
        configuration: of the data set; None is its only one.
        split: its name on the hub.
        what: what a message calls it.
        advice: what to do without the hub.

    Raises:
        InputError: it cannot be had, with the first line of what the client says.
    """
    import datasets  # seconds to import, and needed for the hub alone

    try:
        return datasets.load_dataset(hub_id, configuration, split=split)
    except Exception as error:  # the hub client fails in a dozen unrelated types
        if "gated" in f"{type(error).__name__} {error}".lower():
            ask = f"log in at https://huggingface.co/datasets/{hub_id}, accept its terms, then run `hf auth login`"
            message = f"{what}: access to {hub_id} is granted on request: {ask}; or, {advice}."
        else:
            reason = str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__
            message = f"{what}: {hub_id} cannot be loaded from the hub ({reason}); {advice}."
        raise InputError(message) from None
