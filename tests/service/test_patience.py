"""Waiting by what a process does: one that is held or works is waited for, one that only sleeps is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest

from fedfsd.service import patience
from fedfsd.service.patience import Progress, until

IDLE = 0.3
LOOKS = 20
"""Seven times as long as an idle process is waited for."""


@pytest.fixture
def child() -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts a Python that runs the given code, and ends when its standard input does."""
    made = []

    def start(code: str) -> subprocess.Popen[bytes]:
        pipe = subprocess.PIPE
        process = subprocess.Popen([sys.executable, "-c", code], stdin=pipe, stdout=pipe)
        made.append(process)
        assert process.stdout.read(1) == b"x"  # it runs
        return process

    yield start
    for process in made:
        for pid in patience._tree([process.pid]):
            os.kill(pid, signal.SIGKILL)
        process.wait()
        process.stdin.close()
        process.stdout.close()


WAITS = "import sys; sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read(1)"
COMPUTES = "import sys; sys.stdout.write('x'); sys.stdout.flush()\nwhile True: pass"
HAS_A_CHILD = (
    "import subprocess, sys\n"
    "subprocess.Popen([sys.executable, '-c', 'while True: pass'], stdin=0)\n"
    "sys.stdout.write('x'); sys.stdout.flush(); sys.stdin.read(1)"
)


def waited(process: subprocess.Popen[bytes], then: Callable[[], object]) -> bool:
    """What ``until`` says of a process that does something at last, after many looks."""
    looks, ended = [], threading.Event()

    def holds() -> bool:
        looks.append(None)
        if len(looks) == LOOKS:
            then()
            ended.set()
        return ended.is_set()

    return until(holds, seconds=IDLE, pids=lambda: [process.pid])


def test_an_idle_process_is_given_up(child):
    process = child(WAITS)
    assert not waited(process, lambda: None)
    assert not until(lambda: False, seconds=IDLE, pids=list)


def test_a_process_that_is_held_is_waited_for(child):
    process = child(WAITS)
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED)
    assert waited(process, lambda: process.send_signal(signal.SIGCONT))


@pytest.mark.parametrize("code", [COMPUTES, HAS_A_CHILD])
def test_a_process_that_computes_is_waited_for(child, code):
    assert waited(child(code), lambda: None)


def test_this_process_is_no_progress_and_an_ended_one_neither(child):
    process = child(WAITS)
    process.kill()
    process.wait()
    assert not any(Progress(lambda: [os.getpid(), process.pid, 0, -1]).seen() for _ in range(5))
