"""Session keys in a file, for protocol analysis as with TLS. Off unless asked for.

Who holds the file can forge telemetry of the sessions in it, and acknowledgements to the device.
"""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from tidemark_host.gateway.sessions import Session

_log = logging.getLogger(__name__)


class Keylog:
    """JSON lines, one a handshake, in a file of mode 0600."""

    def __init__(self, path: Path) -> None:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.fchmod(handle, 0o600)
        self._file = os.fdopen(handle, "a", encoding="ascii")
        _log.warning("SESSION KEYS ARE WRITTEN TO %s: for analysis only, never in the field", path)

    def write(self, gateway: str, session: Session, hello: bytes) -> None:
        """Add one handshake; `hello`: SHA-256 of the hello."""
        keys = session.keys
        line = {
            "device": session.device,
            "gateway": gateway,
            "kid": session.kid.hex(),
            "epoch": session.epoch,
            "boot_nonce": session.boot_nonce.hex(),
            "hello_sha256": hello.hex(),
            "up_mac": keys.up_mac.hex(),
            "up_enc": keys.up_enc.hex(),
            "down_mac": keys.down_mac.hex(),
            "down_enc": keys.down_enc.hex(),
        }
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()
