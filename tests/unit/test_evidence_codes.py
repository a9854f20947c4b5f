"""What the firmware says of itself fits a record of the evidence ring: a code that is cut there is
one that nobody finds in a document."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import firmware_dir
from tidemark.base import Base
from tidemark.errors import StateError
from tidemark.evidence import MAX_CODE

MAX_DETAIL = 16
# Told by the boot or by the factory, never refused in a running board.
NEVER_REFUSED = {"provisioning-damaged", "provisioning-worn"}


def calls() -> Iterator[tuple[str, str, str]]:
    """Yield (file, function, first argument) of each call with a str first."""
    for path in sorted(firmware_dir().rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call) or not node.args:
                continue
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            first = node.args[0]
            if isinstance(first, ast.Constant) and isinstance(first.value, str):
                yield path.name, name, first.value


def events() -> Iterator[str]:
    """Yield the code of each (event, detail) that a part of the state hands to `record_all`."""
    for name in ("slots.py", "runtimes.py"):
        tree = ast.parse((firmware_dir() / "tidemark" / name).read_text("utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.List):
                for item in node.elts:
                    first = item.elts[0] if isinstance(item, ast.Tuple) else None
                    if isinstance(first, ast.Constant) and isinstance(first.value, str):
                        yield first.value


def test_codes_that_are_recorded_fit() -> None:
    recorded = {code for _, name, code in calls() if name == "record"} | set(events())
    assert {"boot", "rescue", "ota-fallback", "ota-refused"} <= recorded
    assert [code for code in sorted(recorded) if len(code) > MAX_CODE] == []


def test_codes_of_the_runtimes_that_are_refused_fit() -> None:
    """`stage0` refuses by SlotError, too."""
    raised = {
        code
        for file, name, code in calls()
        if file == "runtimes.py" and (name == "StateError" or code.startswith("rt-"))
    }
    assert {"rt-index", "rt-fallback", "rt-unsettled", "otadata-worn"} <= raised
    assert [code for code in sorted(raised) if len(code) > MAX_CODE] == []


def test_codes_that_are_refused_fit_as_a_code_or_as_a_detail() -> None:
    codes = {code for _, name, code in calls() if name == "StateError"} - NEVER_REFUSED
    assert [code for code in sorted(codes) if len(code) > MAX_DETAIL] == []


@pytest.mark.parametrize(
    ("code", "record"),
    [("otadata-worn", ("otadata-worn", "trial")), ("random-health", ("refused", "random-health"))],
)
def test_refusal_is_recorded_with_its_whole_code(code: str, record: tuple[str, str]) -> None:
    base: Any = object.__new__(Base)
    base._refused = set()
    records: list[tuple[str, str]] = []
    base.record = lambda code, detail: records.append((code, detail))
    base.refuse(StateError(code), "trial")
    base.refuse(StateError(code), "trial")
    assert records == [record]
