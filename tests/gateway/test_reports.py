"""Reports: what they tell, how they are acknowledged, and the time they ask for."""

from __future__ import annotations

from typing import Any

from tests.gateway.parts import Site
from tidemark_host import protocol
from tidemark_host.gateway.core import Message


def test_time_is_told_once_for_a_nonce_and_by_the_gateways_clock(site: Site):
    device = site.device()
    site.greet(device)
    report = device.report(ask_time=True)
    assert site.send(device, "report", report) == ["time", "ack"]
    assert device.times == [int(site.clock.now + 1_700_000_000)]
    first = [m.payload for m in site.sent if m.topic.endswith("/time")]
    site.clock.now += 5
    answers = site.core.handle([Message(protocol.topic_up(device.id, "report"), report)])
    assert [m.payload for m in answers if m.topic.endswith("/time")] == first
    site.clock.now += 60
    answers = site.core.handle([Message(protocol.topic_up(device.id, "report"), report)])
    assert [m.topic.rsplit("/", 1)[1] for m in answers] == ["ack"]


def test_a_report_is_acknowledged_under_former_and_new_keys(site: Site):
    device = site.device()
    site.greet(device)
    former = device.session
    site.greet(device)
    device.session = former
    answers = site.core.handle([Message(protocol.topic_up(device.id, "report"), device.report())])
    assert len({protocol.open_envelope(m.payload).kid for m in answers}) == 2


def test_every_trial_outcome_is_visible_with_its_reason(site: Site):
    device = site.device()
    site.greet(device)
    told: list[list[Any]] = [
        [3, 1, "inconclusive", "no-ack", 1],
        [3, 1, "inconclusive", "no-ack", 2],
        [3, 1, "rejected", "loses-link", 3],
        [4, 1, "rejected", "crash", 1],
        [5, 1, "rejected", "watchdog", 1],
    ]
    for outcome in told:
        device.claims[protocol.LAST_TRIAL] = outcome
        site.send(device, "report", device.report())
        site.send(device, "report", device.report())
    device.boot()
    site.greet(device)
    events = site.view.events(device.id, "trial")
    assert [e["last-trial"] for e in events] == told
    assert site.view.claims(device.id)["last-trial"] == told[-1]
    assert [e["epoch"] for e in site.view.events(device.id, "boot")] == [1, 2]


def test_text_of_a_device_is_data(site: Site):
    device = site.device()
    site.greet(device)
    device.claims[270] = "\x1b[31mred\n<script>\u202e"
    site.send(device, "report", device.report())
    assert site.view.claims(device.id)["swname"] == "\\x1b[31mred\\n<script>\\u202e"


def test_a_report_of_a_boot_the_gateway_never_met_asks_for_a_hello(site: Site):
    device = site.device()
    assert site.send(device, "report", device.report()) == ["challenge"]
    assert site.refusals() == {"no-session": 1}
    assert site.view.upstream() == []
