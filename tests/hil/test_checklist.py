"""docs/hardware-checklist.md: its commands name boards and tests that exist, and run anywhere."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPO
from tidemark_host.boards.serial_board import SerialBoard
from tidemark_host.hil import targets
from tidemark_host.hil.places import SerialTarget

PAGE = (REPO / "docs" / "hardware-checklist.md").read_text()
COMMANDS = re.findall(r"`(make hil [^`]+)`", PAGE)
WORDS = {"TARGET", "BOARD", "TEST", "MARK"}


def settings(command: str) -> dict[str, str]:
    """Return what a command sets; anything but settings is an error."""
    make, target, *words = shlex.split(command)
    assert (make, target) == ("make", "hil"), command
    pairs = dict(word.split("=", 1) for word in words)
    assert len(pairs) == len(words) and set(pairs) <= WORDS, command
    return pairs


def pytest_run(*words: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n", "0", "-q", *words],
        cwd=REPO,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_every_command_is_for_a_board_at_a_serial_port() -> None:
    assert len(COMMANDS) == len(set(COMMANDS)) > 20
    for command in COMMANDS:
        chosen = settings(command)
        assert chosen["TARGET"] == "serial", command
        assert (REPO / "boards" / chosen["BOARD"] / "board.toml").is_file(), command
        assert chosen.get("MARK", "smoke") == "smoke", command


def test_every_board_with_a_chip_has_the_whole_suite_on_the_page() -> None:
    boards = {path.parent.name for path in REPO.glob("boards/TIDEMARK_*/board.toml")}
    whole = {
        chosen["BOARD"]
        for command in COMMANDS
        for chosen in [settings(command)]
        if set(chosen) == {"TARGET", "BOARD"}
    }
    assert whole == boards


def test_every_test_that_a_command_names_is_there() -> None:
    named = {settings(command).get("TEST", "tests/system") for command in COMMANDS}
    paths = {name.partition("::")[0] for name in named}
    assert not [path for path in paths if not (REPO / path).exists()]
    code, said = pytest_run("--collect-only", *sorted(named))
    assert code == 0, said
    for path in paths:
        assert path in said, f"{path} has no test"


# Abilities that no board at a serial port has: a test that needs one never runs on it.
BEYOND = (targets.ALL | {targets.FAULTS}) - {targets.POWER, targets.CUT}
# What a board at a serial port does only where a switch of its supply is named.
SWITCHED = {
    "power_off": {targets.POWER, targets.CUT},
    "cut_at": {targets.CUT},
    "wait_cut": {targets.CUT},
}


def needs(nodes: list[ast.expr]) -> set[str]:
    """Return the abilities that marks among `nodes` ask for."""
    return {
        str(ast.literal_eval(call.args[0]))
        for node in nodes
        for call in ast.walk(node)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Attribute)
        and call.func.attr == "needs"
    }


def used(function: ast.AST, name: str) -> Iterator[str]:
    """Yield what is used of `site.<name>`, be it by a cast, `<name>_of(site)` or a variable."""
    called: set[str] = set()

    def is_it(node: ast.expr) -> bool:
        match node:
            case ast.Attribute(ast.Name("site"), attr):
                return attr == name
            case ast.Call(ast.Name("cast"), [_, value]):
                return is_it(value)
            case ast.Call(ast.Name(callee)):
                return callee == f"{name}_of"
            case ast.Name(variable):
                return variable in called
            case _:
                return False

    nodes = list(ast.walk(function))
    for node in nodes:
        if isinstance(node, ast.Assign) and is_it(node.value):
            called |= {one.id for one in node.targets if isinstance(one, ast.Name)}
    for node in nodes:
        if isinstance(node, ast.Attribute) and is_it(node.value):
            yield node.attr


def beyond_a_serial_port(source: str) -> list[str]:
    """Return what functions of a test file use, unmarked, that no serial board does."""
    module = ast.parse(source)
    found: list[str] = []
    marked: set[str] = set()
    for node in module.body:
        match node:
            case ast.Assign([ast.Name("pytestmark")], value):
                marked = needs([value])
            case ast.FunctionDef() | ast.AsyncFunctionDef():
                marks = marked | needs(node.decorator_list)
                if marks & BEYOND:
                    continue
                found += [
                    f"{node.name}: {name}"
                    for name in used(node, "board")
                    if not hasattr(SerialBoard, name)
                    or (name in SWITCHED and not marks & SWITCHED[name])
                ]
                found += [
                    f"{node.name}: target.{name}"
                    for name in used(node, "target")
                    if not hasattr(targets.Target, name) and not hasattr(SerialTarget, name)
                ]
            case _:
                pass
    return found


def test_every_test_uses_what_a_serial_board_has_or_says_what_it_needs() -> None:
    named = {settings(command).get("TEST", "tests/system") for command in COMMANDS}
    files = {
        path for name in named if (REPO / name).is_dir() for path in REPO.glob(f"{name}/*.py")
    }
    files |= {REPO / name.partition("::")[0] for name in named if not (REPO / name).is_dir()}
    found = {path.name: beyond_a_serial_port(path.read_text()) for path in sorted(files)}
    assert not {name: uses for name, uses in found.items() if uses}


@pytest.mark.parametrize(
    ("lines", "noticed"),
    [
        ("board_of(site).brownout()", True),
        ("await asyncio.to_thread(board_of(site).brownout)", True),
        ("site.board.cut_in('otadata', 1)", True),
        ("board = cast('Board', site.board); board.wear(0, 1)", True),
        ("cast('Any', site.target).chip", True),
        ("site.board.power_off()", True),
        ("site.board.reset(); board_of(site).running; site.target.patience", False),
    ],
)
def test_what_no_serial_board_does_is_noticed(lines: str, noticed: bool) -> None:
    test = f"async def test_it(site):\n    {lines}\n"
    assert bool(beyond_a_serial_port(test)) == noticed
    for mark in ("operations", "faults", "console"):
        assert not beyond_a_serial_port(f"@pytest.mark.needs('{mark}')\n{test}")
        assert not beyond_a_serial_port(f"pytestmark = [pytest.mark.needs('{mark}')]\n{test}")
    assert bool(beyond_a_serial_port(f"@pytest.mark.needs('runtimes')\n{test}")) == noticed


def test_every_file_and_page_that_it_points_to_is_there() -> None:
    for name in re.findall(r"\]\(([a-z0-9/.-]+\.md)\)", PAGE):
        assert (REPO / "docs" / name).is_file(), name
    for function, file in re.findall(r"`([\w.]+)` in (port/\w+\.py)", PAGE):
        source = (REPO / "firmware" / "tidemark" / file).read_text()
        assert all(f"{part}" in source for part in function.split(".")), (function, file)


def test_make_hands_every_setting_on() -> None:
    # One of each kind: what they set, not to what.
    for command in {tuple(settings(command)): command for command in COMMANDS}.values():
        chosen = settings(command)
        done = subprocess.run(
            ["make", "-n", *shlex.split(command)[1:]],
            cwd=REPO,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        script = done.stdout.replace("\\\n", " ")
        line = next(line for line in script.splitlines() if "--board serial" in line)
        words = shlex.split(line)
        assert chosen.get("TEST", "tests/system") in words
        assert words[words.index("--board-name") + 1] == chosen["BOARD"]
        assert ("MARK" in chosen) == ("-m" in words)


@pytest.mark.parametrize("board", ["TIDEMARK_ESP32_C3", "TIDEMARK_PICO2_W"])
def test_without_the_board_it_is_listed_as_absent_and_nothing_fails(
    tmp_path: Path, board: str
) -> None:
    bench = tmp_path / "bench.toml"
    words = ("tests/hardware", "--board", "serial", "--board-name", board, "--bench", str(bench))
    bench.write_text("")
    code, said = pytest_run(*words)
    assert code == 0, said
    assert f"{board} is absent" in said and "nothing was tested" in said
    bench.write_text(
        f'[[board]]\nnickname = "away"\nboard = "{board}"\nserial = "0000"\n'
        'address = "192.0.2.7"\nwifi = { ssid = "bench", open = true }\n'
    )
    code, said = pytest_run(*words)
    assert code == 0, said
    assert f"away ({board}, 0000): absent" in said
    code, said = pytest_run(*words[:-3], "TIDEMARK_NONE", *words[-2:])
    assert code == 4 and "has no board TIDEMARK_NONE" in said
