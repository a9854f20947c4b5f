"""One setting for all tests here: its keys and images take seconds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.powercut import scenarios
from tests.powercut.setting import Setting, make_setting


@pytest.fixture(scope="session")
def setting() -> Generator[Setting]:
    """Return boards, images and repositories of the scenarios."""
    folder = Path(tempfile.mkdtemp(prefix="tidemark-powercut-"))
    made = make_setting(folder)
    scenarios.publish(made)
    yield made
    shutil.rmtree(folder, ignore_errors=True)
