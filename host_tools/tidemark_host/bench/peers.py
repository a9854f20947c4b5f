"""Other people's cryptography for the same board, to be measured beside ours in the same run.

Nothing of it is in the repository: micropython-lib's SHA-512 and Monocypher are source packages of
the package index, Mbed TLS is the one in MicroPython's own source. The C is compiled for the
RP2040's core and linked to an address in the flash; a few lines of Thumb code call it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tidemark_host import toolchain, toolchain_rp2
from tidemark_host import toolchain_cache as cache
from tidemark_host.toolchain_cache import ToolchainError, run

_HASHLIB = ("micropython-hashlib", "2.4.0.post5")
_HASHLIB_SHA256 = "9139da0065478dcf9d6d8793cbd2a5a616375962e93231cf3d52e07cb6801c22"
_MONOCYPHER = ("pymonocypher", "4.0.3.4")
_MONOCYPHER_SHA256 = "5e56e3d3eb770a53e0b9f6274146663c11a11f3d0de5cd48e3be0428d1b07a4a"

C_OFFSET = 0x1F0000
"""Where the compiled peers are in the flash: a table of four entries, then the code."""
_ADDRESS = 0x10000000 + C_OFFSET
_FLAGS = ("-O2", "-mcpu=cortex-m0plus", "-mthumb", "-ffunction-sections", "-fdata-sections")
# The package has BLAKE2b in place of SHA-512: the hashes of an Ed25519 signature are handed in.
_ENTRIES = """
#include <stdint.h>
#include "monocypher.h"
#include "mbedtls/sha512.h"

static void x25519(uint8_t *out, const uint8_t *scalar, const uint8_t *u) {
    crypto_x25519(out, scalar, u);
}

static uint32_t verify(const uint8_t *signature, const uint8_t *public, const uint8_t *digest) {
    uint8_t k[32];
    crypto_eddsa_reduce(k, digest);
    return crypto_eddsa_check_equation(signature, public, k) == 0;
}

/* digests: of the prefix and the message, then of R, the public key and the message. */
static void sign(uint8_t *signature, const uint8_t *expanded, const uint8_t *digests) {
    uint8_t a[32], r[32], k[32];
    crypto_eddsa_trim_scalar(a, expanded);
    crypto_eddsa_reduce(r, digests);
    crypto_eddsa_scalarbase(signature, r);
    crypto_eddsa_reduce(k, digests + 64);
    crypto_eddsa_mul_add(signature + 32, k, a, r);
}

static void block(mbedtls_sha512_context *context, const uint8_t *data) {
    mbedtls_internal_sha512_process(context, data);
}

__attribute__((section(".entries"), used))
const void *const entries[] = {x25519, verify, sign, block};
"""

CALLER = f"""
import micropython
from machine import mem32

X25519, VERIFY, SIGN, BLOCK = [mem32[{_ADDRESS} + 4 * i] for i in range(4)]

@micropython.asm_thumb
def call(r0, r1, r2, r3):
    mov(r4, r3)
    data(2, 0x47a0)  # blx r4
"""
"""A module with `call(a, b, c, function)` for the compiled peers."""


@dataclass(frozen=True)
class Compiled:
    """The C peers: flash content by offset, and what they are, with their versions."""

    flash: Mapping[int, bytes]
    curve: str
    sha512: str


def micropython_lib_sha512() -> tuple[str, str]:
    """Return the name with the version, and the source of the module `_sha512`."""
    name = " ".join(_HASHLIB)
    key = cache.digest(*_HASHLIB, _HASHLIB_SHA256)

    def fetch(folder: Path) -> None:
        unpacked = toolchain.fetch_sdist(*_HASHLIB, _HASHLIB_SHA256, folder / "work")
        found = next(unpacked.rglob("hashlib/_sha512.py"), None)
        if found is None:
            raise ToolchainError("package", f"{name} has no hashlib/_sha512.py")
        found.rename(folder / "_sha512.py")

    folder = cache.ensure("peer-hashlib", key, f"fetching {name}", fetch)
    return name, (folder / "_sha512.py").read_text()


def compiled() -> Compiled:
    """Return the C peers, compiled as this module says. Raises ToolchainError."""
    key = cache.digest(*_MONOCYPHER, _MONOCYPHER_SHA256)
    what = f"fetching {' '.join(_MONOCYPHER)}"

    def fetch(folder: Path) -> None:
        unpacked = toolchain.fetch_sdist(*_MONOCYPHER, _MONOCYPHER_SHA256, folder / "work")
        for name in ("monocypher.c", "monocypher.h"):
            (unpacked / name).rename(folder / name)

    monocypher = cache.ensure("peer-monocypher", key, what, fetch)
    mbedtls = toolchain_rp2.source_tree() / "lib" / "mbedtls"
    version = (mbedtls / "include" / "mbedtls" / "build_info.h").read_text()
    version = version.partition("MBEDTLS_VERSION_STRING ")[2].split('"')[1]
    with tempfile.TemporaryDirectory() as name:
        code = _compile(Path(name), monocypher, mbedtls)
    curve = f"Monocypher in C ({' '.join(_MONOCYPHER)}, -O2)"
    return Compiled({C_OFFSET: code}, curve, f"Mbed TLS {version} in C (-O2)")


def _compile(work: Path, monocypher: Path, mbedtls: Path) -> bytes:
    (work / "entries.c").write_text(_ENTRIES)
    (work / "config.h").write_text("#define MBEDTLS_SHA512_C\n")
    elf, binary = work / "peers.elf", work / "peers.bin"
    includes = (work, monocypher, mbedtls / "include", mbedtls / "library")
    command = [
        *("arm-none-eabi-gcc", *_FLAGS, "-DMBEDTLS_CONFIG_FILE=<config.h>"),
        *(f"-I{folder}" for folder in includes),
        *("-nostartfiles", "-Wl,--gc-sections", "-Wl,-e,entries"),
        *(f"-Wl,--section-start=.entries={_ADDRESS:#x}", f"-Wl,-Ttext={_ADDRESS + 0x100:#x}"),
        work / "entries.c",
        monocypher / "monocypher.c",
        mbedtls / "library" / "sha512.c",
        mbedtls / "library" / "platform_util.c",
        *("-o", elf),
    ]
    run(command, why="compiling the peers in C")
    copy = ["arm-none-eabi-objcopy", "-O", "binary", "-R", ".persistent", "-R", ".noinit"]
    run([*copy, elf, binary], why="linking the peers in C")
    return binary.read_bytes()
