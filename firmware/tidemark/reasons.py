# Why a board was reset or a trial ended: one list for flash, wire and gateway.
# Codes are words; the register that survives a reset holds their place in this list, so entries
# are only ever appended.

from tidemark.compat import const

_MAGIC = const(0x7D3A)

REASONS = (
    "",
    "update",  # a new image is staged
    "trial",  # an inconclusive trial is repeated
    "lease",  # a forgotten REPL or a boot that nobody took over
    "deadline",  # a task missed its deadline
    "heap",
    "crash",
    "no-ack",  # trial without an acknowledgement
    "provisioned",
    "health",  # the application's own health check
    "rescue",
    "rollback",  # a trial ended, its outcome is journalled
    "request",  # asked for by a person or a command
    "runtime",  # the trial goes on in the runtime of the new release
    "restore",  # back to the confirmed runtime
    "radio",  # its driver could not be had in that boot
    "radio-start",  # is left where its driver's start ends in a reset that nobody asked for
)

# Causes of a reset after which no marker is left.
POWER = ("power-on", "brownout")


def encode(reason):
    """The 32-bit marker for a reason of `REASONS`. Raises ValueError for any other word."""
    return _MAGIC << 16 | REASONS.index(reason)


def decode(marker):
    """The reason (str) behind a 32-bit marker; "" when it was never set or is junk."""
    place = marker & 0xFFFF
    if marker >> 16 != _MAGIC or place >= len(REASONS):
        return ""
    return REASONS[place]
