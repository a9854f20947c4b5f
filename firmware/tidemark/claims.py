# What a board says of itself in hello and report (docs/protocol.md, "Claims").
# Every digest and state here is the device's word, not proof.

import gc

from . import config
from .compat import const
from .errors import StateError

UEID = const(256)
HWMODEL = const(259)
UPTIME = const(261)
BOOTSEED = const(268)
SWNAME = const(270)
SWVERSION = const(271)
RUNTIME_DIGEST = const(1000)
IMAGE_DIGEST = const(1001)
SLOTS = const(1002)
FLOOR = const(1003)
TRUST_MARKS = const(1004)
RESET_CAUSE = const(1005)
MODE = const(1006)
EVIDENCE_HEAD = const(1007)
TIME_FLOOR = const(1008)
LAST_TRIAL = const(1009)
HEAP_FREE = const(1010)
OUTBOX = const(1011)
UPDATE = const(1012)
TIME_NONCE = const(1013)
OUTCOMES = const(1014)
HEALTH = const(1015)
TRIAL_TIMES = const(1016)
RUNTIME = const(1017)

_ROLES = ("root", "timestamp", "snapshot", "targets")
_SW_NAME = "tidemark"


def build(base):
    """Return the claims (dict) of this moment.

    Marks are affirmed before they are told: a torn one may be gone at the next boot. A journal
    that can't affirm leaves them out, and a health of "journal".
    """
    import hashlib

    journal = base.journal
    slots = base.slots
    release = slots.release(slots.running)
    number, head = base.evidence.head()
    said = {
        UEID: b"\x01" + hashlib.sha256(base.identity.public).digest()[:16],
        HWMODEL: base.board.NAME.encode(),
        UPTIME: base.uptime_ms() // 1000,
        BOOTSEED: base.session.boot_nonce,
        SWNAME: _SW_NAME,
        SWVERSION: release.version if release else "",
        RUNTIME_DIGEST: base.board.RUNTIME,
        IMAGE_DIGEST: release.digest if release else b"",
        SLOTS: slots.table(),
        RESET_CAUSE: base.reason or base.cause,
        MODE: base.mode,
        EVIDENCE_HEAD: [number, head[:16]],
        OUTBOX: len(base.outbox),
        UPDATE: base.updates.outcome if base.updates else "none",
        OUTCOMES: [base.link.lost, base.evidence.gaps, base.outbox.dropped],
        HEALTH: base.trial_reason,
    }
    try:
        said[FLOOR] = _mark(journal, "floor")
        said[TIME_FLOOR] = _mark(journal, "time")
        said[TRUST_MARKS] = [_mark(journal, role) for role in _ROLES]
    except StateError:
        said[HEALTH] = "journal"
    if base.config and config.TRIAL in base.config:
        said[TRIAL_TIMES] = base.config[config.TRIAL]
    if base.runtimes:
        said[RUNTIME] = base.runtimes.table()
    if slots.last_trial:
        said[LAST_TRIAL] = slots.last_trial
    if hasattr(gc, "mem_free"):
        said[HEAP_FREE] = gc.mem_free()
    return said


def _mark(journal, key):
    value = journal.affirm(key)
    # A mark's value: length of its scope (1), number (8), scope, payload.
    return int.from_bytes(value[1:9], "big") if value else 0
