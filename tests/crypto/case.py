"""A case: what a board is asked, and what it must answer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """A call for the board, [operation, argument in hex...], and the answer it must give."""

    call: list[str]
    want: str
