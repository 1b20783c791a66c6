"""The receipts of every plan: one line a release, on the disk before the region gets it."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from fedfsd.audit.receipt import ENDED, Receipt, ReceivedIncident, countersign
from fedfsd.ledger import strict
from fedfsd.ledger.disk import sync_folder, unwritable, write_whole
from fedfsd.ledger.entry import SignatureHex
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.note import MAX_NOTE

_MAX_LINE = 2 * MAX_NOTE


class ReceiptLine(Receipt):
    """A receipt with its signature and the head, cosigned, that was offered with the release."""

    signature: SignatureHex
    cosigned: Annotated[str, Field(max_length=MAX_NOTE)]

    @property
    def receipt(self) -> Receipt:
        """What is signed."""
        return Receipt(**{name: getattr(self, name) for name in Receipt.model_fields})


_ADAPTER = TypeAdapter(ReceiptLine)
_INCIDENT = TypeAdapter(ReceivedIncident)


class ReceiptBook:
    """The files ``folder``/<plan hash>.jsonl; only this process writes them."""

    def __init__(self, folder: Path, signer: SigningKey) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._signer = folder, signer
        self._lock = threading.Lock()
        self._plans: dict[str, dict[tuple[str, int], ReceiptLine]] = {}

    def find(self, region: str, plan: str, round: int) -> ReceiptLine | None:
        """The receipt of that round, if there is one."""
        with self._lock:
            return self._plan(plan).get((region, round))

    def sign(self, receipt: Receipt, cosigned: str) -> ReceiptLine:
        """Countersign and keep a receipt; of a release that has one already, that one.

        Raises:
            NotReadyError: the disk is full.
        """
        with self._lock:
            known = self._plan(receipt.plan)
            case = (receipt.region, receipt.round)
            if case not in known:
                signature = countersign(receipt, self._signer).hex()
                line = ReceiptLine(**receipt.model_dump(), signature=signature, cosigned=cosigned)
                self._append(self._path(receipt.plan), strict.encode(line) + b"\n")
                known[case] = line
                self._plans[receipt.plan] = known
            return known[case]

    def end(self, incident: ReceivedIncident) -> None:
        """Put on record what ended a region's part in a plan; the first of a region counts.

        Raises:
            NotReadyError: the disk is full.
        """
        path = self._ended(incident.region, incident.plan)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            write_whole(path, strict.encode(incident))

    def ended(self, region: str, plan: str) -> str | None:
        """What was found when the region's part in the plan ended; None where it goes on."""
        path = self._ended(region, plan)
        if not path.exists():
            return None
        return strict.read(_INCIDENT, path.read_bytes(), place=path.name, limit=_MAX_LINE).finding

    def _ended(self, region: str, plan: str) -> Path:
        return self._folder.parent / ENDED / plan / f"{region}.json"

    def _plan(self, plan: str) -> dict[tuple[str, int], ReceiptLine]:
        known = self._plans.get(plan)
        if known is None:
            known = {(one.region, one.round): one for one in self._read(self._path(plan))}
            if known:  # a region may ask for any hash: one without receipts is not worth remembering
                self._plans[plan] = known
        return known

    def _read(self, path: Path) -> list[ReceiptLine]:
        """The whole lines of a file; what a crash left half written at its end is cut off."""
        content = path.read_bytes() if path.exists() else b""
        lines, found = content.split(b"\n"), []
        if lines.pop():
            os.truncate(path, content.rfind(b"\n") + 1)
        for line in lines:
            found.append(strict.read(_ADAPTER, line, place=path.name, limit=_MAX_LINE))
        return found

    def _append(self, path: Path, line: bytes) -> None:
        fresh = not path.exists()
        size = 0 if fresh else path.stat().st_size
        try:
            with path.open("ab") as file:
                file.write(line)
                file.flush()
                os.fsync(file.fileno())
            if fresh:
                sync_folder(self._folder)
        except OSError as error:
            if path.exists():
                os.truncate(path, size)  # a line half written must not have another one after it
            raise unwritable(path, error) from None

    def _path(self, plan: str) -> Path:
        return self._folder / f"{plan}.jsonl"


def read(path: Path) -> list[ReceiptLine]:
    """The receipts in one file, as a run folder wants them. EvidenceError for anything else."""
    lines = path.read_bytes().splitlines() if path.exists() else []
    return [strict.read(_ADAPTER, line, place=path.name, limit=_MAX_LINE) for line in lines]
