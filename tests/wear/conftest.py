"""Each failure prints what replays it: these tests have no dice, so their name is enough."""

from __future__ import annotations

from collections.abc import Generator

import pytest


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the command to the report of a test that failed."""
    report = yield
    if report.failed:
        report.sections.append(("replay", f".venv/bin/pytest '{item.nodeid}'"))
    return report
