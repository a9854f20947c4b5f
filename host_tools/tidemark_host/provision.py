"""Provisioning over the console: the board makes its key, the owner's anchors are written once.

Talks to `tidemark.provision` on the board through the raw REPL. The private key never crosses.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Protocol, cast

from tidemark_host import protocol
from tidemark_host.inventory import DEFAULT_COHORT
from tidemark_host.wifi import Wifi

# Keys of the board's link settings, as in firmware/tidemark/config.py.
_BROKER_HOST, _BROKER_PORT, _METADATA_URL, _TARGETS_URL = 1, 2, 3, 4
_UPDATE_S, _REPORT_S, _KEEPALIVE_S, _COHORT, _TRIAL, _WIFI = 5, 6, 7, 8, 9, 10

TEXT_MAX = 128  # bytes of UTF-8 of a broker's name and of an address

_PART = 256  # bytes of bundle a REPL call carries
_VERIFY_TIMEOUT_S = 60.0  # signatures and a digest over the slot on a slow board


class ProvisionError(Exception):
    """The board refused. `code` is the board's own word, stable."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{code}: {text}" if text else code)
        self.code = code


class Console(Protocol):
    """What provisioning needs of a board: `boards.repl.Repl` is one."""

    def exec(self, code: str, timeout: float = 10.0) -> str: ...


@dataclass(frozen=True)
class TrialTimes:
    """Of the trial of a release, in seconds: how long it must be healthy, when it ends without
    that, and the least wait before it is repeated."""

    hold_s: int
    limit_s: int
    backoff_s: int


# A bench's: minutes of the field would make its suite take hours. The board tells them in its
# claims and on its console.
BENCH_TRIAL = TrialTimes(hold_s=2, limit_s=6, backoff_s=1)


@dataclass(frozen=True)
class LinkSettings:
    """Where the board finds broker and updates, how often it asks (seconds), and its cohort.

    `trial`: in place of the times of its board.toml, which are the field's. `wifi`: of a board
    that reaches its gateway by radio. Raises ProvisionError `config` for a text without room on
    the board, as the board itself would.
    """

    broker_host: str
    broker_port: int
    metadata_url: str
    targets_url: str
    update_s: int = 3600
    report_s: int = 300
    keepalive_s: int = 30
    cohort: str = DEFAULT_COHORT
    trial: TrialTimes | None = None
    wifi: Wifi | None = None

    def __post_init__(self) -> None:
        texts = {
            _BROKER_HOST: self.broker_host,
            _METADATA_URL: self.metadata_url,
            _TARGETS_URL: self.targets_url,
        }
        for key, text in texts.items():
            if not fits(text):
                raise ProvisionError("config", f"value of key {key}")

    def to_map(self) -> dict[int, str | int | list[int] | list[str]]:
        # Left out where it says nothing: a board of an earlier version refuses unknown keys.
        said: dict[int, str | int | list[int] | list[str]] = {}
        if self.cohort != DEFAULT_COHORT:
            said[_COHORT] = self.cohort
        if self.trial:
            said[_TRIAL] = [self.trial.hold_s, self.trial.limit_s, self.trial.backoff_s]
        if self.wifi:
            said[_WIFI] = self.wifi.to_list()
        return {
            **said,
            _BROKER_HOST: self.broker_host,
            _BROKER_PORT: self.broker_port,
            _METADATA_URL: self.metadata_url,
            _TARGETS_URL: self.targets_url,
            _UPDATE_S: self.update_s,
            _REPORT_S: self.report_s,
            _KEEPALIVE_S: self.keepalive_s,
        }


def fits(text: str) -> bool:
    """Return whether the board's settings have room for a text: 1 to 128 bytes of UTF-8."""
    try:
        return 0 < len(text.encode()) <= TEXT_MAX
    except UnicodeEncodeError:  # half of a surrogate pair
        return False


@dataclass(frozen=True)
class Anchors:
    """What the owner gives a board to trust: TUF root.json and the gateway's Ed25519 key."""

    root: bytes
    gateway_key: bytes


@dataclass(frozen=True)
class Born:
    """What a board says of itself once it has a key. `wifi`: it needs a WiFi network's name and
    password, for it has no other way to its gateway."""

    id: str
    public: bytes
    board: str
    provisioned: bool
    wifi: bool


def begin(console: Console) -> Born:
    """Let the board make its key if it has none. Raises ProvisionError, BoardError."""
    answer = _call(console, "begin()")
    public = bytes.fromhex(answer["public"])
    if protocol.key_id(public) != answer["id"]:
        raise ProvisionError("device-id", "the board's id does not belong to its key")
    wifi = answer.get("wifi", False)  # a runtime of before says nothing of it, and has none
    return Born(answer["id"], public, answer["board"], answer["provisioned"], wifi)


def finish(console: Console, anchors: Anchors, link: LinkSettings) -> dict[str, Any]:
    """Hand over anchors and settings; the board verifies slot A under them and confirms it.

    Returns the board's answer: `id`, `index`, `version`. May be repeated after a power cut with
    the same anchors. Raises ProvisionError with the board's code, BoardError.
    """
    bundle = protocol.encode(
        [1, anchors.root, protocol.key_id(anchors.gateway_key), anchors.gateway_key, link.to_map()]
    )
    for start in range(0, len(bundle), _PART):
        console.exec(f"provision.part({bundle[start : start + _PART]!r})")
    return _call(console, "finish()", _VERIFY_TIMEOUT_S)


def set_wifi(console: Console, wifi: Wifi) -> str:
    """Give a provisioned board another network, from its next boot on; return the board's id.

    Raises ProvisionError `not-provisioned`, `no-radio`; BoardError.
    """
    return str(_call(console, f"wifi({wifi.to_list()!r})")["id"])


def leave(console: Console) -> None:
    """Let the board reset into its application."""
    console.exec("from tidemark import provision; provision.leave()")


def _call(console: Console, call: str, timeout: float = 20.0) -> dict[str, Any]:
    out = console.exec(f"from tidemark import provision\nprovision.{call}", timeout)
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if not lines:
        verb = call.partition("(")[0]  # without what it was told, which may be a password
        raise ProvisionError("console", f"no answer to provision.{verb}: {out[-200:]!r}")
    answer = cast("dict[str, Any]", json.loads(lines[-1]))
    if not answer.get("ok"):
        raise ProvisionError(str(answer.get("code")), str(answer.get("text", "")))
    return answer
