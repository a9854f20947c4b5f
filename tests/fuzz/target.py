"""What a target of fuzzing is: a parser, what it may say, and what else must hold."""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import fuzz_parsers

from tests.fuzz import host
from tidemark.errors import TidemarkError

Check = Callable[[bytes, str], None]
Change = Callable[[bytes], bytes]


class Finding(Exception):
    """An input that breaks a target's rules. The text says which and how."""


@dataclass(frozen=True)
class Target:
    """One parser.

    `limit`: bytes of input that are tried, beyond the parser's own bound. `codes`: all that it may
    refuse with. `check`: what another reader says. `repair`: makes sums right again. `calls`: how
    many function calls parsing may cost, at all and for each byte. `holds`: the property, for
    docs/fuzzing.md.
    """

    name: str
    limit: int
    seeds: Callable[[], Iterable[bytes]]
    codes: frozenset[str]
    holds: str
    check: Check | None = None
    repair: Change | None = None
    words: tuple[bytes, ...] = ()
    calls: tuple[int, int] = (300, 12)
    examples: int = 120

    @property
    def is_firmware(self) -> bool:
        """Whether it runs on both interpreters."""
        return self.name in fuzz_parsers.PARSERS

    @functools.cached_property
    def corpus(self) -> tuple[bytes, ...]:
        """The seeds, made once."""
        return tuple(self.seeds())

    def run(self, data: bytes, count: bool = False) -> str:
        """Parse, judge, compare; return the word. Raises Finding.

        `count`: count the calls that parsing costs as well.
        """
        data = data[: self.limit]
        try:
            with _Calls(count) as calls:
                word = self._word(data)
            if count and calls.made > self.calls[0] + self.calls[1] * len(data):
                raise Finding(f"{calls.made} calls for {len(data)} bytes")
            if self.check:
                self.check(data, word)
        except Finding:
            raise
        except Exception as error:
            raise Finding(f"{type(error).__name__} {_place(error)}: {error}") from error
        return word

    def _word(self, data: bytes) -> str:
        parsers = fuzz_parsers.PARSERS if self.is_firmware else host.PARSERS
        try:
            return parsers[self.name](data)
        except (TidemarkError, *host.ERRORS) as error:
            if error.code not in self.codes:
                raise Finding(
                    f"refused with {error.code!r}, which is no code of its list"
                ) from error
            return error.code


def _place(error: Exception) -> str:
    """Return where an exception was raised."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"at {Path(frame.filename).name}:{frame.lineno}"


@dataclass
class _Calls:
    """Counts function calls while it is entered; a debugger's hook stays untouched."""

    wanted: bool
    made: int = field(default=0, init=False)

    def __enter__(self) -> _Calls:
        if self.wanted:
            self._former = sys.getprofile()
            sys.setprofile(self._count)
        return self

    def __exit__(self, *_: object) -> None:
        if self.wanted:
            sys.setprofile(self._former)

    def _count(self, _frame: object, event: str, _argument: object) -> None:
        self.made += event in ("call", "c_call")
