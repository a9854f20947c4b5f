"""Removes one rule at a time from a copy of the code and checks that a test notices.

A mutant counts as killed only when its tests run to a failed assertion or error in a test body: a
module that does not import, a test that does not exist or a fixture that breaks prove nothing.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import tomllib
import xml.etree.ElementTree as ET
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.nursery import REPO, NoEnd, Nursery

FIRMWARE = REPO / "firmware"
HOST = REPO / "host_tools"
LIST = Path(__file__).with_name("mutants.toml")
# Below the outer test's limit: a mutant that hangs is one that its test has to bound.
LIMIT_S = 100
# Of those that build an image of their own and run it in the emulator.
EMULATED_LIMIT_S = 360
_ID = re.compile(r"^(?:I(?:[1-9]|1[01])|B)-[a-z0-9-]+$")
# A mutant that is merely misspelt fails with one of these.
_NO_PROOF = re.compile(r"(ImportError|ModuleNotFoundError|NameError|SyntaxError)\b")
_NURSERY = Nursery()
_KEYS = {"id", "rule", "file", "old", "new", "tests", "micropython"}


class MutantError(Exception):
    """A mutant that proves nothing: wrong text, wrong tests, or tests that fail without it."""


@dataclass(frozen=True)
class Mutant:
    """One removed rule: `old` in `file` becomes `new`; `tests` must fail.

    `file` is below firmware/, or starts with "host_tools/".
    """

    id: str
    rule: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]
    micropython: bool = False

    @property
    def is_host(self) -> bool:
        """Whether the rule is one of the host's, not the firmware's."""
        return self.file.startswith("host_tools/")

    @property
    def is_emulated(self) -> bool:
        """Whether its tests run on the emulated Pico."""
        return any("emulated" in test or "pico" in test for test in self.tests)

    @property
    def invariant(self) -> str:
        """Return the invariant's name, I1 to I11, or B: a rule of the bench itself."""
        return self.id.partition("-")[0]


@dataclass(frozen=True)
class Outcome:
    """What a run of pytest came to."""

    passed: int
    failed: int
    broken: int
    output: str


def load(path: Path = LIST) -> list[Mutant]:
    """Read the list of mutants. Raises MutantError for an entry that is not well-formed."""
    mutants: list[Mutant] = []
    for entry in tomllib.loads(path.read_text()).get("mutant", []):
        name = str(entry.get("id", "?"))
        if not _ID.match(name):
            raise MutantError(f"{name}: an id is I1 to I11 or B, a dash, and lower-case words")
        if unknown := set(entry) - _KEYS:
            raise MutantError(f"{name}: nothing reads {sorted(unknown)}")
        if missing := _KEYS - set(entry) - {"micropython"}:
            raise MutantError(f"{name}: lacks {sorted(missing)}")
        if not entry["tests"]:
            raise MutantError(f"{name}: names no test")
        mutants.append(Mutant(**{**entry, "tests": tuple(entry["tests"])}))
    names = [mutant.id for mutant in mutants]
    if len(names) != len(set(names)):
        raise MutantError("two mutants have the same id")
    return mutants


def mutate(mutant: Mutant, root: Path) -> None:
    """Alter the copy below `root` in place. Raises MutantError as `altered`."""
    text = altered(mutant, root)
    (root / mutant.file).write_text(text)


def altered(mutant: Mutant, root: Path) -> str:
    """Return the file below `root` without the rule; MutantError unless `old` is there exactly
    once and what results compiles."""
    path = root / mutant.file
    if not path.is_file():
        raise MutantError(f"{mutant.id}: no file {mutant.file}")
    text = path.read_text()
    count = text.count(mutant.old)
    if count != 1:
        raise MutantError(f"{mutant.id}: its old text occurs {count} times in {mutant.file}")
    result = text.replace(mutant.old, mutant.new)
    if result == text:
        raise MutantError(f"{mutant.id}: changes nothing")
    try:
        compile(result, mutant.file, "exec")
    except SyntaxError as error:
        raise MutantError(f"{mutant.id}: does not compile: {error}") from error
    return result


