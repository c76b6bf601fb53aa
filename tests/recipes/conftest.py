"""One finished run, made once and only read."""

from pathlib import Path

import pytest

from tests.taught import Taught
from unlora.recipes.unlearn import unlearn


@pytest.fixture(scope="session")
def finished_run(taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with default settings on the taught model. Copy it before changing anything."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    unlearn(taught.settings(), folder)
    return folder
