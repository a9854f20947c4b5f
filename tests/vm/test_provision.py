# What a board refuses of its owner's bundle leaves it as it was.

import gateway_side
import mqtt_peer  # noqa: F401 (gives umqtt its modules on CPython)

import tidemark_board
from nor import NorFlash
from tidemark import cbor, config, identity, provision, stage0
from tidemark.base import Base
from tidemark.errors import TidemarkError
from tidemark.slots import Release

ROOT = b"{}"
GATEWAY = bytes(range(32))


class Port:
    """A chip over a flash in our hands, without a radio."""

    kbd_intr = None

    def __init__(self):
        self.content = NorFlash(tidemark_board.FLASH_SIZE)
        self.random = gateway_side.fixed_random(b"port")

    def flash(self):
        return self.content

    def runtimes(self):
        return None

    def reset_cause(self):
        return "power-on"

    def marker(self):
        return 0

    def set_marker(self, number):
        pass

    def uptime_ms(self):
        return 0


def release(index):
    return Release(bytes([index]) * 32, 5000, index, 1, "1.0.%d" % index)


def boot(port):
    """A boot up to the console, of a board that has its key."""
    base = Base(port, tidemark_board, None)
    base.recover()
    if not base.identity:
        base.counter.open_epoch()
        base.identity = identity.birth(base.journal, port.random)
    stage0.base = base
    return base


def finish(host, root=ROOT, gateway=GATEWAY, image=1, version=1):
    """What `finish` answers to these anchors; slot A holds `image`, signed under root `version`.
    The signature is checked before all of this, and by tests of its own."""
    link = {
        config.BROKER_HOST: host,
        config.BROKER_PORT: 1883,
        config.METADATA_URL: "http://192.0.2.7/metadata/",
        config.TARGETS_URL: "http://192.0.2.7/targets/",
        config.UPDATE_S: 3600,
        config.REPORT_S: 300,
        config.KEEPALIVE_S: 30,
    }
    provision._bundle[:] = cbor.encode([1, root, identity.device_id(gateway), gateway, link])
    provision._verify_slot = lambda base, root: (release(image), version)
    try:
        return provision._finish()["index"]
    except TidemarkError as error:
        return error.code


def broker(port):
    return cbor.decode(boot(port).journal.get("config"))[config.BROKER_HOST]


def is_left_alone(port, code, **asked):
    boot(port)
    before = port.content.snapshot()
    assert finish("other", **asked) == code
    return port.content.snapshot() == before and broker(port) == "first"


def provisioned():
    port = Port()
    boot(port)
    assert finish("first") == 1
    return port


def test_same_anchors_bring_new_settings():
    port = provisioned()
    boot(port)
    assert finish("second") == 1
    assert broker(port) == "second"


def test_other_anchors_are_refused_before_anything_is_written():
    port = provisioned()
    assert is_left_alone(port, "provisioned", root=b"{ }")
    assert is_left_alone(port, "provisioned", gateway=bytes(32))
    assert is_left_alone(port, "provisioning-size", root=bytes(6200))


def test_older_root_than_the_board_has_seen_is_refused_before_anything_is_written():
    port = provisioned()
    boot(port).journal.raise_mark("root", 2, bytes(32))
    assert is_left_alone(port, "mark-falls")


def test_image_that_is_not_the_confirmed_one_is_refused_before_anything_is_written():
    assert is_left_alone(provisioned(), "provisioned", image=2)
