# A board's real flash state, session and connection over a link and a gateway that tests control.

import gateway_side

import tidemark_board
from agent.telemetry import Telemetry
from nor import NorFlash
from tidemark import cbor
from tidemark.connection import Connection
from tidemark.counter import Counter
from tidemark.errors import LinkError
from tidemark.evidence import Evidence
from tidemark.flash import open_regions
from tidemark.journal import Journal
from tidemark.outbox import Outbox
from tidemark.session import Session
from tidemark.slots import Slots


class Net:
    """In the place of the link: hands each publish to the gateway model, loses what it is told."""

    def __init__(self):
        self.state = "up"
        self.connects = 1
        self.lost = 0
        self.topics = []
        self.inbox = []
        self.sent = []  # (kind, message), in order
        self.fails = 0  # how many publishes from now fail on the link
        self.answer = None

    def step(self):
        pass

    def subscribe(self, topic):
        self.topics.append(topic)

    def check_up(self):
        if self.state != "up":
            raise LinkError("down")

    def publish(self, topic, payload):
        self.check_up()
        if self.fails:
            self.fails -= 1
            raise LinkError("timeout")
        kind = topic.rsplit("/", 1)[-1]
        self.sent.append((kind, payload))
        if self.answer:
            self.answer(kind, payload)

    def receive(self):
        return self.inbox.pop(0) if self.inbox else None

    def count(self, kind):
        return sum(1 for sent, _ in self.sent if sent == kind)


class Port:
    def __init__(self):
        self.random = gateway_side.fixed_random(b"port")


class Sensor:
    number = 1

    def __init__(self):
        self.value = 0
        self.broken = False

    def read(self):
        if self.broken:
            raise OSError(5)
        self.value += 1
        return self.value


class Board:
    """What tidemark.base.Base is to its parts: the real ones, a clock and a net in our hands."""

    def __init__(self, flash=None):
        self.flash = flash or NorFlash(tidemark_board.FLASH_SIZE)
        self.board = tidemark_board
        self.runtimes = None
        self.port = Port()
        self.now = 0
        regions = open_regions(self.flash, tidemark_board.REGIONS)
        self.journal = Journal(regions["journal"])
        self.counter = Counter(regions["counter"])
        self.evidence = Evidence(regions["evidence"])
        self.outbox = Outbox(regions["outbox"])
        for part in (self.evidence, self.journal, self.counter, self.outbox):
            part.recover()
        self.slots = Slots(self.journal)
        self.slots.recover()
        self.identity = gateway_side.Identity()
        self.gateway = gateway_side.Gateway()
        self.provisioning = self
        self.gateway_id = self.gateway.id
        self.session = Session(
            self.identity, self.counter, self.gateway.id, self.gateway.public, self.port.random
        )
        self.link = Net()
        self.link.answer = self._at_gateway
        self.updates = None
        self.cause = "power-on"
        self.reason = ""
        self.config = {}
        self.mode = "normal"
        self.trial_reason = "ok"
        self.records = []
        self.deaf = False  # the gateway gets messages and acknowledges none
        self.seen = []  # (kind, fields) that the gateway opened
        self.connection = Connection(self)
        self.sensor = Sensor()
        self.telemetry = Telemetry(self, [self.sensor])

    def uptime_ms(self):
        return self.now

    def record(self, code, detail="", kind=0):
        self.records.append(code)

    def refuse(self, error, detail=""):
        if error.code not in self.records:
            self.records.append(error.code)

    def down(self, kind, payload):
        topic = "tm/1/" + self.identity.id + "/down/" + kind
        self.link.inbox.append((topic, payload))

    def beacon(self):
        body = cbor.encode([self.gateway.id, self.gateway.nonce])
        self.link.inbox.append(("tm/1/gw/" + self.gateway.id + "/beacon", body))

    def challenge(self):
        self.down("challenge", cbor.encode([self.gateway.id, self.gateway.nonce]))

    def _at_gateway(self, kind, message):
        if kind == "hello":
            if not self.deaf:
                self.down("welcome", self.gateway.welcome(message))
            return
        fields = self.gateway.open(kind, message)
        self.seen.append((kind, fields))
        if not self.deaf:
            self.down("ack", self.gateway.ack(fields[0], fields[1]))

    def steps(self, count=1, ms=20, send=True):
        for _ in range(count):
            self.now += ms
            self.connection.step()
            if send:
                self.telemetry.send()

    def ready(self):
        self.beacon()
        self.steps(60, send=False)
        assert self.session.ready
        return self

    def readings(self):
        """[(kind, creation epoch, index, value)] as the gateway saw them."""
        return [
            (kind, fields[2], fields[3], fields[4][1])
            for kind, fields in self.seen
            if kind in ("telemetry", "backlog")
        ]


def refused(family, code, call, *args):
    try:
        call(*args)
    except family as e:
        assert e.code == code, e.code
        return
    raise AssertionError("not refused: " + code)
