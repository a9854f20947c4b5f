"""The bench as a pytest plugin: `pytest -p tidemark_host.hil.plugin --board emulated`.

Fixtures: `site` (a provisioned board that was heard, with broker, gateway and mirror around it),
`faulty_site` (the same behind a network that fails when told to, docs/network-faults.md),
`blank_site` (before anything was flashed), and their parts `board`, `broker`, `gateway`,
`release`. A test that takes one of them runs on each board of the bench.

Marks: `needs("power" | "cut" | "operations" | "console" | "faults" | "runtimes")` for what not
every board can, `smoke` for the few that say whether it is worth going on, `slow` for those that
begin first.

What the bench itself could not do (no adapter, a flasher that fails, a broker that does not
start) is an error, told apart from a failure, which is the board's.
"""

from __future__ import annotations

import asyncio
import html
import shlex
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Generator,
    Iterator,
)
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest
import pytest_asyncio

from tidemark_host.boards.base import INFRASTRUCTURE, BoardError

# Every run of pytest in this repository loads this module; few of them need what a site needs.
if TYPE_CHECKING:
    from tidemark_host.boards.base import Board
    from tidemark_host.boards.serial_board import SerialBoard
    from tidemark_host.gateway.broker import Mosquitto
    from tidemark_host.hil.places import SerialTarget
    from tidemark_host.hil.processes import BrokerProcess, GatewayProcess
    from tidemark_host.hil.site import Site, Snapshot
    from tidemark_host.hil.targets import Target

T = TypeVar("T")

_KINDS = ("virtual", "emulated", "serial")
_TEST_S = 120  # a test's time on the virtual board
_targets = pytest.StashKey["list[Target]"]()
_desk = pytest.StashKey["list[SerialTarget]"]()
_site = pytest.StashKey["Site"]()
_says = pytest.StashKey["list[str]"]()
_SAID = "bench"  # the property of a test that has it


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("bench", "boards that the system suite runs on")
    group.addoption("--board", choices=_KINDS, default="virtual", help="kind of board")
    group.addoption(
        "--board-name",
        default="",
        metavar="NAME",
        help="virtual, emulated: a folder of boards/; serial: a nickname or a board of bench.toml",
    )
    group.addoption("--bench", type=Path, metavar="FILE", help="bench.toml, for --board serial")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(ability): what the board must be able to do")
    config.addinivalue_line("markers", "smoke: the few tests to begin with")
    config.addinivalue_line("markers", "slow: begins first, so that no worker ends alone")


# -- which boards ---------------------------------------------------------------------------------


def targets_of(config: pytest.Config) -> list[Target]:
    """Return the boards of this run; looked for once."""
    if _targets not in config.stash:
        config.stash[_targets] = _find(config)
    return config.stash[_targets]


def _find(config: pytest.Config) -> list[Target]:
    from tidemark_host.hil.targets import EmulatedTarget, VirtualEsp32Target, VirtualTarget

    kind, name = config.getoption("--board"), str(config.getoption("--board-name"))
    try:
        if kind == "virtual":
            own: Target = VirtualTarget()
            if not name:
                return [own, VirtualEsp32Target()]
            return [own if name == own.definition.name else VirtualEsp32Target(name)]
        if kind == "emulated":
            return [EmulatedTarget(name or "TIDEMARK_PICO")]
        return [target for target in _on_desk(config) if target.wake()]
    except BoardError as error:
        raise pytest.UsageError(str(error)) from error


def _on_desk(config: pytest.Config) -> list[SerialTarget]:
    """Return the boards of bench.toml that are meant, here or not. Raises UsageError."""
    if _desk not in config.stash:
        config.stash[_desk] = _meant(config)
    return config.stash[_desk]


