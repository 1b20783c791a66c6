"""What the coordinator countersigned: one receipt for each release that reached it (FORMAT.md, 8)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import SerializerFunctionWrapHandler, TypeAdapter, model_serializer, model_validator

from fedfsd import formats
from fedfsd.ledger import key, strict
from fedfsd.ledger.entry import Finding, Hex32, Integer, Region, SignatureHex, Text, Vkey
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import SigningKey, VerificationKey
from fedfsd.ledger.strict import Document

MAX_RECEIPTS = 2**26
ENDED = "ended"
"""In a coordinator's folder: by plan and region, what ended the region's part in it."""
_PREFIX = b"fedfsd/receipts/v1\n"
_ONE_PREFIX = b"fedfsd/receipt/v1\n"
_UNSIGNED = "0" * 128


class Receipt(Document):
    """One release as it arrived; ``entry`` is the hash of its entry in the region's ledger."""

    region: Region
    plan: Hex32
    round: Integer
    entry: Hex32
    sha256: Hex32
    bytes: Integer


class ReceivedIncident(Document):
    """What the coordinator found in an update that it did not take; the region's part in the plan ended."""

    region: Region
    plan: Hex32
    round: Integer
    finding: Finding


class Receipts(Document):
    """The receipts of one run, and the plans within which they are complete. Format 2: with incidents."""

    format: Literal[1, 2] = 1
    kind: Literal["fedfsd-receipts"] = "fedfsd-receipts"
    run: Text
    coordinator: Vkey
    plans: tuple[Hex32, ...]
    receipts: tuple[Receipt, ...]
    incidents: tuple[ReceivedIncident, ...] = ()
    signature: SignatureHex = _UNSIGNED

    @model_validator(mode="after")
    def _one_format(self) -> Receipts:
        if (self.format == 2) != bool(self.incidents):
            raise ValueError("the fields of one format")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = write(self)
        return {name: value for name, value in found.items() if name != "incidents" or self.incidents}

    @property
    def signer(self) -> VerificationKey:
        """The key that the file names."""
        return key.parse(self.coordinator)

    @property
    def is_signed(self) -> bool:
        """Whether the signature is by that key."""
        return self.signer.verify(bytes.fromhex(self.signature), _message(self))


def sign(receipts: Receipts, coordinator: SigningKey) -> Receipts:
    """``receipts`` with the coordinator's signature."""
    signature = coordinator.sign(_message(receipts)).hex()
    return receipts.model_copy(update={"signature": signature})


def countersign(receipt: Receipt, coordinator: SigningKey) -> bytes:
    """The coordinator's signature (64 bytes) under one receipt: what a region gets when a release arrived."""
    return coordinator.sign(_ONE_PREFIX + strict.encode(receipt))


def is_countersigned(receipt: Receipt, signature: bytes, coordinator: VerificationKey) -> bool:
    """Whether the coordinator signed this one receipt."""
    return coordinator.verify(signature, _ONE_PREFIX + strict.encode(receipt))


def read(path: Path) -> Receipts:
    """The receipts in a file; its signature is not checked yet.

    Raises:
        FormatError: a newer release wrote it.
        EvidenceError: not one canonical receipts file, or one that is not in order.
    """
    with path.open("rb") as file:
        content = file.read(MAX_RECEIPTS + 1)
    if len(content) <= MAX_RECEIPTS:
        strict.demand_shallow(content, path.name)
        formats.demand_known("receipts", formats.peek(content), place=path.name)
    found = strict.read(_ADAPTER, content, place=path.name, limit=MAX_RECEIPTS)
    cases = [(one.region, one.plan, one.round) for one in found.receipts]
    if list(found.plans) != sorted(set(found.plans)) or cases != sorted(set(cases)):
        raise EvidenceError(path.name, got="lines out of order", expected="each once, ascending")
    ended = [(one.region, one.plan) for one in found.incidents]
    if ended != sorted(set(ended)):
        raise EvidenceError(path.name, got="lines out of order", expected="each once, ascending")
    named = {one.plan for one in found.receipts} | {one.plan for one in found.incidents}
    if not named <= set(found.plans):
        raise EvidenceError(path.name, got="a receipt of a plan it does not cover", expected="plans covered")
    return found


def _message(receipts: Receipts) -> bytes:
    return _PREFIX + strict.encode(receipts, without=("signature",))


_ADAPTER = TypeAdapter(Receipts)
