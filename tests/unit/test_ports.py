"""Ports for servers that listen later: each goes to one process only."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys

import pytest

from tidemark_host import ports

_OTHER = """
import random, sys
from tidemark_host.ports import free_port
random.seed(7)
print(*(free_port() for _ in range(20)), flush=True)
sys.stdin.read()
"""


def draw(count: int) -> list[int]:
    random.seed(7)
    return [ports.free_port() for _ in range(count)]


def test_port_is_given_to_one_process_while_it_lives_though_nobody_listens_there() -> None:
    other = subprocess.Popen(
        [sys.executable, "-c", _OTHER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout
    with other:
        theirs = set(map(int, other.stdout.readline().split()))
        # The same chance has us try the same ones.
        assert not theirs & set(draw(20))
    assert len(theirs) == 20
    # Its end gives them back, and none is given twice here.
    ours = draw(20)
    assert theirs & set(ours)
    assert len(set(draw(20)) | set(ours)) == 40


def test_port_that_somebody_listens_on_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server((ports.HOST, 0)) as server:
        taken = server.getsockname()[1]
        monkeypatch.setattr(ports, "_PORTS", [taken])
        monkeypatch.setattr(ports, "_TRIES", 1)
        with pytest.raises(OSError, match="no free port"):
            ports.free_port()


def test_process_that_was_forked_shares_no_ports() -> None:
    ports.free_port()
    ours, theirs = os.pipe()
    ends, end = os.pipe()
    child = os.fork()
    if not child:
        os.write(theirs, str(ports.free_port()).encode())
        os.close(end)
        os.read(ends, 1)  # until the parent has asked: what ends gives its ports back
        os._exit(0)
    told = int(os.read(ours, 16))
    given = {ports.free_port() for _ in range(200)}
    os.close(end)
    assert os.waitpid(child, 0)[1] == 0
    assert told not in given
    for each in (ours, theirs, ends):
        os.close(each)
