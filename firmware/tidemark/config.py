# Settings of the link that provisioning writes and the journal keeps: CBOR map of integer keys.
# They come from a console, so they are checked before anything is written on their strength.

from tidemark.compat import const, utf8
from tidemark.errors import ConfigError, LinkError

BROKER_HOST = const(1)
BROKER_PORT = const(2)
METADATA_URL = const(3)
TARGETS_URL = const(4)
UPDATE_S = const(5)
REPORT_S = const(6)
KEEPALIVE_S = const(7)
COHORT = const(8)
TRIAL = const(9)
WIFI = const(10)

_TEXT_MAX = const(128)  # bytes of UTF-8: flash and wire have room for those
_COHORT_MAX = const(32)
_DAY_S = const(86_400)
_TRIAL_MAX_S = const(3600)
_SSID_MAX = const(32)  # bytes of UTF-8
_PASSPHRASE_MIN = const(8)
_PASSPHRASE_MAX = const(63)
_PSK = const(64)  # hexadecimal digits of a key that is none

# key: (least, most) for integers; None for text.
_KNOWN = {
    BROKER_HOST: None,
    BROKER_PORT: (1, 65535),
    METADATA_URL: None,
    TARGETS_URL: None,
    UPDATE_S: (1, 7 * _DAY_S),
    REPORT_S: (1, _DAY_S),
    KEEPALIVE_S: (2, 3600),
}


def check(config):
    """Returns `config` (dict) if all of `_KNOWN` is there, of the right type and in range, and
    nothing else but a cohort's name, a trial's times and a WiFi network. Raises
    ConfigError("config") that names the key, never a value: one of them is a password."""
    if not isinstance(config, dict):
        raise ConfigError("config", "not a map")
    for key in config:
        if key not in _KNOWN and key not in (COHORT, TRIAL, WIFI):
            raise ConfigError("config", "unknown key %s" % key)
    for key, limits in _KNOWN.items():
        value = config.get(key)
        if limits is None:
            good = _fits(value, _TEXT_MAX)
        else:
            good = isinstance(value, int) and not isinstance(value, bool)
            good = good and limits[0] <= value <= limits[1]
        if not good:
            raise ConfigError("config", "value of key %d" % key)
    if not is_cohort(config.get(COHORT, "default")):
        raise ConfigError("config", "value of key %d" % COHORT)
    if TRIAL in config and not _are_trial_times(config[TRIAL]):
        raise ConfigError("config", "value of key %d" % TRIAL)
    if WIFI in config and not _is_wifi(config[WIFI]):
        raise ConfigError("config", "value of key %d" % WIFI)
    from tidemark.http import parse_url

    for key in (METADATA_URL, TARGETS_URL):
        try:
            parse_url(config[key])
        except LinkError as error:
            raise ConfigError("config", "key %d: %s" % (key, error.text))
    return config


def _fits(text, most):
    """True for a str of 1 to `most` bytes of UTF-8 (without surrogates, RFC 3629)."""
    if not isinstance(text, str):
        return False
    try:
        data = text.encode()
        utf8(data)
    except ValueError:
        return False
    return 0 < len(data) <= most


def cohort(config):
    """The name (str) of the cohort that checked settings put a board in, "" for the whole fleet's
    releases only."""
    name = config.get(COHORT, "default")
    return "" if name == "default" else name


def _are_trial_times(times):
    """True for [hold, limit, back-off] in whole seconds: 1 <= hold <= limit, up to an hour."""
    if not isinstance(times, list) or len(times) != 3:
        return False
    for seconds in times:
        if not isinstance(seconds, int) or isinstance(seconds, bool):
            return False
    hold, limit, backoff = times
    return 1 <= hold <= limit <= _TRIAL_MAX_S and 0 <= backoff <= _TRIAL_MAX_S


def wifi(config):
    """(ssid, password, country) of checked settings, each a str; ("", "", "") without a network.
    An open network's password is "", and so is a country that was not given."""
    return tuple(config.get(WIFI, ("", "", "")))


def _is_wifi(network):
    """True for [ssid, password, country]: 1 to 32 bytes of UTF-8; 8 to 63 printable ASCII
    characters or 64 hexadecimal digits (IEEE 802.11-2020, J.4.1) or ""; two capitals or ""."""
    if not isinstance(network, list) or len(network) != 3:
        return False
    for text in network:
        if not isinstance(text, str):
            return False
    ssid, password, country = network
    if not _fits(ssid, _SSID_MAX) or "\0" in ssid:
        return False
    if country and not (len(country) == 2 and "A" <= min(country) and max(country) <= "Z"):
        return False
    if len(password) == _PSK:
        return all(c in "0123456789abcdefABCDEF" for c in password)
    if password and not _PASSPHRASE_MIN <= len(password) <= _PASSPHRASE_MAX:
        return False
    return all(" " <= c <= "~" for c in password)


def trial_times(config, board):
    """(hold, limit, back-off) of a trial in ms: what provisioning set in checked settings, else
    those of board.toml."""
    if TRIAL in config:
        hold, limit, backoff = config[TRIAL]
        return hold * 1000, limit * 1000, backoff * 1000
    return board.TRIAL_HOLD_MS, board.TRIAL_LIMIT_MS, board.TRIAL_BACKOFF_MS


def is_cohort(name):
    """True for 1 to 32 characters of a-z, 0-9 and "-": it is a role's name, a file's and a part
    of a path."""
    if not isinstance(name, str) or not 0 < len(name) <= _COHORT_MAX:
        return False
    for c in name:
        if not ("a" <= c <= "z" or "0" <= c <= "9" or c == "-"):
            return False
    return name not in ("root", "targets", "snapshot", "timestamp")
