"""What tests of several packages share."""

import pytest

from tests.taught import Taught, build_taught


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """A tiny model that knows what is to be forgotten and what is to stay. Read only."""
    return build_taught(tmp_path_factory.mktemp("taught"))
