"""An update repository in memory, by python-tuf, served over HTTP, and the program under test.

Every version that was ever published stays served under its own name, as consistent snapshots
have it. A test spoils what it likes: the signed objects before they are published, or the bytes
afterwards.
"""

# python-tuf re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import hashlib
import json
import subprocess
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

from securesystemslib.signer import CryptoSigner
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

PROGRAM = Path(__file__).resolve().with_name("tuf-client")
TOP_LEVEL = ("root", "timestamp", "snapshot", "targets")
LIMIT_S = 60

MAKERS: dict[str, Callable[[], CryptoSigner]] = {
    "ed25519": CryptoSigner.generate_ed25519,
    "ecdsa": CryptoSigner.generate_ecdsa,
    "rsa": CryptoSigner.generate_rsa,
}

# Requests of a first refresh, and the versions that it stores.
FIRST = ["metadata/2.root.json", "metadata/timestamp.json"]
ALL = {"root": 1, "timestamp": 1, "snapshot": 1, "targets": 1}


@cache
def key(name: str, kind: str = "ed25519") -> CryptoSigner:
    """Return the signer of this name, the same one throughout a run of the tests."""
    return MAKERS[kind]()


def days(number: float) -> datetime:
    """Return the time so many days from now, in whole seconds."""
    return (datetime.now(UTC) + timedelta(days=number)).replace(microsecond=0)


