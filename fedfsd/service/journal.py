"""The log of one process: JSON lines in its folder, and text for people where stderr is a terminal.

An event is a word; what belongs to it comes in a fixed set of fields, passed as ``extra``:

    log = journal("gate", folder)
    log.info("released", extra={"plan": plan.hash, "round": 3, "bytes": 19552})

An exception is logged by its kind alone: its text may hold a path or a value of the data. Fields that are not
in ``FIELDS`` are left out, for the same reason.

Not structlog: the private file, the list of fields, their bounds, an exception's kind and the escapes would
stay ours; it would replace two short formatters by as many lines of processors, and takes 45 ms to import.
"""

from __future__ import annotations

import datetime
import json
import logging
import os
import sys
from logging.handlers import RotatingFileHandler
from pathlib import Path

from fedfsd.plain_text import plain
from fedfsd.service.owner import give

FIELDS = (
    "code",
    "region",
    "plan",
    "round",
    "entry",
    "bytes",
    "count",
    "seconds",
    "days",
    "unit",
    "pid",
    "port",
    "peer",
    "host",
    "version",
    "state",
    "kind",
    "fingerprint",
    "line",
    "error",
)
"""All that a line may carry besides time, level, log and event. ``unit`` is a supervised process."""
MAX_BYTES = 4 * 2**20
KEPT = 4
_MAX_TEXT = 300


def journal(name: str, folder: Path, *, echo: bool | None = None) -> logging.Logger:
    """The logger that writes to ``folder``/log/``name``.jsonl (0600, rotated at 4 MiB, four older ones kept).

    What the library itself says under ``fedfsd`` goes there too; of several journals in one process to the
    newest. The same name and folder give the same logger. ``echo``: from info on, stderr has it as text too;
    left out: where it is a terminal.
    """
    path = (folder / "log" / f"{name}.jsonl").absolute()
    # Outside the hierarchy of "fedfsd", so that two regions in one process keep two journals.
    log = logging.getLogger(f"journal {str(path).replace('.', ' ')}")
    if not log.handlers:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        log.addHandler(_File(path, name))
        if sys.stderr.isatty() if echo is None else echo:
            shown = logging.StreamHandler()
            shown.setFormatter(_Text())
            shown.setLevel(logging.INFO)
            log.addHandler(shown)
        log.setLevel(logging.DEBUG)
    library = logging.getLogger("fedfsd")
    library.handlers[:] = log.handlers
    library.setLevel(logging.INFO)
    return log


class _File(RotatingFileHandler):
    """A full disk costs lines, never the process."""

    def __init__(self, path: Path, name: str) -> None:
        super().__init__(path, maxBytes=MAX_BYTES, backupCount=KEPT, encoding="utf-8", delay=True)
        self.setFormatter(_Lines(name))

    def _open(self):  # type: ignore[no-untyped-def]
        def private(name: str, flags: int) -> int:
            file = os.open(name, flags | os.O_NOFOLLOW, 0o600)
            give(file, Path(name))
            return file

        return open(self.baseFilename, self.mode, encoding=self.encoding, opener=private)

    def handleError(self, record: logging.LogRecord) -> None:
        pass


class _Lines(logging.Formatter):
    """One JSON document a record."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "log": self._name,
            "event": _bounded(record.getMessage()),
        }
        return json.dumps(line | fields(record), ensure_ascii=True)


class _Text(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        rest = (f"{key}={value}" for key, value in fields(record).items())
        text = " ".join([record.getMessage()[:_MAX_TEXT], *rest])
        return f"{_time(record):%H:%M:%S} {record.levelname.lower():7} {plain(text)}"


def fields(record: logging.LogRecord) -> dict[str, str | int | float | bool]:
    """What of ``FIELDS`` a record carries; of an exception its kind."""
    found = {key: _bounded(getattr(record, key)) for key in FIELDS if getattr(record, key, None) is not None}
    if record.exc_info and record.exc_info[0]:
        found["error"] = record.exc_info[0].__name__
    return found


def _bounded(value: object) -> str | int | float | bool:
    """Numbers as they are, everything else as short text."""
    if isinstance(value, bool | int | float):
        return value
    return str(value)[:_MAX_TEXT]


def _time(record: logging.LogRecord) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(record.created, datetime.UTC)
