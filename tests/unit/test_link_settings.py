"""Link settings: host and board find room for the same texts, in bytes of UTF-8."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidemark import config
from tidemark.errors import ConfigError
from tidemark_host.cli import provision
from tidemark_host.provision import TEXT_MAX, LinkSettings, ProvisionError

_TEXTS = st.text(st.sampled_from("hx\u00fc\u20ac\U0001f4a7\ud800"), max_size=TEXT_MAX + 2)


@given(_TEXTS, _TEXTS, _TEXTS)
def test_host_and_board_refuse_the_same_texts_with_the_same_code(
    host: str, metadata: str, targets: str
) -> None:
    texts = {
        config.BROKER_HOST: host,
        config.METADATA_URL: f"http://h/{metadata}",
        config.TARGETS_URL: f"http://h/{targets}",
    }
    numbers = {config.BROKER_PORT: 1, config.UPDATE_S: 1, config.REPORT_S: 1}
    refused = said = None
    try:
        config.check({**texts, **numbers, config.KEEPALIVE_S: 2})
    except ConfigError as error:
        refused = error.code, error.text
    try:
        LinkSettings(texts[config.BROKER_HOST], 1, *list(texts.values())[1:])
    except ProvisionError as error:
        said = error.code, str(error).partition(": ")[2]
    assert said == refused


@pytest.mark.parametrize(("name", "room"), [("\u00fc" * 64, True), ("\u00fc" * 65, False)])
def test_name_of_a_broker_has_room_in_bytes(name: str, room: bool) -> None:
    try:
        found: object = provision._broker(f"{name}:1883")
    except provision.click.BadParameter as error:
        found = error.param_hint
    assert found == ((name, 1883) if room else "--broker")
