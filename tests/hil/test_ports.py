"""Ports of the bench: what one process is given stays its own, in use or not."""

from __future__ import annotations

import os
import subprocess
import sys

from tidemark_host.hil.waiting import free_port

EACH = 250  # more than a block
ASK = f"""
from tidemark_host.hil.waiting import free_port
print(*(free_port() for _ in range({EACH})), flush=True)
input()
"""


def test_processes_that_ask_at_once_are_never_given_the_same_port() -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ASK], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(3)
    ]
    ports: list[str] = []
    try:
        for process in processes:
            assert process.stdout
            ports += process.stdout.readline().split()
    finally:
        for process in processes:
            process.communicate("\n", timeout=60)
    assert len(set(ports)) == len(ports) == 3 * EACH


def test_process_that_was_forked_shares_no_ports() -> None:
    free_port()
    ours, theirs = os.pipe()
    ends, end = os.pipe()
    child = os.fork()
    if not child:
        os.write(theirs, str(free_port()).encode())
        os.close(end)
        os.read(ends, 1)  # until the parent has asked: what ends gives its ports back
        os._exit(0)
    told = os.read(ours, 16)
    given = {free_port() for _ in range(EACH)}
    os.close(end)
    assert os.waitpid(child, 0)[1] == 0
    assert int(told) not in given
    for each in (ours, theirs, ends):
        os.close(each)
