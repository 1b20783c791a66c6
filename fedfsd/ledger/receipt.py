"""Receipts and the trust file: what the coordinator countersigned, and whose keys are whose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import Field, TypeAdapter

from fedfsd.ledger import key, strict
from fedfsd.ledger.entry import UNSIGNED, Hex32, Integer, Region, SignatureHex, Text, Vkey
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import SigningKey, VerificationKey
from fedfsd.ledger.strict import Document

MAX_RECEIPTS = 2**27  # bytes
MAX_TRUST = 2**20
_PREFIX = b"fedfsd/receipts/v1\n"
Role = Literal["node", "officer", "coordinator", "witness"]


class Receipt(Document):
    """One update that the coordinator received; ``entry`` is the hash of its release entry."""

    region: Region
    plan: Hex32
    round: Integer
    entry: Hex32
    sha256: Hex32
    bytes: Integer

    @property
    def place(self) -> tuple[str, str, int]:
        """What receipts are ordered by."""
        return self.region, self.plan, self.round


class Receipts(Document):
    """Everything that one run received under ``plans``, signed by the coordinator."""

    format: Literal[1] = 1
    kind: Literal["fedfsd-receipts"] = "fedfsd-receipts"
    run: Text
    coordinator: Vkey
    plans: tuple[Hex32, ...]
    receipts: tuple[Receipt, ...]
    signature: SignatureHex = Field(default=UNSIGNED)


@dataclass(frozen=True)
class Trust:
    """Public keys by role, obtained by another way than the evidence."""

    keys: tuple[tuple[Role, VerificationKey], ...]

    def of(self, role: Role) -> tuple[VerificationKey, ...]:
        """The keys of one role."""
        return tuple(found for name, found in self.keys if name == role)

    def __str__(self) -> str:
        return "".join(f"{role} {found}\n" for role, found in self.keys)


def write(run: str, plans: Iterable[str], receipts: Iterable[Receipt], coordinator: SigningKey) -> bytes:
    """The signed file of what the coordinator received. ConfigError for a run that cannot be named so."""
    with strict.typed("receipts"):
        made = Receipts(
            run=run,
            coordinator=str(coordinator.verification),
            plans=tuple(sorted(set(plans))),
            receipts=tuple(sorted(receipts, key=lambda one: one.place)),
        )
    signature = coordinator.sign(_signed(made)).hex()
    return strict.encode(made.model_copy(update={"signature": signature}))


def read(content: bytes) -> Receipts:
    """The receipts in a file, signed by the coordinator that they name; whether to trust it is not said.

    Raises:
        EvidenceError: changed, unsigned, not in order, or of plans that the file does not cover.
    """
    found = strict.read(_RECEIPTS, content, place="receipts", limit=MAX_RECEIPTS)
    by = key.parse(found.coordinator)
    _demand(by.verify(bytes.fromhex(found.signature), _signed(found)), "a bad signature")
    places = [one.place for one in found.receipts]
    _demand(places == sorted(set(places)), "receipts twice or out of order")
    _demand(list(found.plans) == sorted(set(found.plans)), "plans twice or out of order")
    _demand({one.plan for one in found.receipts} <= set(found.plans), "a plan that is not covered")
    return found


def read_trust(content: bytes) -> Trust:
    """The keys of a trust file. EvidenceError names the first line that is none."""
    try:
        lines = content.decode().split("\n") if len(content) <= MAX_TRUST else ["?"]
    except UnicodeDecodeError:
        lines = ["?"]
    keys: list[tuple[Role, VerificationKey]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        name, _, text = line.strip().partition(" ")
        role = next((role for role in get_args(Role) if role == name), None)
        if role is None:
            raise EvidenceError(f"trust file, line {number}", got="another line", expected="<role> <key>")
        keys.append((role, key.parse(text, kind=key.COSIGNER if role == "witness" else key.SIGNER)))
    return Trust(tuple(keys))


_RECEIPTS = TypeAdapter(Receipts)


def _signed(receipts: Receipts) -> bytes:
    return _PREFIX + strict.encode(receipts, without=("signature",))


def _demand(holds: bool, got: str) -> None:
    if not holds:
        raise EvidenceError("receipts", got=got, expected="the file that the coordinator wrote")