def _meant(config: pytest.Config) -> list[SerialTarget]:
    from tidemark_host.hil import places
    from tidemark_host.hil.places import SerialTarget

    path = config.getoption("--bench") or places.default_path()
    name = config.getoption("--board-name")
    if config.getoption("--bench") and not path.is_file():
        raise pytest.UsageError(f"there is no {path}")
    try:
        found = places.read(path)
    except places.PlaceError as error:
        raise pytest.UsageError(f"{error.code}: {error}") from error
    wanted = [place for place in found if not name or name in (place.nickname, place.board)]
    if name and not wanted and not (places.BOARDS / name / "board.toml").is_file():
        raise pytest.UsageError(f"{path} has no board {name}, nor has boards/")
    return [SerialTarget(place) for place in wanted]


def pytest_report_header(config: pytest.Config) -> list[str]:
    if config.getoption("--board") != "serial":
        return []
    targets_of(config)  # one that a switch had off is on from here
    return [f"bench: {target.describe()}" for target in _on_desk(config)]


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """A bench without boards is no failure: it is said, and that is all."""
    config = session.config
    if config.getoption("--board") != "serial" or targets_of(config):
        return
    from tidemark_host.hil import places

    path = config.getoption("--bench") or places.default_path()
    name = config.getoption("--board-name") or "board"
    listed = "; ".join(target.describe() for target in _on_desk(config))
    reason = listed or f"{name} is absent: {path} has none"
    pytest.exit(f"no board of the bench is here, nothing was tested: {reason}", returncode=0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "target" in metafunc.fixturenames:
        targets = targets_of(metafunc.config)
        names = [target.name for target in targets]
        metafunc.parametrize("target", targets, ids=names, scope="session")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        target = _target_of(item)
        if target is None:
            continue
        for mark in item.iter_markers("needs"):
            if mark.args[0] not in target.abilities:
                item.add_marker(pytest.mark.skip(reason=target.lacks(mark.args[0])))
        if item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(_TEST_S * target.patience))
        if target.exclusive:
            # A board is in the hands of one worker only.
            item.add_marker(pytest.mark.xdist_group(target.name))
        item.user_properties.append(("rerun", rerun(config, item.nodeid, target)))
    if config.getoption("--board") == "virtual" and not config.getoption("--board-name"):
        left_out = [item for item in items if _is_for_the_other_board(item)]
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in set(left_out)]
    # Stable: the rest stays in its order.
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _is_for_the_other_board(item: pytest.Item) -> bool:
    """Of two virtual boards, the ESP32 runs what only it can and what a board begins with."""
    target = _target_of(item)
    if target is None:
        return False
    from tidemark_host.hil.targets import RUNTIMES, VirtualEsp32Target

    special = any(mark.args[0] == RUNTIMES for mark in item.iter_markers("needs"))
    if isinstance(target, VirtualEsp32Target):
        return not special and item.get_closest_marker("smoke") is None
    return special


def _target_of(item: pytest.Item) -> Target | None:
    spec = getattr(item, "callspec", None)
    return cast("Target | None", spec.params.get("target")) if spec else None


def rerun(config: pytest.Config, nodeid: str, target: Target | None = None) -> str:
    """Return the command that runs one test again on the same board."""
    words = ["make", "hil", f"TARGET={config.getoption('--board')}"]
    name = config.getoption("--board-name")
    if not name and target and target.name == "virtual-esp32":
        name = target.definition.name
    if name:
        words.append(f"BOARD={name}")
    if bench := config.getoption("--bench"):
        words.append(f"BENCH={bench}")
    return shlex.join([*words, f"TEST={nodeid}"])


