"""The link under real MicroPython against a real mosquitto: echo, restart, silence, freeze."""

from __future__ import annotations

import queue
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import paho.mqtt.client as mqtt
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from tests.conftest import firmware_dir
from tidemark_host import toolchain
from tidemark_host.ports import free_port

HERE = Path(__file__).resolve().parent
LIMIT_S = 30.0


class Broker:
    """A mosquitto on a port of its own that can be stopped, started and frozen."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"listener {self.port} 127.0.0.1\nallow_anonymous true\npersistence false\n"
        )
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen(
            [toolchain.mosquitto(), "-c", self._config, "-v"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.process.stderr
        # Its log says when it listens; afterwards somebody has to keep reading it.
        for line in self.process.stderr:
            if "running" in line:
                break
        else:
            pytest.fail(f"mosquitto does not start at {self.port}")
        threading.Thread(target=self.process.stderr.read, daemon=True).start()

    def kill(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None


class Echo:
    """link_echo.py under MicroPython, and what it printed."""

    def __init__(
        self, port: int, keepalive_s: int = 30, packet_id: int = 0, wait_s: int = 20
    ) -> None:
        """`wait_s`: longer than the machine stands still, where the link must not go down."""
        self.lines: queue.Queue[str] = queue.Queue()
        self._process = subprocess.Popen(
            [
                *toolchain.quick_micropython(),
                str(HERE / "link_echo.py"),
                *map(str, (port, keepalive_s, packet_id, wait_s)),
                *map(str, (firmware_dir(), toolchain.umqtt_dir())),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            self.lines.put(line.strip())

    def wait_for(self, start: str) -> str:
        """Return the next line that begins with `start`; fails with what came instead."""
        seen: list[str] = []
        while True:
            try:
                line = self.lines.get(timeout=LIMIT_S)
            except queue.Empty:
                pytest.fail(f"no {start!r} in {LIMIT_S} s, but {seen}")
            if line.startswith(start):
                return line
            seen.append(line)

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


class Host:
    """A client of the broker beside the link: sends to it, collects what comes back."""

    def __init__(self, port: int) -> None:
        self.echoes: queue.Queue[bytes] = queue.Queue()
        self._client = mqtt.Client(CallbackAPIVersion.VERSION2)
        subscribed = threading.Event()
        self._client.on_message = lambda client, user, message: self.echoes.put(message.payload)
        self._client.on_subscribe = lambda *args: subscribed.set()
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self._client.subscribe("out/+", qos=1)
        assert subscribed.wait(LIMIT_S)

    def send(self, payload: bytes) -> None:
        self._client.publish("in/x", payload, qos=1).wait_for_publish(LIMIT_S)

    def flood(self, payloads: list[bytes]) -> None:
        sent = [self._client.publish("in/x", payload, qos=1) for payload in payloads]
        for info in sent:
            info.wait_for_publish(LIMIT_S)

    def expect(self, payloads: list[bytes]) -> None:
        assert [self.echoes.get(timeout=LIMIT_S) for _ in payloads] == payloads

    def close(self) -> None:
        self._client.loop_stop()
        self._client.disconnect()


Start = Callable[..., Echo]


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Broker]:
    broker = Broker(tmp_path)
    broker.start()
    yield broker
    if broker.process:
        broker.process.send_signal(signal.SIGCONT)
    broker.kill()


@pytest.fixture
def start(broker: Broker) -> Iterator[Start]:
    echoes: list[Echo] = []

    def begin(**options: int) -> Echo:
        echoes.append(Echo(broker.port, **options))
        return echoes[-1]

    yield begin
    for echo in echoes:
        echo.close()


def test_every_message_comes_back_across_the_packet_ids_wrap(broker: Broker, start: Start) -> None:
    start(packet_id=65_500).wait_for("up 1")
    with closing(Host(broker.port)) as host:
        # In bursts that the link's queue of 32 holds: what comes above that it drops, as it says.
        for burst in range(5):
            payloads = [b"%d" % n for n in range(burst * 20, burst * 20 + 20)]
            for payload in payloads:
                host.send(payload)
            host.expect(payloads)


def test_burst_above_the_queue_is_dropped_and_counted(broker: Broker, start: Start) -> None:
    echo = start()
    echo.wait_for("up 1")
    with closing(Host(broker.port)) as host:
        # One packet holds them all, so that they come faster than they go.
        host.flood([b"%d" % n for n in range(400)])
        echoed = dropped = 0
        for _ in range(8):
            # It may have been quiet before they came, or have said so among them.
            _, _, _, echoes, _, drops = echo.wait_for("quiet up").split()
            echoed, dropped = int(echoes), int(drops)
            if echoed + dropped >= 400:
                break
        assert echoed + dropped == 400
        came = [host.echoes.get(timeout=LIMIT_S) for _ in range(echoed)]
        assert len(set(came)) == echoed
        assert host.echoes.empty()


def test_link_returns_and_resubscribes_after_a_broker_restart(
    broker: Broker, start: Start
) -> None:
    echo = start()
    echo.wait_for("up 1")
    for connects in (2, 3):
        broker.kill()
        echo.wait_for("down")
        broker.start()
        echo.wait_for(f"up {connects}")
        with closing(Host(broker.port)) as host:
            host.send(b"again")
            host.expect([b"again"])


def test_link_outlives_its_keepalive_in_silence(broker: Broker, start: Start) -> None:
    echo = start(keepalive_s=2)
    echo.wait_for("up 1")
    # mosquitto hangs up 3 s after the last packet of a client with a keepalive of 2 s: one that
    # sends no ping is never up for the 4 s after which it says this.
    assert echo.wait_for("quiet up") == "quiet up echoed 0 dropped 0"


def test_frozen_broker_is_noticed_and_left(broker: Broker, start: Start) -> None:
    # It pings after 5 s. What it notices is no broker that has hung up, which comes after 15 s.
    echo = start(keepalive_s=10, wait_s=3)
    echo.wait_for("up 1")
    assert broker.process
    broker.process.send_signal(signal.SIGSTOP)
    assert echo.wait_for("down") == "down 1 timeout"
    broker.process.send_signal(signal.SIGCONT)
    echo.wait_for("up 2")
    with closing(Host(broker.port)) as host:
        host.send(b"thawed")
        host.expect([b"thawed"])
