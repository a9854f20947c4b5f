"""The same input read by somebody else: another library, or our own other half.

Each function gets the input and the word that the parser under test said of it, and raises
AssertionError where the two readings differ.
"""

# python-tuf re-exports its public names without saying so to type checkers.
# pyright: reportPrivateImportUsage=false

from __future__ import annotations

import http.client
import io
import json
import re
import textwrap
import tomllib
from typing import Any

import cbor2
import fuzz_flash
import fuzz_mark
import fuzz_parsers
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from securesystemslib.formats import encode_canonical
from tuf.api.metadata import Metadata, Root, Targets

from tests.fuzz import host
from tidemark import canonjson, ecdsa_p256, rsa_pss
from tidemark import cbor as firmware_cbor
from tidemark.signedjson import open_signed
from tidemark_host import codec, evidence, protocol
from tidemark_host.codec import Refused


def _host_takes(data: bytes) -> bool:
    try:
        codec.decode(data)
    except Refused:
        return False
    return True


def cbor(data: bytes, word: str) -> None:
    """Ours and the host's codec judge alike; cbor2 reads what is taken and writes it back."""
    taken = word == "taken"
    assert _host_takes(data) == taken, word
    if taken:
        assert cbor2.dumps(cbor2.loads(data), canonical=True) == data


def envelope(data: bytes, word: str) -> None:
    """The gateway's reading of an envelope is the device's."""
    try:
        found = protocol.open_envelope(data)
    except Refused:
        assert not word[0].isdigit() and word != "encrypt0", word
        return
    name = "encrypt0" if found.iv else f"{cbor2.loads(data).tag} {found.alg}"
    assert word == name, word


def json_text(data: bytes, word: str) -> None:
    """What is taken, `json` reads alike and securesystemslib writes alike."""
    if word.startswith("taken"):
        value = json.loads(data)
        assert canonjson.loads(data, 4096) == value
        assert canonjson.encode(value) == str(encode_canonical(value)).encode()


def signed_json(data: bytes, word: str) -> None:
    """The bytes that signatures are made over are securesystemslib's."""
    if word.startswith("taken"):
        message = open_signed(data, 4096, 10, None)[2]
        assert bytes(message) == str(encode_canonical(json.loads(data)["signed"])).encode()