class Simulator:
    """`roles`: the signed objects as they will be published next; `signers`: who signs them.

    `files`: what the server has, by path as it is asked for; `asked`: what was.
    """

    def __init__(self, consistent: bool = True, kind: str = "ed25519") -> None:
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.with_hashes = False
        self.root = Root(expires=days(30), consistent_snapshot=consistent)
        self.timestamp = Timestamp(expires=days(30))
        self.snapshot = Snapshot(expires=days(30))
        self.targets = Targets(expires=days(30))
        self.roles: dict[str, Root | Timestamp | Snapshot | Targets] = {
            "root": self.root,
            "timestamp": self.timestamp,
            "snapshot": self.snapshot,
            "targets": self.targets,
        }
        self.signers: dict[str, list[CryptoSigner]] = {}
        for role in TOP_LEVEL:
            self.signers[role] = [key(role, kind)]
            self.root.add_key(key(role, kind).public_key, role)
        self.published: set[str] = set()
        self.url = ""
        for role in ("root", "targets", "snapshot", "timestamp"):
            self.publish(role)

    def name(self, role: str) -> str:
        """Return the path under which `role` is published now."""
        name = quote(role, safe="") + ".json"
        if role == "timestamp" or (role != "root" and not self.root.consistent_snapshot):
            return f"metadata/{name}"
        return f"metadata/{self.roles[role].version}.{name}"

    def publish(
        self,
        *names: str,
        bump: bool = True,
        signers: list[CryptoSigner] | None = None,
        spoil: Callable[[dict[str, Any]], object] | None = None,
    ) -> None:
        """Sign and serve these roles, and have the next role up promise them.

        `spoil` alters the finished document, signatures included.
        """
        for role in names:
            signed = self.roles[role]
            if bump and role in self.published:
                signed.version += 1
            metadata: Metadata[Any] = Metadata(signed)
            for signer in self.signers[role] if signers is None else signers:
                metadata.sign(signer, append=True)
            data = metadata.to_bytes()
            if spoil:
                document = json.loads(data)
                spoil(document)
                data = json.dumps(document).encode()
            self.published.add(role)
            self.files[self.name(role)] = data
            self.promise(role, data)

    def promise(self, role: str, data: bytes) -> None:
        """Write version, and hashes if wanted, of `role` into what speaks for it."""
        info = MetaFile(self.roles[role].version)
        if self.with_hashes:
            info.length, info.hashes = len(data), {"sha256": hashlib.sha256(data).hexdigest()}
        if role == "snapshot":
            self.timestamp.snapshot_meta = info
        elif isinstance(self.roles[role], Targets):
            self.snapshot.meta[f"{role}.json"] = info

    def publish_all(self, *targets: str) -> None:
        """Publish `targets` (default: the top-level one), then snapshot and timestamp."""
        self.publish(*(targets or ("targets",)), "snapshot", "timestamp")

    def rotate(self, role: str, *names: str, threshold: int = 1) -> None:
        """Give `role` new keys in a new root, which the former root keys sign too."""
        former = self.signers["root"]
        for keyid in list(self.root.roles[role].keyids):
            self.root.revoke_key(keyid, role)
        self.signers[role] = [key(name) for name in names]
        for signer in self.signers[role]:
            self.root.add_key(signer.public_key, role)
        self.root.roles[role].threshold = threshold
        both = [*former, *(one for one in self.signers["root"] if one not in former)]
        self.publish("root", signers=both)

    def delegate(
        self,
        parent: str,
        name: str,
        paths: list[str] | None = None,
        terminating: bool = False,
        prefixes: list[str] | None = None,
    ) -> Targets:
        """Have `parent` delegate to `name`, last in its list; returns the role's object."""
        delegator = self.roles[parent]
        assert isinstance(delegator, Targets)
        if delegator.delegations is None:
            delegator.delegations = Delegations({}, {})
        assert delegator.delegations.roles is not None
        if paths is None and prefixes is None:
            paths = ["*"]
        role = DelegatedRole(name, [], 1, terminating, paths, prefixes)
        delegator.delegations.roles[name] = role
        self.signers.setdefault(name, [key("delegated")])
        delegator.add_key(self.signers[name][0].public_key, name)
        signed = self.roles.setdefault(name, Targets(expires=days(30)))
        assert isinstance(signed, Targets)
        return signed

    def add(
        self, path: str, data: bytes, role: str = "targets", hashes: tuple[str, ...] = ("sha256",)
    ) -> None:
        """Name a target in `role` and serve it."""
        signed = self.roles[role]
        assert isinstance(signed, Targets)
        signed.targets[path] = TargetFile.from_data(path, data, list(hashes))
        self.serve_target(path, data)

    def serve_target(self, path: str, data: bytes) -> None:
        """Serve these bytes under every name that the metadata allows for the target."""
        folder, slash, name = quote(path).rpartition("/")
        for signed in self.roles.values():
            entry = signed.targets.get(path) if isinstance(signed, Targets) else None
            for digest in entry.hashes.values() if entry else ():
                self.files[f"targets/{folder}{slash}{digest}.{name}"] = data
        self.files[f"targets/{quote(path)}"] = data

    @contextmanager
    def served(self) -> Generator[None]:
        """Serve `files` on a loopback port."""
        simulator = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.lstrip("/")
                simulator.asked.append(path)
                data = simulator.files.get(path)
                if data is None:
                    self.send_error(404)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                try:
                    self.wfile.write(data)
                except OSError:
                    return  # A client that has seen enough hangs up.

            def log_message(self, format: str, *args: object) -> None:
                """Keep the test's output clean."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join(timeout=10)


@dataclass
class Program:
    """The program under test, with a metadata and a target folder of its own."""

    folder: Path
    simulator: Simulator
    said: str = field(default="", init=False)

    def __post_init__(self) -> None:
        self.metadata = self.folder / "metadata"
        self.targets = self.folder / "targets"

    def run(self, *arguments: object) -> int:
        """Return the exit status; `said` holds what went to standard error."""
        done = subprocess.run(
            [str(PROGRAM), "--metadata-dir", str(self.metadata), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
            check=False,
        )
        self.said = done.stderr
        return done.returncode

    def init(self, root: bytes | None = None) -> int:
        """Trust version 1 of the repository's root, or other bytes."""
        path = self.folder / "first_root.json"
        path.write_bytes(self.simulator.files["metadata/1.root.json"] if root is None else root)
        return self.run("init", path)

    def refresh(self) -> int:
        return self.run("--metadata-url", f"{self.simulator.url}/metadata", "refresh")

    def download(self, *names: str) -> int:
        wanted = [word for name in names for word in ("--target-name", name)]
        places = ["--target-base-url", f"{self.simulator.url}/targets/", "--target-dir"]
        url = ("--metadata-url", f"{self.simulator.url}/metadata/")
        return self.run(*url, *wanted, *places, self.targets, "download")

    def trusted(self) -> dict[str, int]:
        """Return the version of each role that the program keeps."""
        return {
            path.stem: json.loads(path.read_bytes())["signed"]["version"]
            for path in sorted(self.metadata.glob("*.json"))
        }

    def stored(self) -> list[bytes]:
        """Return the contents of the downloaded targets, sorted."""
        return sorted(path.read_bytes() for path in self.targets.glob("**/*") if path.is_file())


def take_before_it_ends(simulator: Simulator, role: str, take: Callable[[], int]) -> None:
    """Publish all with a `role` that ends soon, have it taken before that, and wait for its end.

    Where the machine was too slow for that nothing is shown: then once more, with more time.
    """
    for seconds in (2, 4, 8, 16, 32):
        ends = days(seconds / 86400)
        simulator.roles[role].expires = ends
        simulator.publish_all(*(() if role in TOP_LEVEL else (role, "targets")))
        status = take()
        if time.time() < ends.timestamp():
            assert status == 0
            break
    else:
        raise AssertionError("not taken within 32 s")
    while time.time() < ends.timestamp():
        time.sleep(0.05)


def refused(client: Program, code: str) -> None:
    """The refresh fails for this reason."""
    assert client.refresh() == 1
    assert f"tuf-client: {code}" in client.said
