"""Reserve before training, release before sending: a plain JSON-lines record with an outbox.

A reservation names (plan, round, sha256 of the inbound arrays). Without a release it may be trained
again on the same arrays; with one, only the same bytes are sent again; other arrays for a booked
round are refused. Every line is on disk before the call returns, so a crash can over-count a
reservation but never forget one.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from fedfsd import canonical
from fedfsd.errors import BudgetError, NotReadyError

RECORD = "record.jsonl"
OUTBOX = "outbox"


@dataclass(frozen=True)
class Booked:
    """A reservation: one round of one plan on one set of inbound arrays."""

    plan_hash: str
    round: int
    arrays_sha256: str


@dataclass(frozen=True)
class Released:
    """What left: the entry's line number, and the hash and bytes of the update."""

    entry: int
    sha256: str
    content: bytes


class Record:
    """One region's record in ``folder``; several processes may open it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / OUTBOX).mkdir(parents=True, exist_ok=True)

    def reserve(self, plan_hash: str, round: int, arrays_sha256: str) -> Booked:
        """Book the round, or find it booked on the same arrays.

        Raises:
            BudgetError: the round is booked on other arrays, or a later one is released already.
        """
        booked = Booked(plan_hash, round, arrays_sha256)
        with self._open() as (file, entries):
            earlier = _find(entries, "reserve", plan_hash, round)
            newest = max(
                (e["round"] for e in entries if e["entry"] == "release" and e["plan"] == plan_hash), default=0
            )
            if round < newest:
                raise BudgetError(
                    f"round {round}",
                    got=f"a round before {newest}, which is released",
                    expected="rounds that go forward",
                    hint="resume from the newest checkpoint",
                )
            if earlier is None:
                _append(
                    file, {"entry": "reserve", "plan": plan_hash, "round": round, "arrays": arrays_sha256}
                )
            elif entries[earlier]["arrays"] != arrays_sha256:
                raise BudgetError(
                    f"round {round}",
                    got="other arrays than the ones it was booked on",
                    expected="the same arrays",
                    hint="start a new run, or resume from its checkpoint",
                )
        return booked

    def released(self, booked: Booked) -> Released | None:
        """What this reservation released already, to be sent again as it is."""
        with self._open() as (_, entries):
            index = _find(entries, "release", booked.plan_hash, booked.round)
        if index is None:
            return None
        path = self._outbox(booked)
        content = path.read_bytes() if path.exists() else b""
        if canonical.sha256(content) != entries[index]["sha256"]:
            raise NotReadyError(
                f"{OUTBOX}/{path.name}",
                got="not the bytes that were released",
                expected="the released bytes",
                hint="this round cannot be sent again: start a new run",
            )
        return Released(index, entries[index]["sha256"], content)

    def release(self, content: bytes, booked: Booked) -> Released:
        """Write ``content`` to the outbox, then the entry; only then may it be sent."""
        sha256 = canonical.sha256(content)
        with self._open() as (file, entries):
            if _find(entries, "reserve", booked.plan_hash, booked.round) is None:
                raise BudgetError(
                    f"round {booked.round}",
                    got="a release without a reservation",
                    expected="a reservation before it",
                )
            if _find(entries, "release", booked.plan_hash, booked.round) is not None:
                raise BudgetError(
                    f"round {booked.round}", got="a second release", expected="one release a round"
                )
            path = self._outbox(booked)
            with path.open("wb") as out:
                out.write(content)
                _to_disk(out)
            _append(
                file,
                {
                    "entry": "release",
                    "plan": booked.plan_hash,
                    "round": booked.round,
                    "sha256": sha256,
                    "bytes": len(content),
                },
            )
            # Only the newest release can still be asked for: the coordinator has stored the others.
            for old in path.parent.glob(f"{booked.plan_hash}.*"):
                if old != path:
                    old.unlink()
        return Released(len(entries), sha256, content)

    def _outbox(self, booked: Booked) -> Path:
        return self.folder / OUTBOX / f"{booked.plan_hash}.{booked.round}"

    @contextmanager
    def _open(self) -> Iterator[tuple[IO[bytes], list[dict[str, Any]]]]:
        """The file, locked, with its entries; an unfinished last line was never acknowledged: cut off."""
        with (self.folder / RECORD).open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            lines = file.read()
            whole = lines.rfind(b"\n") + 1
            if whole < len(lines):
                file.truncate(whole)
            yield file, [json.loads(line) for line in lines[:whole].splitlines()]


def _find(entries: list[dict[str, Any]], kind: str, plan_hash: str, round: int) -> int | None:
    for index in range(len(entries) - 1, -1, -1):
        entry = entries[index]
        if entry["entry"] == kind and entry["plan"] == plan_hash and entry["round"] == round:
            return index
    return None


def _append(file: IO[bytes], entry: dict[str, Any]) -> None:
    file.write(canonical.encode(entry) + b"\n")
    _to_disk(file)


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())