def pem_key(data: bytes, word: str) -> None:
    """`cryptography` reads the same key."""
    if not word.startswith("taken"):
        return
    # Line ends are ours to be lax about; what stands between them is not.
    body = data.decode().strip(" \t\r\n").replace("\r", "").replace("\n", "")
    body = body.removeprefix("-----BEGIN PUBLIC KEY-----").removesuffix("-----END PUBLIC KEY-----")
    lines = textwrap.wrap(body, 64)
    pem = "\n".join(("-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""))
    key = serialization.load_pem_public_key(pem.encode())
    if isinstance(key, ec.EllipticCurvePublicKey):
        numbers = key.public_numbers()
        ours = ecdsa_p256.decode(data.decode())
        assert ours == numbers.x.to_bytes(32, "big") + numbers.y.to_bytes(32, "big")
    else:
        assert isinstance(key, rsa.RSAPublicKey)
        public = key.public_numbers()
        modulus = public.n.to_bytes((public.n.bit_length() + 7) // 8, "big")
        assert rsa_pss.decode(data.decode()) == public.e.to_bytes(4, "big") + modulus


def ecdsa_signature(data: bytes, word: str) -> None:
    """`cryptography` comes to the same verdict."""
    x, y = fuzz_parsers.P256[:32], fuzz_parsers.P256[32:]
    numbers = ec.EllipticCurvePublicNumbers(
        int.from_bytes(x, "big"), int.from_bytes(y, "big"), ec.SECP256R1()
    )
    try:
        numbers.public_key().verify(data, b"sample", ec.ECDSA(hashes.SHA256()))
        good = True
    except (InvalidSignature, UnsupportedAlgorithm):
        good = False
    assert good == (word == "good")


_KEY_TYPES = {("ed25519", "ed25519"), ("rsa", "rsassa-pss-sha256")} | {
    (kind, "ecdsa-sha2-nistp256") for kind in ("ecdsa", "ecdsa-sha2-nistp256")
}


def _has_known_keys(signed: dict[str, Any]) -> bool:
    """Whether python-tuf takes all keys: it refuses what TUF (4.2) has clients pass over."""
    keys = (signed.get("delegations") or signed).get("keys") or {}
    return all(
        (key["keytype"], key["scheme"]) in _KEY_TYPES
        and isinstance(key["keyval"].get("public"), str)
        for key in keys.values()
    )


def tuf_metadata(data: bytes, word: str) -> None:
    """python-tuf reads a file that is taken, and finds it signed."""
    if not word.startswith("taken"):
        return
    kind = data[0] % 5
    role = ("root", "timestamp", "snapshot", "targets", "root")[kind]
    document = json.loads(data[1:])
    if not _has_known_keys(document["signed"]):
        return
    for delegated in (document["signed"].get("delegations") or {}).get("roles") or ():
        delegated.setdefault("terminating", False)  # what we take for granted
    theirs = Metadata[Any].from_dict(document)
    assert theirs.signed.type == role
    root = Metadata[Root].from_bytes(dict(fuzz_parsers.tuf_files())["root"]).signed
    delegator: Root = theirs.signed if kind == 0 else root
    # Over the file as it is: verify_delegate checks what python-tuf would write of it.
    message = str(encode_canonical(json.loads(data[1:])["signed"])).encode()
    good = 0
    for keyid in delegator.roles[role].keyids:
        signature = theirs.signatures.get(keyid)
        if signature and keyid in delegator.keys:
            delegator.keys[keyid].verify_signature(signature, message)
            good += 1
    assert good >= delegator.roles[role].threshold


def tuf_targets(data: bytes, word: str) -> None:
    """python-tuf takes the same targets and delegations."""
    if not word.startswith("taken"):
        return
    document = json.loads(data)
    if not _has_known_keys(document):
        return
    signed = {
        "_type": "targets",
        "spec_version": "1.0.31",
        "version": 1,
        "expires": "2027-01-01T00:00:00Z",
        "targets": document["targets"],
    }
    if document.get("delegations") is not None:
        signed["delegations"] = document["delegations"]
        for role in document["delegations"].get("roles") or ():
            role.setdefault("terminating", False)  # what we take for granted
    theirs = Targets.from_dict(signed)
    assert len(theirs.targets) == len(document["targets"])


class _Replay:
    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def makefile(self, _mode: str) -> io.BytesIO:
        return self._file


def http_response(data: bytes, word: str) -> None:
    """`http.client` reads the same status, length and body."""
    if not word.startswith("taken"):
        return
    status, start, length = (int(part) for part in word.split()[1:4])
    theirs = http.client.HTTPResponse(_Replay(data[1:]))  # pyright: ignore[reportArgumentType]
    theirs.begin()
    body = theirs.read()
    assert (theirs.status, len(body)) == (status, length)
    assert fuzz_mark.mark_bytes(body) == word.split()[4]
    # An empty list of codings is none.
    assert theirs.getheader("Transfer-Encoding") is None
    codings = theirs.getheader("Content-Encoding") or "identity"
    assert {coding.strip() for coding in codings.split(",")} == {"identity"}
    if status == 206:
        span = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", theirs.headers["Content-Range"].strip())
        assert span and int(span[1]) == start and int(span[2]) == start + length - 1


def evidence_sectors(data: bytes, word: str) -> None:
    """The host finds nothing newer than the board, but for what its chain speaks against."""
    content = fuzz_flash.CountingFlash(data, fuzz_flash.EVIDENCE_SIZE, 512).content()
    ring = evidence.read_ring(content)
    head = int(word.split()[1]) if word.startswith("taken") else 0
    newest = ring.records[-1].number if ring.records else 0
    assert newest >= head
    assert newest == head or ring.broken or ring.gaps


def toml(data: bytes, word: str) -> None:
    """tomllib reads what is taken."""
    if word.startswith("taken"):
        tomllib.loads(data.decode())


def host_cbor(data: bytes, word: str) -> None:
    """The firmware judges alike."""
    assert (fuzz_parsers.outcome("cbor", data) == "taken") == (word == "taken")


def host_beacon(data: bytes, word: str) -> None:
    """A beacon of ours is one of the device's, too."""
    if word == "taken":
        assert host.codec.decode(data) == firmware_cbor.decode(data)


def mqtt_broker(data: bytes, word: str) -> None:
    """Nothing but a typed end: the word begins with the code of a LinkError."""
    code = word.split(" ", 1)[0]
    assert code in ("closed", "malformed", "packet-size", "refused", "io"), word
