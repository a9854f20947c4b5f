# Settings of the application image: /settings.json inside it, checked against what is known.

import json

from tidemark import image
from tidemark.compat import const, utf8
from tidemark.errors import ConfigError

_SIZE_MAX = const(4096)  # bytes

# name: (default, least, most) for integers, (default, allowed words) for words, (default,) for
# what is on or off.
_KNOWN = {
    "confidential": (False,),
    "integrity": ("mac", ("mac", "sign")),
    "period_ms": (60_000, 1, 86_400_000),
    "readings_max": (0, 0, 1_000_000_000),
}


def defaults():
    """The settings (dict) of an image that sets nothing, and of rescue."""
    return {name: rule[0] for name, rule in _KNOWN.items()}


def check(given):
    """`given` (dict) over the defaults. Keys under "app" are the application's own and pass as
    they are; any other unknown key or value out of range is ConfigError("settings")."""
    settings = defaults()
    settings["app"] = {}
    for name, value in given.items():
        if name == "app" and isinstance(value, dict):
            settings["app"] = value
            continue
        rule = _KNOWN.get(name)
        if rule is None:
            raise ConfigError("settings", "unknown setting " + name)
        if len(rule) == 1:
            good = isinstance(value, bool)
        elif isinstance(rule[0], str):
            good = value in rule[1]
        else:
            good = isinstance(value, int) and not isinstance(value, bool)
            good = good and rule[1] <= value <= rule[2]
        if not good:
            raise ConfigError("settings", "value of " + name)
        settings[name] = value
    if settings["confidential"] and settings["integrity"] == "sign":
        raise ConfigError("settings", "confidential telemetry carries no signature")
    return settings


def load(app):
    """Settings of the mounted image; the defaults in rescue (`app` is None) or when the image has
    none."""
    if app is None:
        return check({})
    try:
        with open(image.MOUNT_POINT + "/settings.json", "rb") as file:
            data = file.read(_SIZE_MAX + 1)
    except OSError:
        return check({})
    if len(data) > _SIZE_MAX:
        raise ConfigError("settings", "file too large")
    try:
        given = json.loads(utf8(data))
    except ValueError:
        raise ConfigError("settings", "not JSON")
    if not isinstance(given, dict):
        raise ConfigError("settings", "not an object")
    return check(given)
