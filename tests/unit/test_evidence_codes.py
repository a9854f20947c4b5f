"""Every code that the firmware can record fits a record of the evidence ring, from the source: a
code that is cut there is one that nobody finds in a document."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from nor import NorFlash
from tests.conftest import firmware_dir
from tidemark import errors
from tidemark.base import Base
from tidemark.errors import StateError
from tidemark.evidence import MAX_CODE, REMOTE, SECURITY, Evidence, parse
from tidemark.flash import Region

FAMILIES = {name for name in vars(errors) if name.endswith("Error")}

# What stands in for a code that is put together, or handed on: all that it can be. A new one has
# to be looked at and told here.
_KINDS = ("root", "timestamp", "snapshot", "targets")
MADE = {
    ("session.py", "kind + '-shape'"): ("welcome-shape", "time-shape"),
    ("tuf.py", "'snapshot-' + wrong"): ("snapshot-length", "snapshot-hash"),
    ("tuf.py", "'targets-' + wrong"): ("targets-length", "targets-hash"),
    ("tuf.py", "kind + '-threshold'"): tuple(f"{kind}-threshold" for kind in _KINDS),
    ("tuf.py", "kind + '-expired'"): tuple(f"{kind}-expired" for kind in _KINDS),
    ("tuf_client.py", "kind + '-missing'"): ("snapshot-missing", "targets-missing"),
    ("tuf_client.py", "name + '-missing'"): tuple(f"{kind}-missing" for kind in _KINDS[1:]),
    ("wifi.py", "self.error or 'joining'"): ("joining",),  # and the words of the radio
    ("mux.py", "*answer"): ("resolve", "refused", "timeout"),
    ("unix.py", "refused.code"): ("bounds", "align", "overwrite", "size"),
}
# Handed on: codes of errors, words and pairs that are collected where they are made.
HANDED_ON = {"e.code", "error.code", "code", "word", "reason", "outcome"}
RECORDING = {"record": 0, "_end_trial": 2}  # function: which argument is the code


@cache
def trees() -> tuple[tuple[str, ast.Module], ...]:
    paths = sorted(firmware_dir().rglob("*.py"))
    return tuple((path.name, ast.parse(path.read_text("utf-8"))) for path in paths)


def calls() -> Iterator[tuple[str, str, list[ast.expr]]]:
    """Yield (file, function, arguments) of each call that has some."""
    for file, tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and node.args:
                yield file, getattr(node.func, "attr", getattr(node.func, "id", "")), node.args


def words(name: str, shape: str) -> Iterator[str]:
    """Yield the strings of a file that have the shape of what it has recorded."""
    for node in (node for file, tree in trees() if file == name for node in ast.walk(tree)):
        value = getattr(node, "value", None)
        if isinstance(value, str) and re.fullmatch(shape, value):
            yield value


def events() -> Iterator[str]:
    """Yield the code of each (event, detail) that a part of the state hands to `record_all`."""
    for file, tree in trees():
        if file not in ("slots.py", "runtimes.py"):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.List):
                for item in node.elts:
                    first = item.elts[0] if isinstance(item, ast.Tuple) else None
                    if isinstance(first, ast.Constant) and isinstance(first.value, str):
                        yield first.value


def test_every_code_that_can_be_recorded_has_room() -> None:
    codes = {*events(), *words("wifi.py", "[a-z]+-[a-z]+"), "heap", "crash", "memory"}
    unknown: list[tuple[str, str]] = []
    for file, name, arguments in calls():
        at = RECORDING.get(name, 0 if name in FAMILIES else -1)
        if not 0 <= at < len(arguments):
            continue
        first = arguments[at]
        if isinstance(first, ast.Constant) and isinstance(first.value, str):
            codes.add(first.value)
        elif (made := MADE.get((file, ast.unparse(first)))) is not None:
            codes.update(made)
        elif name in FAMILIES or ast.unparse(first) not in HANDED_ON:
            unknown.append((file, ast.unparse(first)))
    assert unknown == []
    known = {"boot", "rejected", "bad-password", "timestamp-rollback", "provisioning-damaged"}
    assert known <= codes
    assert [code for code in sorted(codes) if len(code) > MAX_CODE or not is_whole(code)] == []


def is_whole(code: str) -> bool:
    """Return whether a ring has the code as it was, of a board's own event and of a peer's."""
    for kind in (SECURITY, REMOTE):
        ring: Any = Evidence(Region(NorFlash(8192), 0, 8192))
        ring.recover()
        ring.add("boot")
        if parse(ring.read(ring.add(code, b"detail", kind), 1))[2] != code:
            return False
    return True


@pytest.mark.parametrize("code", ["otadata-worn", "random-health", "provisioning-damaged"])
def test_refusal_is_recorded_with_its_whole_code(code: str) -> None:
    base: Any = object.__new__(Base)
    base._refused = set()
    records: list[tuple[str, str]] = []
    base.record = lambda code, detail: records.append((code, detail))
    base.refuse(StateError(code), "trial")
    base.refuse(StateError(code), "trial")
    assert records == [(code, "trial")]
