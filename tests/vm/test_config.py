# Link settings and settings of an image: what a console or a file may say, and what is refused.

import os

from tidemark import cbor, config, image, settings
from tidemark.errors import ConfigError


def good():
    return {
        config.BROKER_HOST: "192.0.2.7",
        config.BROKER_PORT: 1883,
        config.METADATA_URL: "http://192.0.2.7/metadata/",
        config.TARGETS_URL: "http://192.0.2.7/targets/",
        config.UPDATE_S: 3600,
        config.REPORT_S: 300,
        config.KEEPALIVE_S: 30,
    }


def refused(call, *args):
    try:
        call(*args)
    except ConfigError as error:
        return error.code
    raise AssertionError("not refused")


def test_whole_link_settings_pass():
    assert config.check(good()) == good()


def test_cohort_is_a_name_or_absent():
    assert config.cohort(config.check(good())) == ""
    for name, cohort in (("canary-2", "canary-2"), ("default", "")):
        changed = good()
        changed[config.COHORT] = name
        assert config.cohort(config.check(changed)) == cohort


class FieldBoard:
    TRIAL_HOLD_MS = 10000
    TRIAL_LIMIT_MS = 180000
    TRIAL_BACKOFF_MS = 60000


def test_trial_times_are_the_boards_unless_provisioning_set_all_three():
    assert config.trial_times(config.check(good()), FieldBoard) == (10000, 180000, 60000)
    changed = good()
    changed[config.TRIAL] = [2, 6, 0]
    assert config.trial_times(config.check(changed), FieldBoard) == (2000, 6000, 0)


def test_wifi_network_is_given_whole_or_not_at_all():
    assert config.wifi(config.check(good())) == ("", "", "")
    for network in (
        ["barn", "correct horse", "DE"],
        ["barn", "", ""],  # open, in a country that was not told
        ["b", "8letters", "GB"],
        ["\u00fc" * 16, "~" * 63, "ZZ"],
        ["barn", "0123456789abcdefABCDEF" + "0" * 42, ""],
    ):
        changed = good()
        changed[config.WIFI] = network
        assert config.wifi(config.check(changed)) == tuple(network)


def test_wifi_network_out_of_bounds_is_refused_and_nothing_of_it_told():
    for network in (
        None,
        "barn",
        [],
        ["barn", "correct horse"],
        ["barn", "correct horse", "DE", ""],
        ["", "correct horse", "DE"],
        ["x" * 33, "correct horse", "DE"],
        ["\u00fc" * 17, "correct horse", "DE"],
        ["ba\0rn", "correct horse", "DE"],
        [b"barn", "correct horse", "DE"],
        ["barn", b"correct horse", "DE"],
        ["barn", 12345678, "DE"],
        ["barn", "7 chars", "DE"],
        ["barn", "x" * 64, "DE"],
        ["barn", "0" * 65, "DE"],
        ["barn", "correct h\u00f6rse", "DE"],
        ["barn", "correct\nhorse", "DE"],
        ["barn", "correct horse", "de"],
        ["barn", "correct horse", "D"],
        ["barn", "correct horse", "DEU"],
        ["barn", "correct horse", "D1"],
        ["barn", "correct horse", None],
    ):
        changed = good()
        changed[config.WIFI] = network
        try:
            config.check(changed)
        except ConfigError as error:
            assert str(error) == "config: value of key 10"
        else:
            raise AssertionError(network)


def test_the_largest_settings_fit_a_value_of_the_journal():
    whole = good()
    url = "http://" + "h" * 120 + "/"
    whole.update({config.METADATA_URL: url, config.TARGETS_URL: url, config.BROKER_HOST: url})
    whole.update({config.BROKER_PORT: 65535, config.UPDATE_S: 604800, config.REPORT_S: 86400})
    whole.update({config.KEEPALIVE_S: 3600, config.COHORT: "c" * 32})
    whole[config.TRIAL] = [3600, 3600, 3600]
    whole[config.WIFI] = ["s" * 32, "0" * 64, "DE"]
    assert len(cbor.encode(config.check(whole))) <= 640


