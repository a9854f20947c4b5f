"""An emulated Pico, provisioned as a real one is, with no gateway beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tidemark_host.boardfile import Board
from tidemark_host.boards.emulated import EmulatedPico
from tidemark_host.boards.emulated_chip import with_runtime
from tidemark_host.factory import factory_image
from tidemark_host.gateway.identity import GatewayIdentity
from tidemark_host.provision import BENCH_TRIAL, Anchors, LinkSettings, begin, finish
from tidemark_host.release import KeyStore, Repository, app_path
from tidemark_host.romfs import build_image
from tidemark_host.toolchain_rp2 import flash_of

# Nobody listens there: the board has a key and settings, and never a session.
_LINK = LinkSettings(
    "127.0.0.1", 1883, "http://127.0.0.1/m/", "http://127.0.0.1/t/", trial=BENCH_TRIAL
)


@dataclass(frozen=True)
class Provisioned:
    """`flash`: all of it, with the runtime. `images`: of the releases, in their order."""

    flash: bytes
    images: tuple[bytes, ...]


def provisioned(
    board: Board,
    uf2: Path,
    sources: Path | list[Path],
    folder: Path,
    settings: Mapping[str, Any] | None = None,
) -> Provisioned:
    """Build, sign, flash and provision a first release in an empty `folder`, whose keys are new.

    `sources`: of the application, as of `romfs.build_image`. Takes some seconds.
    """
    parts = [sources] if isinstance(sources, Path) else sources
    app = build_image(parts, dict(settings or {}), folder / "app.romfs")
    repository = Repository.create(folder / "updates", KeyStore.create(folder / "keys"))
    index = repository.add(app, board=board.name, version="1.0.0")
    repository.publish()
    gateway = GatewayIdentity.load_or_create(folder / "gateway")
    factory = factory_image(board, repository.folder, app_path(board.name, index))
    pico = EmulatedPico(uf2, {0: with_runtime(factory, flash_of(uf2.read_bytes()))})
    begin(pico)
    finish(pico, Anchors(repository.root_bytes(), gateway.public), _LINK)
    flash = pico.chip.read_flash(0, board.flash_size)
    return Provisioned(flash, (app.read_bytes(),))
