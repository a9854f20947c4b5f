"""The bench as people use it: what it says of failures, of its own faults, and where."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.conftest import REPO

pytestmark = pytest.mark.timeout(240)
# What is under test may be a copy, which comes first.
PYTHONPATH = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(REPO))))

CASES = """
import pytest
from tidemark_host.boards.base import BoardError
from tidemark_host.hil.waiting import SiteError


def test_passes():
    pass


def test_finds_a_fault():
    raise BoardError("exec", "the board's own fault")


def test_adapter_gone():
    raise BoardError("port", "no such device")


def test_broker_gone():
    try:
        raise SiteError("the broker does not start")
    except SiteError as error:
        raise RuntimeError("wrapped") from error


async def test_hostile_console(site):
    since = len(site.board.serial_log)
    with site.board.repl() as console:
        console.exec("print('<script>alert(1)</script>')")
    await site.said("</script>", since=since)
    assert False


@pytest.fixture
def broken(site):
    raise SiteError("the bench itself")


def test_broken_setup(broken):
    pass


@pytest.mark.needs("flight")
async def test_what_no_board_can(site):
    pass
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    folder = tmp_path_factory.mktemp("bench")
    (folder / "test_cases.py").write_text(CASES)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tidemark_host.hil.plugin", "test_cases.py"),
            *("--rootdir", str(folder), "-o", "asyncio_mode=auto", "-rs"),
            *("--junit-xml=junit.xml", "--html=report.html", "--self-contained-html"),
        ],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    return done.stdout, folder


def test_faults_of_the_bench_are_errors_and_those_of_boards_failures(
    run: tuple[str, Path],
) -> None:
    said, folder = run
    assert re.search(r"2 failed, 1 passed, 1 skipped.* 3 errors", said), said
    suite = ElementTree.parse(folder / "junit.xml").getroot()[0]
    assert (suite.get("failures"), suite.get("errors")) == ("2", "3")
    broken = {case.get("name"): case.find("error") is not None for case in suite.iter("testcase")}
    assert broken["test_adapter_gone"]
    assert broken["test_broker_gone"]
    assert not broken["test_finds_a_fault"]


SAYS = """
import pytest
from tidemark_host.hil import plugin


@pytest.fixture(scope="session")
def held(pytestconfig):
    said = plugin._unsaid(pytestconfig)
    said.append("desk-1: recovered")
    yield
    said.append("desk-1: given back")


def test_is_interrupted(held):
    raise KeyboardInterrupt


def test_is_not_reached(held):
    pass
"""


@pytest.mark.parametrize("workers", ["0", "1"])
def test_what_is_said_of_boards_comes_out_of_a_worker_and_of_a_run_that_ends_early(
    tmp_path: Path, workers: str
) -> None:
    (tmp_path / "test_says.py").write_text(SAYS)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "tidemark_host.hil.plugin", "test_says.py"),
            *("--rootdir", str(tmp_path), "-n", workers),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": PYTHONPATH},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    said = done.stdout.partition(" boards =")[2].splitlines()[1:3]
    assert said == ["desk-1: recovered", "desk-1: given back"], done.stdout + done.stderr


def test_each_failure_of_a_board_comes_with_the_command_that_repeats_it(
    run: tuple[str, Path],
) -> None:
    said, folder = run
    command = "make hil TARGET=virtual 'TEST=test_cases.py::test_hostile_console[virtual]'"
    assert command in said
    suite = ElementTree.parse(folder / "junit.xml").getroot()[0]
    assert command in [entry.get("value") for entry in suite.iter("property")]
    assert command in unescape(_extras(folder, "test_hostile_console"))


def test_report_has_board_flash_and_gateway_on_one_timeline_as_text(
    run: tuple[str, Path],
) -> None:
    page = _extras(run[1], "test_hostile_console")
    for source in ("board", "flash", "reset", "gateway"):
        assert f">{source}</td>" in page, source
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>" not in page
    times = [float(number) for number in re.findall(r'right">(\d+\.\d+)</td>', page)]
    assert times == sorted(times)
    assert len(times) > 10


def test_what_a_board_cannot_do_is_skipped_with_the_reason(run: tuple[str, Path]) -> None:
    assert "1 skipped" in run[0]
    assert "flight" in run[0]


def _extras(folder: Path, test: str) -> str:
    """Return what the page shows below a test."""
    text = (folder / "report.html").read_text("utf-8")
    match = re.search(r'data-jsonblob="([^"]*)"', text)
    assert match
    rows = json.loads(unescape(match[1]))["tests"]
    return "".join(
        extra["content"]
        for name, entries in rows.items()
        if test in name
        for entry in entries
        for extra in entry["extras"]
    )
