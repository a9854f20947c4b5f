# Update runs of a board in a cohort: what the cohort's own role may give it, and what it may not.

from tuf_maker import LONG_AGO, key
from update_rig import BOARD, Rig

from tidemark.slots import CONFIRMED, EMPTY, STAGED
from tidemark.target import app_path

CANARY = "canary"
PATHS = ["canary/*/app-*.romfs"]


def rig_with_role(cohort=CANARY, paths=PATHS):
    rig = Rig(cohort)
    rig.maker.delegate(CANARY, paths)
    return rig


def canary(rig, index, path=None, by=None, **change):
    """The cohort's team publishes one release, under `path` if that is given."""
    path = path or app_path(BOARD, index, CANARY)
    entry, url = rig.entry(path, index, **change)
    rig.maker.publish_delegated(CANARY, {path: entry}, by)
    rig.publish()
    return url


def test_board_of_the_cohort_takes_what_its_role_signs():
    rig = rig_with_role()
    url = canary(rig, 2)
    assert rig.run() == "staged"
    assert rig.downloads() == [(url, 0)]
    assert rig.slots.table() == [[CONFIRMED, 1, 0], [STAGED, 2, 0]]
    rig.boot()
    assert rig.run() == "staged"


def test_other_boards_do_not_see_it():
    for cohort in ("", "beta"):
        rig = rig_with_role(cohort)
        canary(rig, 2)
        assert rig.run() == "none"
        assert rig.downloads() == []
        assert "/metadata/1.canary.json" not in [asked[0] for asked in rig.peer.asked]


def test_board_of_the_cohort_takes_the_fleets_newer_release():
    rig = rig_with_role()
    canary(rig, 2)
    rig.offer(3)
    assert rig.run() == "staged"
    assert rig.slots.table()[1] == [STAGED, 3, 0]


def test_path_outside_the_delegation_is_refused_and_said():
    for path in (app_path(BOARD, 2), app_path(BOARD, 2, CANARY)):
        rig = rig_with_role(paths=["canary/OTHER/app-*.romfs"])
        canary(rig, 2, path)
        assert rig.run() == "not-delegated"
        assert rig.downloads() == []
        assert rig.slots.table()[1] == [EMPTY, 0, 0]


def test_role_can_not_speak_over_the_owner():
    rig = rig_with_role(paths=["canary/*/*", "VIRTUAL/*"])
    rig.offer(2)
    canary(rig, 2, app_path(BOARD, 2), data=b"other" * 100)
    assert rig.run() == "staged"
    digest = rig.maker.targets[app_path(BOARD, 2)]["hashes"]["sha256"]
    assert rig.slots.release(1).digest.hex() == digest


def test_role_that_lists_another_image_under_the_owners_path_is_refused():
    # The owner's own entry is not for this board any more: another role's word is not his.
    rig = rig_with_role(paths=["canary/*/*", "VIRTUAL/*"])
    rig.offer(2, abort=True)
    canary(rig, 2, app_path(BOARD, 2), data=b"other" * 100)
    assert rig.run() == "not-delegated"
    assert rig.downloads() == []


def test_role_can_not_lift_what_the_owner_says_of_his_image():
    # The same image under the owner's path, but in other words.
    for owner, role in (
        ({"abort": True}, {}),
        ({"cohort": 0}, {"cohort": 100}),
        ({"cohort": 0, "attempt": 0}, {"attempt": 1}),
    ):
        rig = rig_with_role()
        rig.offer(2, **owner)
        canary(rig, 2, app_path(BOARD, 2), **role)
        assert rig.run() == "not-delegated"
        assert rig.downloads() == []


def test_terminating_role_before_it_keeps_the_path():
    rig = Rig(CANARY)
    rig.maker.delegate("first", ["canary/*/app-2.romfs"])
    rig.maker.delegate(CANARY, PATHS)
    rig.maker.publish_delegated("first", {})
    canary(rig, 2)
    assert rig.run() == "not-delegated"


def test_role_signed_by_another_key_or_expired_ends_the_run():
    rig = rig_with_role()
    canary(rig, 2, by=key("stranger"))
    assert rig.run() == "targets-threshold"
    rig.maker.publish_delegated(CANARY, {}, None, LONG_AGO)
    rig.publish()
    assert rig.run() == "targets-expired"
    assert rig.downloads() == []


def test_owner_who_takes_the_role_back_ends_its_say():
    rig = rig_with_role()
    canary(rig, 2, by=key("stranger"))
    assert rig.run() == "targets-threshold"
    rig.maker.delegations["roles"] = []
    rig.offer(3)
    assert rig.run() == "staged"


def test_role_that_has_published_nothing_yet_gives_nothing():
    rig = rig_with_role()
    rig.offer(2)
    assert rig.run() == "staged"


def test_role_takes_its_own_release_back():
    rig = rig_with_role()
    canary(rig, 2)
    assert rig.run() == "staged"
    canary(rig, 2, abort=True)
    assert rig.run() == "none"
    assert rig.slots.state(1) == EMPTY


def test_role_can_not_take_back_the_fleets_release():
    rig = rig_with_role()
    url = rig.offer(2)
    assert rig.run() == "staged"
    canary(rig, 2, abort=True)
    assert rig.run() == "staged"
    assert rig.slots.state(1) == STAGED
    assert rig.downloads() == [(url, 0)]  # it was never dropped


def test_replayed_role_is_refused():
    rig = rig_with_role()
    canary(rig, 2)
    canary(rig, 3)
    assert rig.run() == "staged"
    rig.maker.versions[CANARY] = 1
    rig.publish()
    assert rig.run() == "targets-rollback"
