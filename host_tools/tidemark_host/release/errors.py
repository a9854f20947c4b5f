"""What the release tools refuse."""

from __future__ import annotations


class ReleaseError(Exception):
    """A release that can't be made as asked. `code` is stable; `hint` says what to try next."""

    def __init__(self, code: str, text: str, hint: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.hint = hint
