"""One subject for all attacks, made once and only read."""

from pathlib import Path

import pytest

from tests.audit.subjects import build_subject
from unlora.audit.subject import AuditSubject


@pytest.fixture(scope="session")
def subject_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the subject's files lie: base, target, retain_only, adapter and the sets."""
    return tmp_path_factory.mktemp("audit")


@pytest.fixture(scope="session")
def subject(subject_folder: Path) -> AuditSubject:
    """Target, unlearned and retain-only model that really know, forgot and never knew. Read only."""
    return build_subject(subject_folder)