# -- fixtures -------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def held(
    target: Target, tmp_path_factory: pytest.TempPathFactory, pytestconfig: pytest.Config
) -> Iterator[Target]:
    """The board of this run, left at the end as it was found."""
    from tidemark_host.hil import found, places
    from tidemark_host.hil.places import SerialTarget

    if not isinstance(target, SerialTarget):
        yield target
        return
    folder = tmp_path_factory.mktemp("found")
    copy = found.Copy(target.place.serial)

    def say(text: str) -> None:
        _unsaid(pytestconfig).append(f"{target.name}: {text}")

    with target.open(folder) as board:
        say(f"recovered by its {places.recover(board)}")
        if target.place.restore:
            flash = found.keep(board, target.definition, copy, say)
        else:
            flash = b""
            say("will not be left as it was found: restore = false in bench.toml")
            if copy.path.exists():
                say(f"an earlier run left a copy, which is not given back either: {copy.path}")
    yield target
    try:
        with target.open(folder) as board:
            if flash:
                places.recover(board)
                board.flash(flash)  # which asks for it afterwards
                copy.remove()
                say("flashed with what it was found with")
            board.power_on()
    except BaseException:
        if flash and copy.path.exists():
            say(f"NOT given back what it was found with; the next run will, from {copy.path}")
        raise


@pytest.fixture(scope="session")
def snapshot(held: Target, tmp_path_factory: pytest.TempPathFactory) -> Snapshot:
    """A site at rest whose board is provisioned: each test begins with a copy of it."""
    target = held
    folder = tmp_path_factory.mktemp("provisioned")
    return _apart(_provision(folder, target))


async def _provision(folder: Path, target: Target) -> Snapshot:
    from tidemark_host.hil.site import Site
    from tidemark_host.provision import BENCH_TRIAL

    async with Site(folder / "site", target) as site:
        image = await asyncio.to_thread(site.image, "v1.0.0")
        await asyncio.to_thread(site.flash_and_provision, image, "1.0.0")
        await site.until("the first readings", site.readings)
        # From then on the boot counts as a healthy one: the next is not held back.
        least = BENCH_TRIAL.hold_s + 1
        await site.until("a healthy board", lambda: site.claims().get("uptime", 0) > least)
        return await site.rest(folder / "rest")


