# The only folder of the base that knows a platform; docs/architecture.md "Port" is the contract.

import sys


def select():
    """Return the module of this platform. Raises ConfigError: `port` where there is none."""
    if sys.platform == "rp2":
        from tidemark.port import rp2

        return rp2
    if sys.platform == "esp32":
        from tidemark.port import esp32

        return esp32
    if sys.platform == "linux":
        from tidemark.port import unix

        return unix
    from tidemark.errors import ConfigError

    raise ConfigError("port", "no port for this platform")
