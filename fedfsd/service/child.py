"""One supervised process: what it is, and its life from start to the end of all that it started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from fedfsd.service import launch

FIRST_DELAY, LAST_DELAY, GOOD_LIFE = 0.2, 30.0, 60.0  # seconds
_MAX_LINE = 4096


@dataclass(frozen=True)
class Process:
    """A process to keep running.

    ``user`` and ``network=False`` are enforced by ``launch`` or the process does not start. ``isolated``:
    nothing in the environment can put other code into it. Its output goes
    to the supervisor's log, or to the file ``output`` if it may contain what that log must not. ``ready``
    reports, within a second, whether it is working, and ``trouble`` a sentence for people while it is not.
    """

    name: str
    argv: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    network: bool = True
    isolated: bool = False
    output: Path | None = None
    ready: Callable[[], bool] | None = None
    trouble: Callable[[], str | None] | None = None


class Child:
    """A ``Process`` as it comes and goes. Call its methods from one thread, which outlives the process."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.pid: int | None = None
        self.since = 0.0
        """Seconds since the epoch."""
        self.restarts = 0
        self.exit_code: int | None = None
        self.ready = False
        self.said: str | None = None
        """The last line it said."""
        self.told: str | None = None
        """What people were told of it last."""
        self.due = 0.0
        """When to start it (monotonic seconds)."""
        self._popen: subprocess.Popen[bytes] | None = None
        self._born = 0.0
        self._delay = FIRST_DELAY
        self._rest = b""

    def start(self) -> None:
        """Start it. It ends with this process, and ``stop`` ends all that it started."""
        piped = self.process.output is None
        command = launch.command(
            self.process.argv,
            user=self.process.user,
            network=self.process.network,
            output=self.process.output,
            parent=os.getpid(),
            isolated=self.process.isolated,
        )
        around = launch.harmless(os.environ) if self.process.isolated else os.environ
        self._popen = subprocess.Popen(
            command,
            env={"OMP_NUM_THREADS": "1", **around, **self.process.env},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if piped else subprocess.DEVNULL,
            stderr=subprocess.STDOUT if piped else subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches the supervisor alone
        )
        if self._popen.stdout:
            os.set_blocking(self._popen.stdout.fileno(), False)
        self.pid, self.ready, self._rest = self._popen.pid, False, b""
        self.since, self._born = time.time(), time.monotonic()

    @property
    def pipe(self) -> int | None:
        """What its lines come from."""
        return self._popen.stdout.fileno() if self._popen and self._popen.stdout else None

    def lines(self) -> list[str]:
        """The complete lines of output since the last call."""
        if self.pipe is None:
            return []
        try:
            chunk = os.read(self.pipe, 65536)
        except BlockingIOError:
            return []
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        if self._rest and (not chunk or len(self._rest) > _MAX_LINE):
            whole, self._rest = [*whole, self._rest], b""
        found = [line[:_MAX_LINE].decode(errors="replace").rstrip() for line in whole]
        found = [line for line in found if line]
        self.said = found[-1] if found else self.said
        return found

    def ended(self) -> bool:
        """Whether it has ended just now. Then nothing it started is left, and ``due`` says when to go on."""
        if not self._popen or not _is_over(self._popen.pid):
            return False
        _kill(self._popen.pid, signal.SIGKILL, group=True)  # before its number is free for another process
        self.exit_code = self._popen.wait()
        return True

    def bury(self) -> None:
        """Close what is left of it and set ``due``, later each time unless it lived long."""
        if self._popen and self._popen.stdout:
            self._popen.stdout.close()
        now = time.monotonic()
        if now - self._born >= GOOD_LIFE:
            self._delay = FIRST_DELAY
        self.due, self._delay = now + self._delay, min(2 * self._delay, LAST_DELAY)
        self._popen, self.pid, self.ready = None, None, False
        self.restarts += 1

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal; SIGKILL also to all that it started."""
        if self._popen:
            _kill(self._popen.pid, number, group=number == signal.SIGKILL)


def python(module: str, *words: str, isolated: bool = False) -> list[str]:
    """The command line of one of our modules; ``isolated``: as installed, whatever the environment says."""
    return [sys.executable, "-I" if isolated else "-P", "-m", module, *words]


def _is_over(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _kill(pid: int, number: signal.Signals, *, group: bool) -> None:
    with suppress(ProcessLookupError):
        (os.killpg if group else os.kill)(pid, number)