def test_texts_have_room_in_bytes():
    wide = "\u00fc"  # two bytes
    for key, start in (
        (config.BROKER_HOST, ""),
        (config.METADATA_URL, "http://h/"),
        (config.TARGETS_URL, "http://h/"),
    ):
        room = 128 - len(start)
        changed = good()
        changed[key] = start + "x" * (room % 2) + wide * (room // 2)
        assert config.check(changed) == changed
        changed[key] += "x"
        assert len(changed[key]) < 128 and len(changed[key].encode()) == 129
        assert refused_text(changed) == "config: value of key %d" % key


def test_text_with_half_of_a_surrogate_pair_is_refused():
    # The journal would take it, and no later boot would read it again.
    changed = good()
    changed[config.BROKER_HOST] = "h" + chr(0xD800)
    assert refused_text(changed) == "config: value of key 1"
    changed = good()
    changed[config.WIFI] = ["h" + chr(0xD800), "correct horse", "DE"]
    assert refused_text(changed) == "config: value of key 10"


def refused_text(changed):
    try:
        config.check(changed)
    except ConfigError as error:
        return str(error)
    raise AssertionError("not refused")


def loaded(data):
    """What `settings.load` makes of a file of these bytes in the image."""
    folder = "/tmp/tidemark-settings-" + "".join(["%02x" % byte for byte in os.urandom(6)])
    path = folder + "/settings.json"
    former = image.MOUNT_POINT
    os.mkdir(folder)
    try:
        with open(path, "wb") as file:
            file.write(data)
        image.MOUNT_POINT = folder
        return settings.load(image)
    finally:
        image.MOUNT_POINT = former
        os.remove(path)
        os.rmdir(folder)


def test_settings_of_an_image_have_room_in_bytes():
    start, end = b'{"app": {"place": "', b'"}}'
    wide = "\u00fc".encode()
    room = 4096 - len(start) - len(end)
    fits = start + b"x" * (room % 2) + wide * (room // 2) + end
    assert len(fits) == 4096
    place = loaded(fits)["app"]["place"]
    assert len(place.encode()) == room and place[-1] == "\u00fc"
    assert refused(loaded, fits + b" ") == "settings"
    assert refused(loaded, b'{"app": {"a": "\xff"}}') == "settings"


def test_missing_unknown_or_odd_link_settings_are_refused():
    for key in good():
        changed = good()
        del changed[key]
        assert refused(config.check, changed) == "config"
    for key, value in (
        (config.BROKER_HOST, ""),
        (config.BROKER_HOST, b"x"),
        (config.BROKER_PORT, 0),
        (config.BROKER_PORT, 99999),
        (config.BROKER_PORT, True),
        (config.METADATA_URL, "ftp://nope"),
        (config.TARGETS_URL, "http://x:0/"),
        (config.UPDATE_S, 0),
        (config.REPORT_S, -3),
        (config.COHORT, ""),
        (config.COHORT, "Canary"),
        (config.COHORT, "a/b"),
        (config.COHORT, "x" * 33),
        (config.COHORT, "targets"),
        (config.COHORT, 3),
        (config.TRIAL, None),
        (config.TRIAL, 60),
        (config.TRIAL, [2, 6]),
        (config.TRIAL, [2, 6, 1, 1]),
        (config.TRIAL, [0, 6, 1]),
        (config.TRIAL, [7, 6, 1]),
        (config.TRIAL, [2, 3601, 1]),
        (config.TRIAL, [2, 6, -1]),
        (config.TRIAL, [2, 6, 3601]),
        (config.TRIAL, [True, 6, 1]),
        (config.TRIAL, [2, "6", 1]),
        (99, 1),
    ):
        changed = good()
        changed[key] = value
        assert refused(config.check, changed) == "config", (key, value)
    assert refused(config.check, [1]) == "config"


def test_image_settings_have_defaults_and_limits():
    assert settings.check({})["integrity"] == "mac"
    assert settings.check({"integrity": "sign"})["integrity"] == "sign"
    assert settings.check({"app": {"a": 1}})["app"] == {"a": 1}
    for given in (
        {"integrity": "none"},
        {"period_ms": 0},
        {"period_ms": True},
        {"period_ms": "1"},
        {"typo": 1},
        {"app": 1},
    ):
        assert refused(settings.check, given) == "settings"