def _apart(job: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in a loop and a thread of its own."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, job).result()


@pytest_asyncio.fixture
async def blank_site(
    request: pytest.FixtureRequest, held: Target, tmp_path: Path
) -> AsyncIterator[Site]:
    """A site whose board is blank, or holds what it came with, and is switched off."""
    from tidemark_host.hil.site import Site

    site = Site(tmp_path / "site", held)
    request.node.stash[_site] = site
    async with site:
        yield site


@pytest_asyncio.fixture
async def site(
    request: pytest.FixtureRequest, held: Target, snapshot: Snapshot, tmp_path: Path
) -> AsyncIterator[Site]:
    """A site whose board is provisioned, runs release 1 and was heard in this boot."""
    from tidemark_host.hil.site import Site

    site = Site(tmp_path / "site", held, snapshot=snapshot)
    async with _heard(request, site):
        yield site


@pytest_asyncio.fixture
async def faulty_site(
    request: pytest.FixtureRequest, held: Target, snapshot: Snapshot, tmp_path: Path
) -> AsyncIterator[Site]:
    """`site` with a mosquitto, and with a network between board and site that can fail."""
    from tidemark_host.hil.site import Site

    site = Site(tmp_path / "site", held, "mosquitto", snapshot, faulty=True)
    async with _heard(request, site):
        yield site


@asynccontextmanager
async def _heard(request: pytest.FixtureRequest, site: Site) -> AsyncGenerator[None]:
    request.node.stash[_site] = site
    boots = site.boots()
    async with site:
        await asyncio.to_thread(site.board.power_on)
        await site.heard(boots)
        yield


@pytest.fixture
def board(site: Site) -> Board:
    """The board of `site`."""
    return site.board


@pytest.fixture
def broker(site: Site) -> BrokerProcess | Mosquitto:
    """The MQTT broker of `site`."""
    return site.broker


@pytest.fixture
def gateway(site: Site) -> GatewayProcess:
    """The gateway process of `site`."""
    return site.gateway


@pytest.fixture
def release(site: Site) -> Callable[..., Awaitable[int]]:
    """Builds, signs and publishes: `index = await release("1.1.0", "hangs", period_ms=50)`."""
    return site.publish


# -- what the bench says of boards ----------------------------------------------------------------


def _unsaid(config: pytest.Config) -> list[str]:
    """Return what the bench has to say of boards, and what no test's report has taken yet."""
    return config.stash.setdefault(_says, [])


@pytest.hookimpl(wrapper=True, trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None, None, None]:
    """A worker that ends early gives boards back after its last report."""
    yield
    output = getattr(session.config, "workeroutput", None)
    if output is not None:
        output[_SAID] = _unsaid(session.config)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    _unsaid(node.config).extend(getattr(node, "workeroutput", {}).get(_SAID, ()))


# -- outcomes -------------------------------------------------------------------------------------


def is_infrastructure(error: BaseException | None) -> bool:
    """Say whether an error is the bench's own, and says nothing about the board."""
    from tidemark_host.gateway.broker import BrokerError
    from tidemark_host.hil.waiting import SiteError

    while error is not None:
        if isinstance(error, SiteError | BrokerError):
            return True
        if isinstance(error, BoardError) and error.code in INFRASTRUCTURE:
            return True
        error = error.__cause__
    return False


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    result = yield
    site = item.stash.get(_site, None)
    if site is not None and site.board.violations:
        pytest.fail(f"the flash was used against its rules: {site.board.violations[:3]}")
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    said = _unsaid(item.config)
    gone = _gone(item) if report.failed else ""
    if gone:
        said.append(gone)
    properties = [(_SAID, text) for text in said]
    item.user_properties += properties
    report.user_properties += properties
    page = [f"<p>{html.escape(text)}</p>" for text in said]
    said.clear()
    if call.excinfo and (gone or is_infrastructure(call.excinfo.value)):
        report.infrastructure = True  # type: ignore[attr-defined]
        if report.when == "call":
            # JUnit and every reader of it know errors by the phase: this was no verdict.
            report.when = "setup"
    site = item.stash.get(_site, None)
    if site is not None and (call.when == "call" or report.failed):
        from tidemark_host.hil import timeline

        again = rerun(item.config, item.nodeid, _target_of(item))
        page.append(timeline.as_html(timeline.of(site), again))
    if page:
        report.extras = _html("".join(page))  # type: ignore[attr-defined]
    return report


def _gone(item: pytest.Item) -> str:
    """Say what is unplugged of the board of a test that failed, "" for nothing.

    Whatever the test waited for in vain, it was no verdict then.
    """
    target = _target_of(item)
    if target is None or item.config.getoption("--board") != "serial":
        return ""
    board = cast("SerialBoard | None", getattr(item.stash.get(_site, None), "board", None))
    missing = cast("SerialTarget", target).missing(board is not None and not board.is_on)
    return f"{target.name}: {missing} is gone" if missing else ""


def _html(content: str) -> list[dict[str, Any]]:
    try:
        from pytest_html import extras  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:  # no page is wanted where it is not installed
        return []
    return [cast("dict[str, Any]", extras.html(content))]


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    if report.failed and getattr(report, "infrastructure", False):
        return "error", "I", "INFRASTRUCTURE"
    return None


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    stats = cast("dict[str, list[Any]]", terminalreporter.stats)
    said = [
        str(value)
        for reports in stats.values()
        for report in reports
        for name, value in cast("list[tuple[str, object]]", getattr(report, "user_properties", []))
        if name == _SAID
    ]
    said = list(dict.fromkeys([*said, *_unsaid(config)]))
    if said:
        terminalreporter.section("boards")
        for line in said:
            terminalreporter.line(line)
    lines: list[str] = []
    for report in [*stats.get("failed", []), *stats.get("error", [])]:
        properties = cast("list[tuple[str, object]]", getattr(report, "user_properties", []))
        own = " (infrastructure)" if getattr(report, "infrastructure", False) else ""
        lines += [f"{value}{own}" for name, value in properties if name == "rerun"]
    if lines:
        terminalreporter.section("to run it again")
        for line in lines:
            terminalreporter.line(line)