def run_tests(mutant: Mutant, firmware: Path, host: Path = HOST) -> Outcome:
    """Run the mutant's tests against two folders of code, up to the first failure."""
    with tempfile.TemporaryDirectory(prefix="tidemark-mutant-") as scratch:
        report = Path(scratch) / "report.xml"
        env = {name: value for name, value in os.environ.items() if "PYTEST" not in name}
        env["TIDEMARK_FIRMWARE"] = str(firmware)
        env["PYTHONPATH"] = str(host)
        env["PYTHONDONTWRITEBYTECODE"] = "1"
        if not mutant.micropython:
            env["TIDEMARK_INTERPRETERS"] = "cpython"
        # It must find what it finds each time, and must not learn from a mutant.
        env["TIDEMARK_HYPOTHESIS"] = "ci"
        argv = ["-x", "-q", "-p", "no:cacheprovider"]
        said = Path(scratch) / "said.txt"
        limit = EMULATED_LIMIT_S if mutant.is_emulated else LIMIT_S
        try:
            status = _NURSERY.run(
                [str(said), *argv, f"--junitxml={report}", *mutant.tests], env, host, limit
            )
        except NoEnd as error:
            # What it said ends with where each thread waited.
            where = said.read_text("utf-8", "backslashreplace")
            what = f"{mutant.id}: its tests have no end: bound them\n{where}"
            raise MutantError(what) from error
        output = said.read_text("utf-8", "backslashreplace")
        if status not in (0, 1) or not report.is_file():
            return Outcome(0, 0, 1, output)
        return _read_report(report, output)


def _read_report(report: Path, output: str) -> Outcome:
    passed = failed = broken = 0
    for case in ET.parse(report).iter("testcase"):
        failure = case.find("failure")
        message = failure.get("message", "") if failure is not None else ""
        if case.find("error") is not None or _NO_PROOF.match(message):
            broken += 1
        elif failure is not None:
            failed += 1
        elif case.find("skipped") is None:
            passed += 1
    return Outcome(passed, failed, broken, output)


def check(mutant: Mutant) -> str:
    """Return the name of the first test that notices the mutant; MutantError if none does."""
    _check_baseline(mutant)
    with tempfile.TemporaryDirectory(prefix="tidemark-mutant-") as scratch:
        firmware, host = FIRMWARE, HOST
        if mutant.is_host:
            host = Path(scratch) / "host_tools"
            shutil.copytree(HOST, host, ignore=shutil.ignore_patterns("__pycache__"))
            mutate(mutant, Path(scratch))
            # Found beside the host's code: what a runtime is built from.
            for name in ("boards", "firmware", "manifest.py"):
                (Path(scratch) / name).symlink_to(REPO / name)
        else:
            firmware = Path(scratch) / "firmware"
            shutil.copytree(FIRMWARE, firmware, ignore=shutil.ignore_patterns("__pycache__"))
            mutate(mutant, firmware)
        outcome = run_tests(mutant, firmware, host)
    if outcome.broken:
        raise MutantError(f"{mutant.id}: its tests break instead of failing\n{outcome.output}")
    if not outcome.failed:
        raise MutantError(f"{mutant.id} survives: no test fails without the rule '{mutant.rule}'")
    found = re.search(r"^FAILED (\S+)", outcome.output, re.MULTILINE)
    return found[1] if found else "?"


def _check_baseline(mutant: Mutant) -> None:
    """Run the mutant's tests on the firmware as it is; once for each state of the tree."""
    memo = REPO / "build" / "mutants" / f"{_baseline_key(mutant)}.passed"
    if memo.is_file():
        return
    outcome = run_tests(mutant, FIRMWARE)
    if outcome.broken or outcome.failed or not outcome.passed:
        raise MutantError(f"{mutant.id}: its tests do not pass unmutated\n{outcome.output}")
    memo.parent.mkdir(parents=True, exist_ok=True)
    memo.touch()


def _baseline_key(mutant: Mutant) -> str:
    sha = hashlib.sha256(repr((mutant.tests, mutant.micropython)).encode())
    # The shared test helpers and host models count too: they decide what the tests see.
    for root in (FIRMWARE, REPO / "tests", REPO / "host_tools", REPO / "boards"):
        for path in sorted(root.rglob("*.*")):
            if path.suffix in (".py", ".toml", ".json") and path != LIST:
                sha.update(f"{path}\0".encode() + path.read_bytes())
    return sha.hexdigest()[:24]
