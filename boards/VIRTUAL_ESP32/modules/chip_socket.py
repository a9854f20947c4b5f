# `socket` of the host, reached by the radio's way: `chip_network`.

import socket as _host
from socket import *  # noqa: F403

import chip_network


def getaddrinfo(host, port, *more):
    """As the host's, for addresses."""
    return _host.getaddrinfo(chip_network.route(host), port, *more)
