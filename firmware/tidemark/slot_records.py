# What the slots keep in the journal, and what of it counts as ours: layout in docs/flash-state.md.

from tidemark.compat import const

EMPTY = const(0)
WRITING = const(1)
STAGED = const(2)
TRIAL = const(3)
CONFIRMED = const(4)
REJECTED = const(5)

NONE = const(2)  # in place of a slot number: there is none

FORMAT = const(1)
REJECTED_MAX = const(16)


def _is_uint(value):
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_uints(values):
    return all(_is_uint(value) for value in values)


def is_state(state):
    """True for a boot record as `Slots` writes it: nothing of it is looked at again later."""
    if not isinstance(state, list) or len(state) != 6 or state[0] != FORMAT:
        return False
    _, confirmed, entries, trial, crashes, last = state
    for part, size in ((entries, 2), (trial, 5)):
        if not isinstance(part, list) or len(part) != size:
            return False
    if not isinstance(trial[0], bool) or not _are_uints(trial[1:] + [confirmed, crashes]):
        return False
    for entry in entries:
        if not isinstance(entry, list) or len(entry) not in (1, 6) or not _is_uint(entry[0]):
            return False
        if entry[0] > REJECTED or (entry[0] != EMPTY and len(entry) == 1):
            return False
        if len(entry) == 6:
            _, digest, length, index, attempt, version = entry
            if not isinstance(digest, bytes) or not isinstance(version, str):
                return False
            if not _are_uints((length, index, attempt)):
                return False
    if last is not None and not _is_end(last):
        return False
    return confirmed == NONE or (confirmed < NONE and len(entries[confirmed]) == 6)


def _is_end(last):
    """True for the end of a trial as `Slots` writes it; a sixth part says that it is untold."""
    if not isinstance(last, list) or not 5 <= len(last) <= 6:
        return False
    return isinstance(last[2], str) and isinstance(last[3], str)


def is_rejections(entries):
    """True for a list as `Slots._reject` writes it."""
    if not isinstance(entries, list) or len(entries) > REJECTED_MAX:
        return False
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 4 or not _are_uints(entry[1:3]):
            return False
        if not isinstance(entry[0], bytes) or not isinstance(entry[3], str):
            return False
    return True
