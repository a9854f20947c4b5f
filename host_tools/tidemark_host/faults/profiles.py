"""Which fault meets which packet: a pure function of profile, seed, direction, kind and number."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields, replace
from typing import Literal

Direction = Literal["up", "down"]  # from the client to the broker, and back

MAX_DELAY_S = 10.0
MAX_SILENCE_S = 300.0
MAX_LIFE_S = 3600.0
_WORD = 1 << 64
# Faults that are none of these kinds' have no effect on them.
_ONLY = {
    "lie": ("PUBLISH",),
    "duplicate": ("PUBLISH",),
    "echo": ("PUBLISH",),
    "reorder": ("PUBLISH", "PUBACK"),
    # Of a byte stream that is not MQTT nothing is lost while its connection lives.
    "vanish": (
        *("CONNECT", "CONNACK", "PUBLISH", "PUBLISH0", "PUBACK", "SUBSCRIBE", "SUBACK"),
        *("PINGREQ", "PINGRESP"),
    ),
}


class ProfileError(ValueError):
    """A profile outside its bounds."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a packet. `amount`: in [0, 1), how much of it."""

    action: str
    amount: float


PASS = Decision("pass", 0.0)


@dataclass(frozen=True, slots=True)
class Profile:
    """Rates of faults, each a share of packets in [0, 1]; together at most 1.

    Raises ProfileError for what is outside the bounds.
    """

    name: str = "calm"
    vanish: float = (
        0.0  # is not passed on, and the connection lives: no TCP does this, a broker may
    )
    lie: float = 0.0  # a PUBLISH is not passed on, and acknowledged
    duplicate: float = 0.0  # a PUBLISH comes twice in a row, the second time with DUP
    echo: float = 0.0  # a PUBLISH comes again later, with DUP, be it on the next connection
    reorder: float = 0.0  # lets the next one pass, if it comes soon and the protocol lets it
    delay: float = 0.0  # it and all behind it wait, as TCP has it
    fragment: float = 0.0  # byte by byte
    cut_before: float = 0.0  # the connection ends and it was not delivered
    cut_within: float = 0.0  # the connection ends in the middle of it
    cut_after: float = 0.0  # it was delivered, then the connection ends
    silence: float = 0.0  # it and all that follows vanish both ways: a connection half open
    delay_s: float = 0.1  # longest delay
    silence_s: float = 15.0  # until the connection ends after all
    refuse: float = 0.0  # share of connections that are closed at once
    life_s: tuple[float, float] = (0.0, 0.0)  # a connection lives so long, at least and at most
    resend: bool = False  # a PUBLISH that a cut met comes again on the next connection, with DUP
    strict: bool = True  # reorder only as MQTT 3.1.1, 4.6 allows

    def __post_init__(self) -> None:
        rates = [*self.rates().values(), self.refuse]
        if not all(0.0 <= rate <= 1.0 for rate in rates) or sum(rates[:-1]) > 1.0:
            raise ProfileError("rates are in [0, 1], and together at most 1")
        if not 0.0 <= self.delay_s <= MAX_DELAY_S or not 0.0 <= self.silence_s <= MAX_SILENCE_S:
            raise ProfileError(f"at most {MAX_DELAY_S:.0f} s of delay, {MAX_SILENCE_S:.0f} s mute")
        if not 0.0 <= self.life_s[0] <= self.life_s[1] <= MAX_LIFE_S:
            raise ProfileError(f"a life is from least to most, at most {MAX_LIFE_S:.0f} s")

    def rates(self) -> dict[str, float]:
        """Return the rate of each fault of a packet."""
        return {name: getattr(self, name) for name in ACTIONS}

    @property
    def faults(self) -> frozenset[str]:
        """The faults that it has, `refuse` and `life` among them."""
        found = {name for name, rate in self.rates().items() if rate}
        found |= {"refuse"} if self.refuse else set[str]()
        return frozenset(found | ({"life"} if self.life_s[1] else set[str]()))

    def slower(self, factor: float) -> Profile:
        """Return the profile with times so many times as long, for a board that is slower."""
        return replace(
            self,
            delay_s=self.delay_s * factor,
            silence_s=self.silence_s * factor,
            life_s=(self.life_s[0] * factor, self.life_s[1] * factor),
        )

    def decide(self, seed: int, direction: Direction, kind: str, number: int) -> Decision:
        """Return what becomes of the `number`-th packet of its kind and direction, from 1."""
        chance, amount = _draw(f"{seed} {direction} {kind} {number}")
        for action, rate in self.rates().items():
            if chance < rate:
                fits = kind in _ONLY.get(action, (kind,)) and not (
                    action == "lie" and direction == "down"
                )
                return Decision(action, amount) if fits else PASS
            chance -= rate
        return PASS

    def is_refused(self, seed: int, connection: int) -> bool:
        """Say whether the `connection`-th connection is closed at once."""
        return _draw(f"{seed} refuse {connection}")[0] < self.refuse

    def life(self, seed: int, connection: int) -> float:
        """Return how many seconds the `connection`-th connection lives, 0 for ever."""
        least, most = self.life_s
        return least + (most - least) * _draw(f"{seed} life {connection}")[0]


# In the order in which `decide` tries them: all fields between the name and the first bound.
ACTIONS = tuple(field.name for field in fields(Profile))[1:12]


def _draw(text: str) -> tuple[float, float]:
    """Return two numbers in [0, 1) that depend on nothing but the text."""
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    # 53 bits each: what a float holds exactly.
    first, second = (int.from_bytes(digest[at : at + 8], "big") >> 11 for at in (0, 8))
    return first / (_WORD >> 11), second / (_WORD >> 11)


CALM = Profile()
_PROFILES = (
    CALM,
    # What a soak of hours lives with: each fault now and then.
    Profile(
        "mild",
        vanish=0.00003,
        duplicate=0.003,
        reorder=0.003,
        delay=0.003,
        fragment=0.0005,
        cut_before=0.0001,
        cut_within=0.0001,
        cut_after=0.0001,
        silence=0.00001,
        delay_s=0.03,
        resend=True,
    ),
    # A radio at the edge of its range.
    Profile(
        "lossy",
        delay=0.03,
        fragment=0.02,
        cut_before=0.006,
        cut_within=0.006,
        cut_after=0.006,
        delay_s=0.08,
        resend=True,
    ),
    # A broker that loses, lies, repeats and mixes up.
    Profile(
        "hostile-broker",
        vanish=0.006,
        lie=0.02,
        duplicate=0.05,
        echo=0.05,
        reorder=0.05,
        strict=False,
    ),
    # Connections that die without a word.
    Profile("half-open", silence=0.006, delay=0.02, silence_s=12.0),
    # Up for seconds, then gone, then refused for a while.
    Profile("flapping", life_s=(2.0, 4.0), refuse=0.3, resend=True),
)
PROFILES = {profile.name: profile for profile in _PROFILES}
