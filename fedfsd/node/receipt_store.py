"""What the coordinator countersigned, as the region keeps it: receipts/PLAN.jsonl, heads/coordinator.note."""

from __future__ import annotations

import os
from pathlib import Path

from pydantic import TypeAdapter

from fedfsd.audit.receipt import Receipt, is_countersigned
from fedfsd.border import border_pb2 as pb
from fedfsd.border import wire
from fedfsd.errors import RefusedError
from fedfsd.ledger import note, strict
from fedfsd.ledger.disk import sync_folder, unwritable, write_whole
from fedfsd.ledger.entry import SignatureHex
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import COSIGNER, VerificationKey
from fedfsd.ledger.ledger import Ledger
from fedfsd.ledger.note import Checkpoint, Note

MAX_LINE = 2**18
HEAD = "coordinator.note"


class KeptReceipt(Receipt):
    """One line of receipts/PLAN.jsonl."""

    signature: SignatureHex
    cosigned: str
    """The region's head that came back with the coordinator's cosignature."""


class ReceiptError(RefusedError):
    """A receipt that is not for what was sent, or not by the coordinator."""


class ReceiptStore:
    """The receipts in a region's folder; ``hub`` is the coordinator's key, from the invitation."""

    def __init__(self, folder: Path, hub: VerificationKey) -> None:
        self._folder, self._hub = folder, hub
        self.cosigner = VerificationKey(hub.name, hub.public, COSIGNER)
        self._known: set[tuple[str, int]] = set()
        for path in (folder / "receipts").glob("*.jsonl"):
            for line in _whole_lines(path):
                one = strict.read(_ADAPTER, line, place=path.name, limit=MAX_LINE)
                self._known.add((one.plan, one.round))

    def has(self, plan: str, round: int) -> bool:
        """Whether the receipt of that round is kept."""
        return (plan, round) in self._known

    def keep(self, sent: Receipt, got: pb.Receipt, ledger: Ledger) -> str:
        """Check the receipt for ``sent`` and keep it on the disk; the cosigned head in it.

        Raises:
            ReceiptError: of another release, or not signed by the coordinator.
            EvidenceError: a head that is not this ledger's, or not cosigned.
            NotReadyError: a full disk.
        """
        if wire.received(got, sent.region) != sent:
            raise ReceiptError(
                "receipt", got="a receipt for something else", expected="a receipt for what was sent"
            )
        if not is_countersigned(sent, got.signature, self._hub):
            raise ReceiptError("receipt", got="no valid signature", expected=f"one by {self._hub.name}")
        cosigned = self.keep_head(got.cosigned, ledger)
        if not self.has(sent.plan, sent.round):
            line = KeptReceipt(**sent.model_dump(), signature=got.signature.hex(), cosigned=cosigned)
            self._append(sent.plan, strict.encode(line))
            self._known.add((sent.plan, sent.round))
        return cosigned

    def keep_head(self, content: bytes, ledger: Ledger) -> str:
        """Check that the coordinator cosigned a head of this ledger; the newest one is kept in heads/.

        Raises:
            EvidenceError: another ledger's, or no cosignature by the coordinator.
            NotReadyError: a full disk.
        """
        text = wire.text(content, "cosigned")
        head, parsed = ledger.state.open_checkpoint(text)
        if not note.cosigners(parsed, [self.cosigner]):
            raise EvidenceError("checkpoint", got="no cosignature", expected=f"one by {self._hub.name}")
        path = self._folder / "heads" / HEAD
        if not (path.exists() and _covers(path.read_bytes(), head)):
            write_whole(path, text.encode())
        return text

    def _append(self, plan: str, line: bytes) -> None:
        """One more line, on the disk."""
        path = self._folder / "receipts" / f"{plan}.jsonl"
        is_new = not path.exists()
        try:
            with path.open("ab") as file:
                file.write(line + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if is_new:
                sync_folder(path.parent)
        except OSError as error:
            _whole_lines(path)
            raise unwritable(path, error) from None


def _whole_lines(path: Path) -> list[bytes]:
    """The lines of a file; what a crash or a full disk left of a last one is cut off."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        os.truncate(path, whole)
    return content[:whole].splitlines()


def _covers(kept: bytes, head: Checkpoint) -> bool:
    """Whether the kept head is of the same epoch and not older."""
    known = Checkpoint.parse(Note.parse(kept).text)
    return known.origin == head.origin and known.size >= head.size


_ADAPTER = TypeAdapter(KeptReceipt)
