"""The hand-over: the radio's driver takes its memory first, under a marker that blames no image; a
rescue in an image's place leaves its slot alone.
"""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from tidemark import image, reasons, settings, stage0
from tidemark.base import BaseFault


def staged(monkeypatch: pytest.MonkeyPatch, seen: list[Any]) -> Any:
    """Put a base into stage 0 that notes what is done with it."""

    def ends(*args: Any) -> None:
        seen.append("ends")
        raise KeyboardInterrupt

    def set_marker(number: int) -> None:
        seen.append(reasons.decode(number))

    base = SimpleNamespace(
        slots=SimpleNamespace(release=lambda slot: SimpleNamespace(index=1, version="1.0.0")),
        port=SimpleNamespace(set_marker=set_marker),
        supervisor=SimpleNamespace(lease=lambda ms, reason: seen.append(reason)),
        board=SimpleNamespace(LEASE_BOOT_MS=1),
        regions={"slot_a": None},
        prepare_radio=lambda: seen.append("driver"),
        record=ends,
        tell=lambda word: None,
        mode="normal",
        why="no-image",
        runtimes=None,
    )
    monkeypatch.setattr(stage0, "base", base)
    monkeypatch.setattr(image, "mount", ends)
    return base


def test_driver_is_had_before_the_image_is_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    staged(monkeypatch, seen)
    with pytest.raises(KeyboardInterrupt):
        stage0._run_image(0)
    assert seen == ["driver", "", "deadline", "ends"]


def test_rescue_that_takes_an_images_place_leaves_its_slot_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The image is mapped, and a part of it imported, when the base turns out to fail."""
    base = staged(monkeypatch, [])
    found: list[Any] = []

    def fails() -> bool:
        raise BaseFault("no memory for the session")

    def rescue() -> None:
        found.extend([base.slots.mounted, list(sys.path), base.mode, base.why])

    base.slots.mounted = None
    monkeypatch.setattr(image, "mount", lambda region, release: None)
    monkeypatch.setitem(sys.modules, "agent", SimpleNamespace(app=SimpleNamespace()))
    monkeypatch.setattr(settings, "load", lambda app: {})
    monkeypatch.setattr(base, "connect", fails, raising=False)
    monkeypatch.setattr(stage0, "_run_rescue", rescue)
    with monkeypatch.context() as patch:  # pytest imports when an assertion fails
        patch.setattr(sys, "path", list(sys.path))
        stage0._run_image(0)
    assert found == [0, [".frozen"], "rescue", "base-fault"]


def test_driver_of_a_rescue_is_had_under_the_same_marker(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    staged(monkeypatch, seen)
    with pytest.raises(KeyboardInterrupt):
        stage0._run_rescue()
    assert seen == ["driver", "", "rescue", "ends"]
