"""One region's desk: the round that is outstanding, durable from the moment it is put here.

A task is *open* until the region answers it; then *received* or *failed* until SuperLink has the reply;
then it is gone. Each step is on the disk before it is reported, so that after a crash the same task is
handed out, or the same reply forwarded, again. What a region uploads grows in one file, bounded by the offer.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, TypeAdapter

from fedfsd.errors import FedfsdError, NotReadyError, RefusedError
from fedfsd.ledger import strict
from fedfsd.ledger.disk import sync_folder, unwritable, write_whole
from fedfsd.ledger.entry import Hex32, Integer
from fedfsd.ledger.strict import Document

TASK = "task.json"
PART = ".part"
MAX_TASK = 2**24
T = TypeVar("T")


class DeskTask(Document):
    """A round of a plan for one region; ``envelope`` is what its reply needs (hex)."""

    plan: Hex32
    round: Integer
    arrays: Hex32
    size: Integer
    envelope: Annotated[str, Field(pattern=r"^([0-9a-f]{2})*$")]
    stage: Literal["open", "received", "failed"] = "open"
    entry: Hex32 | None = None
    sha256: Hex32 | None = None
    """Of the update that was received."""
    code: str | None = None
    """Why there is none."""


_ADAPTER = TypeAdapter(DeskTask)


class Desk:
    """The desk of one region in ``folder``; threads share it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._bell = threading.Condition()
        self._hidden = False
        path = folder / TASK
        self._task = None
        if path.exists():
            try:
                self._task = strict.read(_ADAPTER, path.read_bytes(), place=TASK, limit=MAX_TASK)
            except FedfsdError as error:
                raise NotReadyError(
                    str(path), got=error.got, expected="an unmodified task file", hint=f"remove {path}"
                ) from None

    @property
    def task(self) -> DeskTask | None:
        """The current task, whatever its stage."""
        return self._task

    @property
    def open(self) -> DeskTask | None:
        """The task that the region has to do."""
        task = self._task
        return task if task is not None and task.stage == "open" and not self._hidden else None

    def put(self, task: DeskTask, *, hidden: bool = False) -> None:
        """Lay a task down, in place of the one there; ``hidden`` until ``reveal``.

        Raises:
            NotReadyError: the disk is full.
        """
        with self._bell:
            self._hidden = hidden
            self._write(task)

    def reveal(self) -> None:
        """Show what was put hidden."""
        with self._bell:
            self._hidden = False
            self._bell.notify_all()

    def receive(self, task: DeskTask, *, entry: str, sha256: str) -> None:
        """The task's update is whole and judged. RefusedError where the task is no longer open."""
        with self._bell:
            self._demand(task)
            os.replace(self._part(sha256), self._folder / sha256)
            self._write(task.model_copy(update={"stage": "received", "entry": entry, "sha256": sha256}))

    def fail(self, task: DeskTask, code: str) -> None:
        """There will be no update. RefusedError where the task is no longer open."""
        with self._bell:
            self._demand(task)
            self._write(task.model_copy(update={"stage": "failed", "code": code}))

    def clear(self, task: DeskTask) -> None:
        """The task has ended: SuperLink has its reply, or no longer wants one."""
        with self._bell:
            if self._task == task:
                (self._folder / TASK).unlink(missing_ok=True)
                sync_folder(self._folder)
                self._task = None
                self._sweep("")
                self._bell.notify_all()

    def update(self, task: DeskTask) -> Path:
        """The file of a received task's update."""
        return self._folder / str(task.sha256)

    # What the region uploads.

    def begin(self, sha256: str) -> int:
        """How many bytes of that content are here; other content is forgotten."""
        path = self._part(sha256)
        with self._bell:
            self._sweep(path.name)
        return path.stat().st_size if path.exists() else 0

    def append(self, sha256: str, offset: int, content: bytes, *, size: int) -> int:
        """Add bytes to the content of that hash; how many are here now.

        Raises:
            RefusedError: not the next bytes, or more than the ``size`` offered.
            NotReadyError: the disk is full.
        """
        path = self._part(sha256)
        try:
            with path.open("ab") as file:
                if file.tell() != offset or offset + len(content) > size:
                    raise RefusedError(
                        "chunk", got="other bytes than the next ones", expected="the offset last reported"
                    )
                file.write(content)
        except OSError as error:
            raise unwritable(path, error) from None
        return offset + len(content)

    def whole(self, sha256: str) -> Path:
        """The uploaded content, on the disk for good."""
        path = self._part(sha256)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            raise unwritable(path, error) from None
        finally:
            os.close(descriptor)
        return path

    def discard(self, sha256: str) -> None:
        """Forget content that was not what it should be."""
        self._part(sha256).unlink(missing_ok=True)

    # Waiting for a change.

    def ring(self) -> None:
        """Wake all waiting threads."""
        with self._bell:
            self._bell.notify_all()

    def wait(self, look: Callable[[], T | None], seconds: float) -> T | None:
        """What ``look`` finds as soon as it finds something, or None after ``seconds``."""
        with self._bell:
            return self._bell.wait_for(look, seconds)

    def _demand(self, task: DeskTask) -> None:
        if self._task != task or task.stage != "open":
            raise RefusedError("task", got="a round that is over", expected="the outstanding round")

    def _write(self, task: DeskTask) -> None:
        write_whole(self._folder / TASK, strict.encode(task))
        self._task = task
        self._bell.notify_all()

    def _part(self, sha256: str) -> Path:
        return self._folder / (sha256 + PART)

    def _sweep(self, kept: str) -> None:
        """Remove uploads but the one called ``kept`` and what is received."""
        received = self._task.sha256 if self._task else None
        for path in self._folder.iterdir():
            if path.name not in (TASK, kept, received):
                path.unlink(missing_ok=True)
