# Provisioning over the console: what `tidemark provision` calls through the raw REPL, one line of
# JSON an answer.

import hashlib
import json

from tidemark import cbor, config, identity, image, stage0
from tidemark.compat import const
from tidemark.errors import ConfigError, StateError, TidemarkError

_BUNDLE_MAX = const(7168)
# Faults that provisioning again with the same anchors mends: the key and the slots are there.
_MENDABLE = ("config", "provisioning-damaged")
_LEAVE_MS = const(500)  # for the console to take its answer

_bundle = bytearray()


def _answer(function):
    try:
        result = function()
        result["ok"] = True
    except TidemarkError as error:
        if isinstance(error, StateError):
            stage0.base.record(error.code, "provision")
        result = {"ok": False, "code": error.code, "text": error.text}
    print(json.dumps(result))


def begin():
    """Makes the board's key when there is none, and prints its public half: {"id", "public",
    "board", "provisioned", "wifi"}; the last one says whether the settings must have a network.

    Birth order (design 5): counter and journal were recovered by stage 0, then the key is
    journalled and affirmed, then shown.
    """
    _answer(_begin)


def _begin():
    base = stage0.base
    if base.fault and base.fault.code not in _MENDABLE:
        raise base.fault
    if base.safe:
        raise StateError("state-lost", "this board was provisioned and lost its state")
    # A blank counter beside a key means lost state from now on (I1).
    base.counter.open_epoch()
    base.identity = identity.birth(base.journal, base.port.random)
    base.record("key", base.identity.id)
    _bundle[:] = b""
    return {
        "id": base.identity.id,
        "public": "".join("%02x" % byte for byte in base.identity.public),
        "board": base.board.NAME,
        "provisioned": not base.unprovisioned,
        "wifi": base.board.WIFI,
    }


def part(data):
    """Takes the next part (bytes) of the owner's bundle; at most 7,168 bytes in all."""
    if len(_bundle) + len(data) > _BUNDLE_MAX:
        raise ConfigError("bundle-size", "at most 7168 bytes")
    _bundle.extend(data)


def finish():
    """Verifies the bundle and slot A against its root, then writes: settings, the write-once
    sector, slot A CONFIRMED.

    Bundle: CBOR [1, root.json (bstr), gateway id (tstr), gateway key (bstr 32), settings (map)].
    Each step may be cut and repeated with the same bundle; nothing is written before all of it
    was verified and is known to be taken.
    """
    _answer(_finish)


def _finish():
    base = stage0.base
    if not base.identity:
        raise StateError("no-key", "begin comes first")
    fields = cbor.decode(bytes(_bundle), max_size=_BUNDLE_MAX)
    if not isinstance(fields, list) or len(fields) != 5 or fields[0] != 1:
        raise ConfigError("bundle-shape", "not a provisioning bundle of version 1")
    _, root, gateway_id, gateway_key, link = fields
    types = isinstance(root, bytes) and isinstance(gateway_id, str)
    if not types or not isinstance(gateway_key, bytes) or len(gateway_key) != 32:
        raise ConfigError("bundle-shape", "field types")
    if identity.device_id(gateway_key) != gateway_id:
        raise ConfigError("gateway-id", "does not belong to the gateway's key")
    config.check(link)
    if base.board.WIFI and config.WIFI not in link:
        raise ConfigError("no-wifi", "this board reaches its gateway over WiFi only")
    release, root_version = _verify_slot(base, root)
    provisioning = identity.Provisioning(base.identity.public, root, gateway_id, gateway_key)
    # Another owner's anchors, or those of before, must not leave their settings behind.
    identity.check_provisioning(base.regions["provisioning"], provisioning)
    if base.journal.mark("root")[0] > root_version:
        raise StateError("mark-falls", "this board has seen a newer root")
    base.slots.check_provision(release)
    base.journal.put("config", cbor.encode(link))
    identity.write_provisioning(base.regions["provisioning"], provisioning)
    base.provisioning = provisioning
    base.journal.raise_mark("root", root_version, hashlib.sha256(root).digest())
    base.slots.provision(release)
    base.record("provisioned", gateway_id)
    return {"id": base.identity.id, "index": release.index, "version": release.version}


def wifi(network):
    """Gives a provisioned board another network, [ssid, password, country] as in the settings, and
    leaves the rest as it is: {"id"}. It counts from the next boot on."""
    _answer(lambda: _wifi(network))


def _wifi(network):
    base = stage0.base
    raw = base.journal.get("config")
    if base.unprovisioned or not raw:
        raise StateError("not-provisioned", "this board has no settings yet")
    if not base.board.WIFI:
        raise ConfigError("no-radio", "this board joins no network")
    settings = cbor.decode(raw)
    settings[config.WIFI] = network
    base.journal.put("config", cbor.encode(config.check(settings)))
    base.record("wifi-set")
    return {"id": base.identity.id}


def _verify_slot(base, root):
    """(Release, root version) of slot A if the metadata that came with the image authorises it
    under `root` (I3)."""
    from tidemark.updates import authorised_release

    region = base.regions["slot_a"]
    board, claimed = image.decode_header(region.read(0, 256))
    if board != base.board.NAME:
        raise ConfigError("wrong-board", "slot A holds an image for another board")
    release, root_version = authorised_release(base, root, claimed)
    image.check(region, release)
    return release, root_version


def leave():
    """Ends the console's lease: the board resets into its image, with the reason "provisioned"."""
    base = stage0.base
    base.supervisor.lease(_LEAVE_MS, "provisioned")
