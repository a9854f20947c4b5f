"""Files of a repository: images that come in, and what is written."""

from __future__ import annotations

from pathlib import Path

from tidemark_host.release.errors import ReleaseError
from tidemark_host.romfs import APPS, ImageError, list_files

# root.json goes into a board's write-once sector, beside the identity's public key.
MAX_ROOT_SIZE = 3072
# What the board's client takes, bytes (firmware/tidemark/tuf.py, Limits).
MAX_TARGETS_SIZE = 32_768
_ONLINE = ("snapshot", "timestamp")


def read_image(image: Path | bytes, check: bool = True) -> bytes:
    """Return the bytes of an application image. Raises ReleaseError `image`.

    check: refuse what holds no application; a board would only find out in the trial.
    """
    try:
        data = image if isinstance(image, bytes) else image.read_bytes()
    except OSError as error:
        raise ReleaseError("image", f"{image}: {error.strerror}", "tidemark build") from error
    if not data:
        raise ReleaseError("image", "an empty image", "tidemark build")
    try:
        if check and not APPS.intersection(list_files(data)):
            raise ReleaseError("image", "no agent/app in the image", "tidemark build")
    except ImageError as error:
        raise ReleaseError("image", f"not an image: {error}", "tidemark build") from error
    return data


def write(path: Path, data: bytes) -> None:
    """Replace a file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(data)
    temporary.replace(path)


def check_size(role: str, size: int) -> None:
    """Raises ReleaseError: `root-size`, `targets-size` for a file that no board takes."""
    if role == "root" and size > MAX_ROOT_SIZE:
        raise ReleaseError(
            "root-size",
            f"root.json has {size} bytes, above {MAX_ROOT_SIZE}",
            "use fewer root keys or a lower threshold",
        )
    if role not in ("root", *_ONLINE) and size > MAX_TARGETS_SIZE:
        raise ReleaseError(
            "targets-size", f"{role}.json has {size} bytes, above {MAX_TARGETS_SIZE}"
        )
