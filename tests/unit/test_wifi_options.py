"""`tidemark provision` and WiFi: what is asked for and refused, and that no password shows."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import REPO
from tidemark import config
from tidemark.errors import ConfigError
from tidemark_host.boardfile import generate_board_module, load_board
from tidemark_host.cli import provision
from tidemark_host.provision import LinkSettings, ProvisionError, set_wifi
from tidemark_host.wifi import Wifi, WifiError, read_password

SECRET = "correct horse"


def _link(wifi: Wifi | None) -> dict[Any, Any]:
    link = LinkSettings("192.0.2.7", 1883, "http://192.0.2.7/m/", "http://192.0.2.7/t/", wifi=wifi)
    return link.to_map()


@given(st.text(max_size=40), st.text(max_size=70), st.text(max_size=3))
def test_host_and_board_refuse_the_same(ssid: str, password: str, country: str) -> None:
    raw = [ssid, password, country]
    try:
        wifi = Wifi(*raw)
    except WifiError as error:
        assert not password or password not in str(error) or len(password) < 8
        if not any("\ud800" <= c <= "\udfff" for c in ssid):  # those never get into CBOR
            with pytest.raises(ConfigError):
                config.check({**_link(None), config.WIFI: raw})
    else:
        assert config.wifi(config.check(_link(wifi))) == tuple(raw)


@given(
    st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=8, max_size=63),
    st.sampled_from(["", "DE", "GB"]),
)
def test_every_good_password_passes_and_none_is_shown(password: str, country: str) -> None:
    wifi = Wifi("barn", password, country)
    assert config.wifi(config.check(_link(wifi))) == ("barn", password, country)
    shown = repr(wifi) + repr(LinkSettings("h", 1, "m", "t", wifi=wifi)) + str(wifi.describe())
    assert password not in shown.replace("(set)", "")


def test_password_is_read_without_the_end_of_its_line(tmp_path: Path) -> None:
    for end in ("", "\n", "\r\n"):
        file = tmp_path / "password"
        file.write_bytes(f"{SECRET}{end}".encode())
        assert read_password(file) == SECRET
        assert read_password(io.BytesIO(file.read_bytes())) == SECRET
    assert read_password(io.BytesIO(b"correct horse \n")) == "correct horse "


def test_file_that_holds_no_password_is_refused_without_a_word_of_it(tmp_path: Path) -> None:
    for data in (b"", b"\n", b"x" * 257, b"short\n", b"two lines\nof it\n", "pässwörter".encode()):
        with pytest.raises(WifiError) as caught:
            Wifi("barn", read_password(io.BytesIO(data)))
        assert caught.value.option == "--wifi-password-file"
        text = data.decode(errors="ignore").strip()
        assert not text or text not in str(caught.value)
    with pytest.raises(WifiError, match="No such file"):
        read_password(tmp_path / "none")


def _run(tmp_path: Path, *words: str, stdin: str | None = None) -> Result:
    root = tmp_path / "root.json"
    root.touch()
    given = ["/dev/none", "--gateway", str(tmp_path), "--root", str(root), "--broker", "h:1"]
    given += ["--updates", "http://h", *words]
    return CliRunner().invoke(provision.command, given, input=stdin)


def test_half_said_networks_are_refused_before_a_board_is_touched(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("bad pass\n" * 9)
    for words, said in (
        (["--wifi-open"], "--wifi-ssid is missing"),
        (["--wifi-password-file", str(file)], "--wifi-ssid is missing"),
        (["--wifi-country", "DE"], "--wifi-ssid is missing"),
        (["--wifi-ssid", "barn"], "wants one of"),
        (["--wifi-ssid", "barn", "--wifi-open", "--wifi-password-file", str(file)], "one of"),
        (["--wifi-ssid", "", "--wifi-open"], "1 to 32 bytes"),
        (["--wifi-ssid", "barn", "--wifi-open", "--wifi-country", "de"], "two capital letters"),
        (["--wifi-ssid", "barn", "--wifi-password-file", str(file)], "8 to 63"),
    ):
        done = _run(tmp_path, *words)
        assert done.exit_code == 2, done.output
        assert said in " ".join(done.output.replace("│", " ").split()), done.output
        assert "bad pass" not in done.output


def test_password_is_taken_from_standard_input(tmp_path: Path) -> None:
    words = ["--wifi-ssid", "barn", "--wifi-password-file", "-"]
    done = _run(tmp_path, *words, stdin="short\n")
    assert done.exit_code == 2
    assert "8 to 63" in done.output and "short" not in done.output
    # A good one gets as far as the port, which is not there.
    assert _run(tmp_path, *words, stdin=SECRET + "\n").exit_code == 1


class Mute:
    """A board's console that answers with everything but an answer."""

    def exec(self, code: str, timeout: float = 10.0) -> str:
        assert SECRET in code
        return "what?\n"


def test_password_is_in_no_complaint_about_a_board_that_does_not_answer() -> None:
    with pytest.raises(ProvisionError) as caught:
        set_wifi(Mute(), Wifi("barn", SECRET))
    assert caught.value.code == "console"
    assert SECRET not in str(caught.value)


def test_boards_with_a_radio_say_that_they_need_a_network() -> None:
    wanting = {
        path.parent.name
        for path in (REPO / "boards").glob("*/board.toml")
        if "WIFI = True\n" in generate_board_module(load_board(path))
    }
    names = {path.parent.name for path in (REPO / "boards").glob("*/board.toml")}
    radios = {name for name in names if name.endswith("_W") or name.startswith("TIDEMARK_ESP32")}
    assert wanting == radios
