"""The judge of runtimes: which one starts, with which application, and whose slot is written.

A release is an application and the runtime it was published with. The two are confirmed together
and rolled back together (design 3: I3, I4, I5 hold for the pair).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tests.powercut.broken import Broken
from tests.powercut.esp32 import Runtime, image_in, read
from tidemark_host.boards.nor import NorFlash
from tidemark_host.esp32.bootloader import BootError, Bootloader, Layout

_IN_IMAGE = 64  # any byte that an image's checksum covers
_STARTS = 20  # of a runtime on trial: 18 trial boots, and what a rejection needs to undo it


class Pairs:
    """`runtime_of`: index of the runtime that a release was published with."""

    def __init__(
        self, layout: Layout, published: Iterable[Runtime], runtime_of: Mapping[int, int]
    ) -> None:
        self._layout = layout
        self._published = {runtime.image for runtime in published}
        self.runtime_of = dict(runtime_of)
        self.slot = 0  # of what runs
        self.index = 0
        self._slots: dict[int, int] = {}  # by index: where a runtime was seen to start
        self._starts = 0  # of one that is not confirmed

    def started(self, flash: NorFlash, slot: int, confirmed: int) -> None:
        """The bootloader started a slot; `confirmed`: the release that is. I3, I4, I5."""
        image = image_in(flash, self._layout.ota[slot])
        if image not in self._published:
            raise Broken("I3", f"ota_{slot} runs bytes that nobody has published")
        self.decays(bytes(flash.view(0, flash.size)))
        self.slot, self.index = slot, read(image)[0]
        self._slots[self.index] = slot
        need = self.runtime_of[confirmed]
        if self.index < need:
            raise Broken(
                "I4", f"runtime {self.index} starts, release {confirmed} needs runtime {need}"
            )
        if self.index > need:
            self._starts += 1
            if self._starts > _STARTS:
                raise Broken("I5", f"runtime {self.index} had {_STARTS} starts without an end")

    def handed_over(self, release: int, trial: bool, confirmed: int) -> None:
        """Stage 0 handed over to a release. I3, I5."""
        if self.runtime_of[release] != self.index:
            raise Broken("I3", f"release {release} runs on runtime {self.index}")
        if not trial and release != confirmed:
            raise Broken("I5", f"release {release} runs outside a trial, {confirmed} is confirmed")

    def concluded(self) -> None:
        """A trial came to an end."""
        self._starts = 0

    def operation(self, address: int, confirmed: int) -> None:
        """The flash is about to change at `address`. I3."""
        for slot, region in enumerate(self._layout.ota):
            if region.offset <= address < region.offset + region.size:
                if slot == self.slot:
                    raise Broken("I3", f"writes into ota_{slot}, which runs")
                if slot == self._slots.get(self.runtime_of[confirmed]):
                    raise Broken("I3", f"writes into the runtime of release {confirmed}")

    def decays(self, content: bytes) -> None:
        """Whichever runtime decays now: what starts then was published, or nothing does. I3.

        The bootloader takes any image that holds its own checksum.
        """
        for region in self._layout.ota:
            decayed = bytearray(content)
            decayed[region.offset + _IN_IMAGE] ^= 1
            flash = NorFlash(decayed)
            try:
                slot = Bootloader(flash, self._layout).boot().index
            except BootError:
                continue
            if image_in(flash, self._layout.ota[slot]) not in self._published:
                raise Broken("I3", f"ota_{slot} would start bytes that nobody has published")

    def check(self, content: bytes, confirmed: int) -> None:
        """At the end: this reset and the next start the confirmed release's runtime, none starts
        another's bytes. I3."""
        self.decays(content)
        flash = NorFlash(bytearray(content))
        for _ in range(2):
            try:
                boot = Bootloader(flash, self._layout).boot()
            except BootError as error:
                raise Broken("I3", f"nothing would start: {error}") from error
            image = image_in(flash, self._layout.ota[boot.index])
            if image not in self._published:
                raise Broken("I3", f"ota_{boot.index} holds bytes that nobody has published")
            index, need = read(image)[0], self.runtime_of[confirmed]
            if index != need:
                raise Broken(
                    "I3", f"runtime {index} would start, release {confirmed} has runtime {need}"
                )
