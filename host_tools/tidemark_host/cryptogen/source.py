"""A text of Python source that grows by lines, for the generators."""

from __future__ import annotations

import re
from collections.abc import Generator
from contextlib import contextmanager


class Source:
    """Lines of Python with their indentation."""

    def __init__(self) -> None:
        self._lines: list[str] = []
        self._depth = 0

    def line(self, *texts: str) -> None:
        """Add each text as a line of the present block."""
        self._lines += ["    " * self._depth + text for text in texts]

    @contextmanager
    def block(self, head: str) -> Generator[None]:
        """Add `head` and indent what follows."""
        self.line(head)
        self._depth += 1
        yield
        self._depth -= 1

    def text(self) -> str:
        """Return the source."""
        return "\n".join(self._lines) + "\n"


def extend_signs(text: str, *, wide: bool) -> str:
    """Make lines `#SIGN x` sign extensions of the local x where `wide`, else drop them.

    64-bit viper zero-extends what it loads through ptr32. A function says `#WIDE` before its first
    `#SIGN`: 2^31 is no small int of the compiler, and has to be made.
    """
    made = "\\1sign = 1 << 29\n\\1sign = sign * 4\n" if wide else ""
    text = re.sub(r"( *)#WIDE\n", made, text)
    extension = "\\1\\2 = (\\2 ^ sign) - sign\n" if wide else ""
    return re.sub(r"( *)#SIGN (\w+)\n", extension, text)
