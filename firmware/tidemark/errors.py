# Errors of the base: one family per layer, each with a short stable code for wire and evidence.


class TidemarkError(Exception):
    """Base of every error that the base raises on purpose.

    `code`: stable kebab-case str, at most 24 ASCII characters, for the wire and the evidence ring.
    `text`: str for people; holds no secrets and no bytes of a peer. `str(e)` is "code: text".
    """

    def __init__(self, code, text=""):
        super().__init__(code, text)
        self.code = code
        self.text = text

    def __str__(self):
        return self.code + ": " + self.text if self.text else self.code


class FlashError(TidemarkError):
    """Flash access out of bounds, misaligned, or one that did not read back."""


class StateError(TidemarkError):
    """Counter, journal or evidence ring cannot keep its promise."""


class CodecError(TidemarkError):
    """CBOR, COSE or JSON bytes that are malformed, too large or outside our profile."""


class CryptoError(TidemarkError):
    """A MAC, signature or key that does not hold."""


class TrustError(TidemarkError):
    """Update metadata (TUF, target metadata) that is not authorised, expired or too old."""


class ImageError(TidemarkError):
    """A slot header or ROMFS image that is malformed or not the one announced."""


class SlotError(TidemarkError):
    """A slot transition that the state machine does not allow."""


class LinkError(TidemarkError):
    """The network or broker connection failed or timed out."""


class SessionError(TidemarkError):
    """Hello, welcome, sequence or acknowledgement outside the protocol's order."""


class ConfigError(TidemarkError):
    """A board description or setting that is missing, malformed or out of range."""
