"""Runs of pytest that need not begin with an empty Python: each is a fork of one that has begun.

Most of a mutant's time used to be the start of two interpreters. Here one process imports pytest,
its plugins and other people's packages, then forks for each run; nothing of this repository is in
it, so that a fork finds the altered code, as a fresh interpreter with PYTHONPATH would.
"""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import gc
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
_START_S = 60
_OURS = ("tidemark", "agent", "nor", "boardfile")
_PRELOADED = (
    *("pytest", "_pytest.junitxml", "pytest_asyncio.plugin", "pytest_timeout", "xdist.plugin"),
    *("pytest_html.plugin", "pytest_metadata.plugin", "anyio.pytest_plugin", "hypothesis"),
    *("cbor2", "aiomqtt", "aiohttp.web", "serial", "tuf.api.metadata", "tuf.ngclient"),
    *("cryptography.hazmat.primitives.asymmetric.ed25519", "securesystemslib.signer"),
)


class NoEnd(Exception):
    """A run that was not over in its time; it was ended."""


class Nursery:
    """The process that forks. `run` starts it when it is not there; it ends with this one."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._answers = b""

    def run(self, argv: Sequence[str], env: Mapping[str, str], path: Path, limit_s: float) -> int:
        """Run pytest with `argv`, `env` and `path` first on sys.path; return its exit status.

        Shortly before `limit_s` is over it says in its output where each of its threads waits.
        `argv`: its first word names the file that its output goes to. Raises NoEnd.
        """
        process = self._started(env)
        assert process.stdin
        job = {"argv": list(argv), "env": dict(env), "path": str(path), "dump_s": limit_s * 0.9}
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
        child = 0
        try:
            child = self._answer(time.monotonic() + _START_S)
            return self._answer(time.monotonic() + limit_s)
        except BaseException:  # the time-out of the test around this, too
            if child:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGKILL)
            # Its answers may be of this run still: the next run gets a process of its own.
            self.close()
            raise

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        self._answers = b""
        if process:
            assert process.stdin and process.stdout
            process.kill()
            process.stdin.close()
            process.stdout.close()
            process.wait()

    def _started(self, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.mutants.nursery"],
                cwd=REPO,
                # Without the altered code, which each fork gets for itself.
                env={name: value for name, value in env.items() if name != "PYTHONPATH"},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
            atexit.register(self.close)
        return self._process

    def _answer(self, until: float) -> int:
        """Return the next number that the process says."""
        assert self._process and self._process.stdout
        out = self._process.stdout.fileno()
        while b"\n" not in self._answers:
            if not select.select([out], [], [], max(0.0, until - time.monotonic()))[0]:
                raise NoEnd
            data = os.read(out, 4096)
            if not data:
                raise RuntimeError("the process that forks has ended")
            self._answers += data
        line, _, self._answers = self._answers.partition(b"\n")
        return int(line)


def _serve() -> None:
    """Fork for each line of standard input; say the fork's process id, then its exit status."""
    for name in _PRELOADED:
        importlib.import_module(name)
    ours = [name for name in sys.modules if name.partition("_host")[0].split(".")[0] in _OURS]
    assert not ours, f"a fork would not see altered code: {ours}"
    gc.collect()
    gc.freeze()
    for line in sys.stdin.buffer:
        job = json.loads(line)
        child = os.fork()
        if not child:
            _run(job)
        os.write(1, b"%d\n" % child)
        _, status = os.waitpid(child, 0)
        os.write(1, b"%d\n" % os.waitstatus_to_exitcode(status))


def _run(job: dict[str, Any]) -> None:
    """Run pytest in this process, and end it."""
    status = 70
    try:
        os.setsid()
        output, *argv = job["argv"]
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        to = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(to, 1)
        os.dup2(to, 2)
        faulthandler.dump_traceback_later(job["dump_s"], file=to)
        os.environ.clear()
        os.environ.update(job["env"])
        sys.path.insert(1, job["path"])
        sys.argv = ["pytest", *argv]
        pytest = importlib.import_module("pytest")
        status = int(pytest.main(argv))
        sys.stdout.flush()
        sys.stderr.flush()
        atexit._run_exitfuncs()
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve()
