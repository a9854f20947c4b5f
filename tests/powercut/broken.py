"""What the judges raise."""

from __future__ import annotations


class Broken(Exception):
    """An invariant does not hold; `rule` is its number in the design."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
