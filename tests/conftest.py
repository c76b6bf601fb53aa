"""What tests of several packages share."""

import gc
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.shape_checks import check_shapes

if TYPE_CHECKING:  # The process that hands tests out runs none: it needs neither torch nor the package.
    from tests.taught import Taught

check_shapes()
SLOW = ("research", "examples", "distributed", "faults", "benchmarks")
_CACHE = pytest.StashKey[tempfile.TemporaryDirectory[str]]()
_REAL_CACHE = Path(os.environ.get("UNLORA_CACHE") or Path.home() / ".cache" / "unlora").expanduser()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_CACHE] = tempfile.TemporaryDirectory(prefix="unlora-tests-", ignore_cleanup_errors=True)


def pytest_unconfigure(config: pytest.Config) -> None:
    config.stash[_CACHE].cleanup()


@pytest.hookimpl(trylast=True)  # after the order was drawn
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first: so two processes that take work from one another end together."""
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    if item.get_closest_marker("real_model") is not None:
        return 0
    return 1 if item.path.relative_to(Path(__file__).parent).parts[0] in SLOW else 2


def pytest_collection_finish() -> None:
    """Let no collection of garbage look through the libraries again; a run asks for one, accelerate does."""
    gc.freeze()


@pytest.hookimpl(tryfirst=True)  # before the fixtures, those of a module or the session included
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let no test find scores that another test, or a run of yesterday's code, has left in the cache.

    Tests on the real model share one cache, as a user's commands would, and in it the real one's converted model.
    """
    root = Path(item.config.stash[_CACHE].name)
    if item.get_closest_marker("real_model") is None:
        os.environ["UNLORA_CACHE"] = tempfile.mkdtemp(dir=root)
        return
    os.environ["UNLORA_CACHE"] = str(root / "real")
    for model in _REAL_CACHE.glob("smollm2-*"):
        link = root / "real" / model.name
        if not link.exists():
            link.parent.mkdir(exist_ok=True)
            link.symlink_to(model)


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> "Taught":
    """A tiny model that knows what is to be forgotten and what is to stay. Read only."""
    from tests.taught import build_taught

    return build_taught(tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="session")
def finished_run(taught: "Taught", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with default settings on the taught model. Copy it before changing anything."""
    from unlora.recipes.unlearn import unlearn  # Tests of the ground need neither torch nor the Trainer.

    folder = tmp_path_factory.mktemp("runs") / "run"
    unlearn(taught.settings(), folder)
    return folder
