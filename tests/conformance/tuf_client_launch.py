"""Replaces itself by MicroPython running tuf_client_main.py over the firmware's modules."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tidemark_host import toolchain
from tidemark_host.toolchain_build import firmware_dir

MAIN = Path(__file__).resolve().with_name("tuf_client_main.py")


def main() -> None:
    """Does not return."""
    argv = [*toolchain.quick_micropython(), "-X", "heapsize=16M", str(MAIN), str(firmware_dir())]
    os.execv(argv[0], [*argv, *sys.argv[1:]])


main()
