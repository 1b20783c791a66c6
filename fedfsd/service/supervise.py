"""Keep processes running: started, restarted with back-off, their lines logged, all ended together.

A supervisor that is killed takes its processes with it; their work in progress is durable by design.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedfsd.service import launch, lock
from fedfsd.service.child import Child, Process
from fedfsd.service.owner import give

STATE, LOCK = "run/up.json", "run/up.lock"
"""In a folder: how its processes stand, and what keeps a second supervisor away."""
GRACE = 5.0
"""Seconds between asking a process to end and killing it."""
_TICK = 0.1
_TROUBLE = 1.0


class Supervisor:
    """Runs ``processes`` until ``stop`` or, in the main thread, SIGTERM, SIGINT or SIGHUP.

    ``state`` is a file with their state (see ``read``); ``on_ready`` is called with the seconds since
    the start when all of them are ready for the first time; ``on_trouble`` with a sentence for people, each
    time there is another one.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        *,
        log: logging.Logger,
        state: Path | None = None,
        grace: float = GRACE,
        on_ready: Callable[[float], None] | None = None,
        on_trouble: Callable[[str], None] | None = None,
    ) -> None:
        self._children = [Child(process) for process in processes]
        self._log, self._state, self._grace = log, state, grace
        self._on_ready, self._on_trouble = on_ready, on_trouble
        self._asked = 0.0
        self._began = time.monotonic()
        self._since = time.time()
        self._stopping = threading.Event()
        self._was_ready = False
        self._written = ""

    def run(self) -> None:
        """Keep them running; returns when all have ended, after ``stop``."""
        with self._signals():
            try:
                while not self._stopping.is_set():
                    self._start_due()
                    self._listen(_TICK)
                    self._bury_ended()
                    self._ask_ready()
                    self._ask_trouble()
                    self._write()
            finally:
                self._end_all()
                self._write()

    def stop(self) -> None:
        """Have ``run`` end them all and return; from any thread."""
        self._stopping.set()

    def _start_due(self) -> None:
        now = time.monotonic()
        for child in self._children:
            if child.pid is None and child.due <= now:
                child.start()
                self._log.info("started", extra={"unit": child.process.name, "pid": child.pid})

    def _listen(self, seconds: float) -> None:
        """Log what they say; a pipe that closes wakes us at once."""
        pipes = {child.pipe: child for child in self._children if child.pipe is not None}
        poll = select.poll()
        for pipe in pipes:
            poll.register(pipe, select.POLLIN)
        heard = poll.poll(1000 * seconds)
        for pipe, _ in heard:
            self._say(pipes[pipe], pipes[pipe].lines())
        if heard and all(event & select.POLLHUP for _, event in heard):
            time.sleep(_TICK / 10)  # a closed pipe stays readable until its process is buried

    def _bury_ended(self) -> None:
        for child in self._children:
            if child.pid is not None and child.ended():
                self._bury(child)
                seconds = round(max(child.due - time.monotonic(), 0.0), 1)
                what = {"unit": child.process.name, "code": child.exit_code, "line": child.said}
                # Once for people, who read it again only where it ends for another reason.
                level = logging.WARNING if self._is_new(child, child.said) else logging.DEBUG
                self._log.log(level, "ended", extra=what | {"seconds": seconds})

    def _bury(self, child: Child) -> None:
        while lines := child.lines():
            self._say(child, lines)
        child.bury()

    def _say(self, child: Child, lines: list[str]) -> None:
        for line in lines:
            self._log.debug("said", extra={"unit": child.process.name, "line": line})

    def _ask_ready(self) -> None:
        for child in self._children:
            if child.pid is not None and not child.ready:
                child.ready = child.process.ready is None or child.process.ready()
        if not self._was_ready and all(child.ready for child in self._children):
            self._was_ready = True
            seconds = time.monotonic() - self._began
            self._log.info("ready", extra={"seconds": round(seconds, 2)})
            if self._on_ready:
                self._on_ready(seconds)

    def _ask_trouble(self) -> None:
        """Every few seconds: what keeps one that runs from working."""
        if self._on_trouble is None or time.monotonic() < self._asked + _TROUBLE:
            return
        self._asked = time.monotonic()
        for child in self._children:
            if child.pid is not None and child.process.trouble is not None:
                sentence = child.process.trouble()
                if sentence is None:
                    child.told = None
                elif self._is_new(child, sentence):
                    self._on_trouble(sentence)

    @staticmethod
    def _is_new(child: Child, sentence: str | None) -> bool:
        if sentence is not None and sentence == child.told:
            return False
        child.told = sentence
        return True

    def _end_all(self) -> None:
        """Ask, wait, kill."""
        last = time.monotonic() + self._grace
        number = signal.SIGTERM
        self._log.info("stopping")
        for child in self._children:
            child.signal(number)
        while alive := [child for child in self._children if child.pid is not None]:
            if number == signal.SIGTERM and time.monotonic() > last:
                number = signal.SIGKILL
                for child in alive:
                    self._log.warning("killed", extra={"unit": child.process.name})
                    child.signal(number)
            self._listen(_TICK / 5)
            for child in alive:
                if child.ended():
                    self._bury(child)
        self._log.info("stopped")

    def _write(self) -> None:
        """The state file, where something has changed."""
        document = {
            "pid": os.getpid(),
            "since": _time(self._since),
            "processes": [*map(_row, self._children)],
        }
        text = json.dumps(document, indent=1)
        if self._state is None or text == self._written:
            return
        new = self._state.with_suffix(".new")
        with suppress(OSError):  # a full disk: tried again at the next tick
            new.unlink(missing_ok=True)
            # Root may write here in a folder that another user owns: never through a link of theirs.
            with new.open("x", encoding="utf-8") as file:
                give(file.fileno(), new)
                file.write(text)
            new.replace(self._state)
            self._written = text

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM, SIGINT and a closed terminal stop us, where signals can be had: in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        kinds = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
        before = {kind: signal.signal(kind, lambda *_: self.stop()) for kind in kinds}
        try:
            yield
        finally:
            for kind, handler in before.items():
                signal.signal(kind, handler)


def read(state: Path) -> dict[str, Any] | None:
    """The content of a state file; None if there is none."""
    try:
        return dict(json.loads(state.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return None


def standing(folder: Path) -> dict[str, Any] | None:
    """The state of the supervisor of ``folder``; None if none is running."""
    return read(folder / STATE) if lock.held(folder / LOCK) else None


def separated(process: Process) -> tuple[Process, list[str]]:
    """``process`` as far as this machine can separate it, and what it could not enforce, in words."""
    missing = []
    if process.user is not None and (why := launch.obstacle(user=process.user)):
        missing.append(f"{process.name} runs as the user who started it, not as {process.user} ({why})")
        process = replace(process, user=None)
    if not process.network and (why := launch.obstacle(user=process.user, network=False)):
        missing.append(f"{process.name} can reach the network ({why})")
        process = replace(process, network=True)
    return process, missing


def _row(child: Child) -> dict[str, Any]:
    return {
        "name": child.process.name,
        "pid": child.pid,
        "since": _time(child.since) if child.pid else None,
        "ready": child.ready,
        "restarts": child.restarts,
        "exit_code": child.exit_code,
        "said": child.said,
        "user": child.process.user,
        "network": child.process.network,
    }


def _time(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(timespec="seconds")
