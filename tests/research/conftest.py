"""The tiny world, taught once for all tests and processes."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def small_worlds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of the whole session's, in which the first who wants a world builds it while others wait."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "small_world"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(autouse=True)
def _known_worlds(small_worlds: Path) -> None:
    """Worlds are found in every test's cache; scores that another test has left there are not."""
    Path(os.environ["UNLORA_CACHE"], "small_world").symlink_to(small_worlds)
