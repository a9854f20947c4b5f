# What fuzzing runs on both interpreters: each function takes bytes, hands them to a parser of the
# firmware and returns a word that says what became of them. The same bytes give the same word
# everywhere. A refusal leaves as the TidemarkError that it is; anything else raised is a finding.
# tests/fuzz has the table, the seeds and the comparison with other parsers.

import fuzz_flash
import fuzz_net
from fuzz_mark import mark, mark_bytes

from tidemark import canonjson, cbor, cose, ecdsa_p256, rsa_pss
from tidemark.compat import utf8
from tidemark.errors import TidemarkError
from tidemark.signedjson import open_signed

# -- codecs


def cbor_item(data):
    """A value that encodes to the bytes it came from."""
    value = cbor.decode(data)
    assert cbor.encode(value) == data
    return "taken"


def envelope(data):
    """A COSE message by shape, as the session looks at it first."""
    if data[:1] == b"\xd0":
        kid, nonce, protected, body = cose.encrypt0_peek(data)
        parts = (protected, {4: kid, 5: nonce}, body)
        assert cbor.encode(cbor.Tagged(cose.TAG_ENCRYPT0, parts)) == data
        return "encrypt0"
    tag, alg, _, payload = cose.peek(data)
    assert payload in data
    return "%d %d" % (tag, alg)


def json_text(data):
    """Metadata's JSON; the word is of its canonical form."""
    return "taken " + mark_bytes(canonjson.encode(canonjson.loads(data, 4096)))


_SHAPE = {
    "_type": None, "version": None, "keys": {"*": {"keyval": {"public": None}}}, "meta": None,
}  # fmt: skip


def signed_json(data):
    """A metadata file, opened by the short way where it is canonical."""
    _, signed, message = open_signed(data, 4096, 10, _SHAPE)
    if signed is None:
        return "empty"
    return "taken " + mark_bytes(message) + mark_bytes(canonjson.encode(signed))


def pem_key(data):
    """A public key of either kind."""
    try:
        text = utf8(data)
    except ValueError:
        return "no-text"
    for module in (ecdsa_p256, rsa_pss):
        public = module.decode(text)
        if public is not None:
            return "taken " + mark_bytes(public)
    return "none"


P256 = (
    b"\x60\xfe\xd4\xba\x25\x5a\x9d\x31\xc9\x61\xeb\x74\xc6\x35\x6d\x68"
    b"\xc0\x49\xb8\x92\x3b\x61\xfa\x6c\xe6\x69\x62\x2e\x60\xf2\x9f\xb6"
    b"\x79\x03\xfe\x10\x08\xb8\xbc\x99\xa4\x1a\xe9\xe9\x56\x28\xbc\x64"
    b"\xf2\xf1\xb2\x0c\x2d\x7e\x9f\x51\x77\xa3\xc2\x94\xd4\x46\x22\x99"
)


def ecdsa_signature(data):
    """A DER signature over "sample" by the key of RFC 6979, A.2.5."""
    return "good" if ecdsa_p256.verify(P256, b"sample", data) else "bad"


# -- update metadata

_made = {}


def _repository():
    """Files of a repository, and a trusted set that has taken them up to each role."""
    if not _made:
        from tuf_maker import NOW, Maker

        from tidemark.tuf import TrustedSet

        maker = Maker()
        # Without hashes a changed file gets as far as its signature.
        maker.with_hashes = False
        maker.publish("targets", "snapshot", "timestamp")
        roles = ("root", "timestamp", "snapshot", "targets")
        names = {role: maker.files[maker.name(role)] for role in roles}
        _made["files"] = names
        _made["maker"] = maker
        _made["now"] = NOW
        _made["set"] = TrustedSet
    return _made


def tuf_files():
    """(role, file) of a small repository, in the order in which they are taken."""
    return list(_repository()["files"].items())


def _trusted(count):
    """A trusted set that took the first `count` files. Verified once, then copied."""
    made = _repository()
    if "taken" not in made:
        full = made["set"](None, made["now"])
        full.load_root(made["files"]["root"])
        full.update_timestamp(made["files"]["timestamp"])
        full.update_snapshot(made["files"]["snapshot"])
        full.update_targets(made["files"]["targets"])
        made["taken"] = full
    full = made["taken"]
    out = made["set"](None, made["now"])
    if count > 0:
        out.root = full.root
    if count > 1:
        out.timestamp = full.timestamp
    if count > 2:
        out.snapshot = full.snapshot
    return out


def tuf_metadata(data):
    """First byte: the role, or a next root (4); then a file for a set that took those before."""
    kind = data[0] % 5 if data else 0
    file = data[1:]
    trusted = _trusted(1 if kind == 4 else kind)
    before = (trusted.root, trusted.timestamp, trusted.snapshot, dict(trusted.targets))
    try:
        if kind == 0:
            trusted.load_root(file)
        elif kind == 1:
            trusted.update_timestamp(file)
        elif kind == 2:
            trusted.update_snapshot(file, stored=True)
        elif kind == 3:
            trusted.update_targets(file)
        else:
            trusted.update_root(file)
    except TidemarkError:
        assert before == (trusted.root, trusted.timestamp, trusted.snapshot, trusted.targets)
        raise
    if kind in (0, 4):
        trusted.scope()
    if kind == 3:
        from tidemark import target

        target.choose([trusted.targets["targets"].signed["targets"]], "VIRTUAL", "0" * 16)
    return "taken %d" % kind


def target_entry(data):
    """A TARGETS object as `targets_shape` takes it; what the board would choose of it."""
    from tidemark import target
    from tidemark.tuf import _check_targets

    document = canonjson.loads(data, 4096)
    if not isinstance(document, dict):
        return "empty"
    signed = {"targets": document.get("targets"), "delegations": document.get("delegations")}
    _check_targets(signed)
    chosen = target.choose([signed["targets"]], "VIRTUAL", "0" * 16, 0, "canary")
    if signed["delegations"] is not None:
        from tidemark.tuf_delegations import roles_for

        roles = roles_for(signed["delegations"], "VIRTUAL/app-7.romfs")
    else:
        roles = []
    return "taken " + mark(chosen[0] if chosen else "", len(roles))


PARSERS = {
    "cbor": cbor_item,
    "cose": envelope,
    "json": json_text,
    "signed-json": signed_json,
    "pem-key": pem_key,
    "ecdsa-signature": ecdsa_signature,
    "tuf-metadata": tuf_metadata,
    "tuf-targets": target_entry,
    "counter": fuzz_flash.counter_sectors,
    "journal": fuzz_flash.journal_sectors,
    "evidence": fuzz_flash.evidence_sectors,
    "evidence-record": fuzz_flash.evidence_record,
    "outbox": fuzz_flash.outbox_sectors,
    "provisioning": fuzz_flash.provisioning_sector,
    "config": fuzz_flash.config_record,
    "slot-header": fuzz_flash.slot_header,
    "runtime-record": fuzz_flash.runtime_record,
    "boot-record": fuzz_flash.boot_record,
    "rejected-record": fuzz_flash.rejected_record,
    "http": fuzz_net.http_response,
    "dns": fuzz_net.dns_answer,
    "mqtt": fuzz_net.mqtt_broker,
    "mux-board": fuzz_net.mux_board,
    "mux-bridge": fuzz_net.mux_bridge,
    "device": fuzz_net.device_messages,
}


def outcome(name, data):
    """The word for `data`: what the parser said, or the code of its refusal."""
    try:
        return PARSERS[name](data)
    except TidemarkError as error:
        assert error.code and len(error.code) <= 24
        return error.code
