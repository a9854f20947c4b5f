# Runs a test on each arithmetic that this interpreter has: big integers, and native code if any.

from tidemark import ed25519, edwards25519, x25519

try:
    from tidemark import curve25519
except ImportError:
    curve25519 = None


def plain():
    """Set Ed25519 and X25519 to the reference on big integers."""
    ed25519.group = edwards25519
    x25519.ladder = None


def native():
    """Set Ed25519 and X25519 to the native engine; return whether there is one."""
    if curve25519 is None:
        return False
    ed25519.group = curve25519
    x25519.ladder = curve25519.ladder
    return True


def on_each_engine(test):
    """Return the test as one that runs once on each engine."""

    def run():
        try:
            plain()
            test()
            if native():
                test()
        finally:
            native()

    try:
        run.__name__ = test.__name__
    except AttributeError:
        # MicroPython's runner asks by the name in the module.
        pass
    return run
