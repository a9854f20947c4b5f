"""Runs every test of this folder twice: on CPython and under real MicroPython.

A test file here holds plain `def test_*():` functions with bare asserts, without parameters and
without pytest. It imports firmware modules (`from tidemark.counter import Counter`), helpers of
this folder, and `nor` (the NOR flash model). Each function becomes two tests, `test_x[cpython]`
and `test_x[micropython]`. A name says if it is for one interpreter only: `test_cpython_*` and
`test_vm_*`; imports that only one of them has belong inside such a function.

The MicroPython half of a file runs in one process (runner.py), started when the first of its tests
is due, in the order in which pytest asks. A process that dies takes the test down that it was in;
the next test gets a new one. TIDEMARK_INTERPRETERS=cpython leaves the MicroPython half out.
"""

from __future__ import annotations

import inspect
import os
import queue
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import GENERATED, SHARED, firmware_dir
from tidemark_host import toolchain

HERE = Path(__file__).resolve().parent
INTERPRETERS = ("cpython", "micropython")
LIMIT_S = 110.0
HEAP = "64M"
_MARK = "@@tidemark "


class VmFailure(Exception):
    """A test that failed under MicroPython; the text is its traceback."""


class VmFile:
    """One test file under MicroPython: a process that runs the functions it is told, in order."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str | None] = queue.Queue()

    def run(self, name: str) -> None:
        """Run the function `name`; raises VmFailure with what MicroPython printed."""
        process = self._started()
        assert process.stdin
        output: list[str] = []
        try:
            process.stdin.write(name + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            pass  # It died while importing the file: what it printed says why.
        deadline = time.monotonic() + LIMIT_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                self.close()
                raise VmFailure(_text(output, f"no end after {LIMIT_S:.0f} s")) from None
            if line is None:
                status = process.wait()
                self._process = None
                raise VmFailure(_text(output, f"MicroPython ended with status {status}"))
            if line == f"{_MARK}ok {name}\n":
                if output:
                    print("".join(output))
                return
            if line == f"{_MARK}fail {name}\n":
                raise VmFailure(_text(output))
            output.append(line)

    def close(self) -> None:
        """End the process if there is one."""
        process, self._process = self._process, None
        if process:
            process.kill()
            process.communicate()

    def _started(self) -> subprocess.Popen[str]:
        if self._process:
            return self._process
        paths = [firmware_dir(), GENERATED, HERE, SHARED, toolchain.umqtt_dir()]
        self._process = process = subprocess.Popen(
            [
                *toolchain.quick_micropython(),
                *("-X", f"heapsize={HEAP}"),
                str(HERE / "runner.py"),
                str(self._path),
                *map(str, paths),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._lines = lines = queue.Queue[str | None]()

        def read() -> None:
            assert process.stdout
            for line in process.stdout:
                lines.put(line)
            lines.put(None)

        threading.Thread(target=read, daemon=True).start()
        return process


def _text(output: list[str], ending: str = "") -> str:
    """Return MicroPython's output with the source line below each line of its traceback."""
    lines: list[str] = []
    for line in output:
        lines.append(line.rstrip("\n"))
        parts = line.strip().split('"')
        number = parts[2].removeprefix(", line ").split(",")[0] if len(parts) == 3 else ""
        if parts[0] == "File " and number.isdigit():
            path = Path(parts[1])
            source = path.read_text().splitlines() if path.is_file() else []
            lines += [f"    {text.strip()}" for text in source[int(number) - 1 : int(number)]]
    return "\n".join([*lines, ending]).strip()


_files: dict[Path, VmFile] = {}


def _wanted(name: str) -> list[str]:
    asked = os.environ.get("TIDEMARK_INTERPRETERS", ",".join(INTERPRETERS)).split(",")
    if name.startswith("test_cpython_"):
        asked = [one for one in asked if one == "cpython"]
    elif name.startswith("test_vm_"):
        asked = [one for one in asked if one == "micropython"]
    return [one for one in INTERPRETERS if one in asked]


@pytest.fixture(autouse=True)
def interpreter(request: pytest.FixtureRequest) -> str:
    """Name the interpreter of this test; pytest_generate_tests gives the values."""
    return request.param


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make two tests of each function."""
    if inspect.signature(metafunc.function).parameters:
        raise pytest.Collector.CollectError(
            f"{metafunc.function.__name__} takes parameters: a test in tests/vm takes none, "
            "since MicroPython has no fixtures"
        )
    wanted = _wanted(metafunc.function.__name__)
    metafunc.parametrize("interpreter", wanted, indirect=True)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file's tests on one xdist worker, so that one process serves them."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.xdist_group(f"vm-{item.path.stem}"))


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Run the MicroPython half; None leaves the CPython half to pytest."""
    callspec = getattr(pyfuncitem, "callspec", None)
    if pyfuncitem.path.parent != HERE or callspec.params.get("interpreter") != "micropython":
        return None
    file = _files.setdefault(pyfuncitem.path, VmFile(pyfuncitem.path))
    file.run(pyfuncitem.function.__name__)
    return True


@pytest.fixture(scope="session", autouse=True)
def _end_processes() -> Iterator[None]:
    """End the MicroPython processes with the session."""
    yield
    for file in _files.values():
        file.close()


def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, call: pytest.CallInfo[object], report: object
) -> None:
    """Show MicroPython's traceback alone: the frames of this file say nothing."""
    if call.excinfo and isinstance(call.excinfo.value, VmFailure):
        report.longrepr = str(call.excinfo.value)  # pyright: ignore[reportAttributeAccessIssue]
