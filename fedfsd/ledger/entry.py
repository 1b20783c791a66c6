"""The ledger's entries, each a typed document; FORMAT.md section 4 says what they mean.

Whether an entry may stand where it stands is for ``state``.
"""

from __future__ import annotations

import datetime
import unicodedata
from collections.abc import Collection, Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

from pydantic import (
    AfterValidator,
    Field,
    JsonValue,
    SerializerFunctionWrapHandler,
    TypeAdapter,
    model_serializer,
    model_validator,
)

from fedfsd import canonical, formats
from fedfsd.ledger import key, strict
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import SigningKey, VerificationKey
from fedfsd.ledger.strict import Document
from fedfsd.mechanism.kind import AnyText, GaussianText

MAX_ENTRY = 4 * 2**20
MAX_INTEGER = 2**53 - 1
SIGNED_PREFIX = b"fedfsd/entry/v1\n"
UNSIGNED = "0" * 128


def _plain(text: str) -> str:
    """No control, format or line-separating characters, which could make an entry read as another."""
    if any(unicodedata.category(char) in ("Cc", "Cf", "Cs", "Zl", "Zp") for char in text):
        raise ValueError("control characters")
    return text


def _day(text: str) -> str:
    datetime.date.fromisoformat(text)
    return text


def _doubles(value: Any) -> Any:
    """A parsed document with every number that no double-sized integer is as the double it spells.

    RFC 8785 writes 1e20 as digits, which a parser takes for an integer.
    """
    if isinstance(value, dict):
        return {name: _doubles(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_doubles(one) for one in value]
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        try:
            return float(value)
        except OverflowError:
            raise ValueError("a number beyond doubles") from None
    return value


def _vkey(text: str) -> str:
    try:
        key.parse(text, kind=key.SIGNER)
    except EvidenceError:
        raise ValueError("not a verification key") from None
    return text


Integer = Annotated[int, Field(ge=0, le=MAX_INTEGER)]
Text = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_plain)]
LongText = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_plain)]
Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
LedgerId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
SignatureHex = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]
Date = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"), AfterValidator(_day)]
Region = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,31}$")]
Vkey = Annotated[str, AfterValidator(_vkey)]


Mechanism: TypeAlias = GaussianText
"""What one round does; in a plan of the first format also what all of them do."""


class _Entry(Document):
    seq: Integer = 0


class GenesisSignatures(Document):
    """Both keys that a genesis names have signed it."""

    officer: SignatureHex = UNSIGNED
    node: SignatureHex = UNSIGNED


class OfficerSignature(Document):
    """Signed by the data officer."""

    officer: SignatureHex = UNSIGNED


class PlanSignature(Document):
    """Signed by the data officer where the plan is above the caps."""

    officer: SignatureHex | None = None


class RotationSignatures(Document):
    """By the officer, by the new key, and by the old one where it still exists."""

    officer: SignatureHex = UNSIGNED
    new: SignatureHex = UNSIGNED
    old: SignatureHex | None = None


class Genesis(_Entry):
    """The first entry: whose ledger it is."""

    type: Literal["genesis"] = "genesis"
    format: Literal[1] = 1
    ledger: LedgerId
    region: Region
    node_key: Vkey
    officer_key: Vkey
    unit: Literal["vehicle"] = "vehicle"
    adjacency: Literal["zero-out"] = "zero-out"
    simulated: bool
    previous: LedgerId | None
    code: Hex32
    version: Text
    signatures: GenesisSignatures = GenesisSignatures()


class Grant(_Entry):
    """What may be lost in total on one data set."""

    type: Literal["grant"] = "grant"
    ledger: LedgerId
    data_set: Text
    data_commitment: Hex32
    delta: Annotated[float, Field(gt=0, lt=1)]
    alpha: Annotated[int, Field(ge=2, le=64)]
    rho_max: Integer
    epsilon: Annotated[float, Field(gt=0)]
    explanation: Text
    max_plans: Integer
    max_rounds: Integer
    plan_cap: Integer
    recipient_cap: Integer
    approval_required: bool
    predecessor: Integer | None
    disjoint: bool
    carried_rho: Integer
    simulated: bool
    signatures: OfficerSignature = OfficerSignature()


class Approval(_Entry):
    """Permission to transfer."""

    type: Literal["approval"] = "approval"
    ledger: LedgerId
    data_set: Text
    authority: Text
    number: Text
    recipient: Text
    purpose: Text
    models: Annotated[tuple[Text, ...], Field(min_length=1, max_length=100)]
    valid_from: Date
    valid_until: Date
    max_releases: Integer
    max_bytes: Integer
    signatures: OfficerSignature = OfficerSignature()


class PlanEntry(_Entry):
    """A plan is approved: all its loss is held. Format 2 where ``event`` names its kind."""

    type: Literal["plan"] = "plan"
    format: Literal[2] | None = None
    ledger: LedgerId
    plan: Hex32
    document: Annotated[dict[str, JsonValue], AfterValidator(_doubles)]
    grant: Integer
    event: AnyText
    rounds: Annotated[int, Field(ge=1, le=MAX_INTEGER)]
    rho_round: Integer | Annotated[tuple[Integer, ...], Field(strict=False, min_length=1, max_length=10**6)]
    """Of one round; in format 2 of each."""
    rho: Integer
    release_bytes: Integer
    recipient: Text
    purpose: Text
    key_commitment: Hex32 | None
    code: Hex32
    version: Text
    signatures: PlanSignature = PlanSignature()

    @model_validator(mode="after")
    def _one_format(self) -> PlanEntry:
        by_round = not isinstance(self.event, GaussianText)
        if (self.format == 2, isinstance(self.rho_round, tuple)) != (by_round, by_round):
            raise ValueError("the fields of one format")
        if isinstance(self.rho_round, tuple) and len(self.rho_round) != self.rounds:
            raise ValueError("the loss of every round")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = write(self)
        if found["format"] is None:
            del found["format"]
        return found

    def rho_of(self, round: int) -> int:
        """Nano-nats of one round."""
        return self.rho_round if isinstance(self.rho_round, int) else self.rho_round[round - 1]

    def rho_left(self, reserved: Collection[int]) -> int:
        """Nano-nats of all rounds but those."""
        return self.rho - sum(map(self.rho_of, reserved))


class Reserve(_Entry):
    """One round is booked, before any data is read for it."""

    type: Literal["reserve"] = "reserve"
    plan: Hex32
    round: Integer
    arrays: Hex32
    event: Mechanism
    rho: Integer
    grant: Integer
    spent: Integer
    held: Integer
    approval: Integer | None
    date: Date


class Release(_Entry):
    """These bytes may be sent."""

    type: Literal["release"] = "release"
    plan: Hex32
    round: Integer
    reserve: Integer
    sha256: Hex32
    bytes: Integer
    schema_: Hex32 = Field(alias="schema")
    destination: Text
    approval: Integer | None
    year: Integer | None
    approval_releases: Integer | None
    approval_bytes: Integer | None


class Settle(_Entry):
    """A plan is over; what its rounds never reserved is free again."""

    type: Literal["settle"] = "settle"
    plan: Hex32
    reserved: Integer
    released: Integer
    freed: Integer


class Abort(_Entry):
    """A reservation is given up; it stays charged."""

    type: Literal["abort"] = "abort"
    plan: Hex32
    round: Integer
    reserve: Integer
    code: Literal["operator", "failed"]


RefuseCode: TypeAlias = Literal["budget", "approval", "arrays", "policy", "settled"]
IncidentCode: TypeAlias = Literal["key", "data", "software", "transfer", "other"]
Finding: TypeAlias = Annotated[str, Field(pattern=r"^[a-z]+(-[a-z]+)*$", max_length=64)]


class Refuse(_Entry):
    """A request was refused."""

    type: Literal["refuse"] = "refuse"
    plan: Hex32
    round: Integer | None
    code: RefuseCode


class Incident(_Entry):
    """Something happened that an auditor should know. Format 4: an update was not what its plan releases."""

    type: Literal["incident"] = "incident"
    format: Literal[4] | None = None
    plan: Hex32 | None
    code: IncidentCode | Literal["release"]
    text: LongText
    round: Integer | None = None
    finding: Finding | None = None
    """What was found, as a stable word."""

    @model_validator(mode="after")
    def _one_format(self) -> Incident:
        of_release = (
            self.format == 4,
            self.code == "release",
            self.round is not None,
            self.finding is not None,
        )
        if len(set(of_release)) > 1 or (self.format == 4 and self.plan is None):
            raise ValueError("the fields of one format")
        return self

    @model_serializer(mode="wrap")
    def _without_what_is_absent(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = write(self)
        absent = ("format", "round", "finding") if self.format is None else ()
        return {name: value for name, value in found.items() if name not in absent}


class WitnessEntry(_Entry):
    """Others have cosigned a checkpoint of this ledger."""

    type: Literal["witness"] = "witness"
    size: Integer
    checkpoint: Annotated[str, Field(max_length=65_536)]


class Package(Document):
    """One installed package as it is: its version, and the hash over its files (FORMAT.md, section 9)."""

    version: Text
    sha256: Hex32


class Program(Document):
    """What trains: fedfsd's own files, and the packages that compute."""

    code: Hex32
    version: Text
    packages: Annotated[dict[Text, Package], Field(max_length=64)]

    @property
    def hash(self) -> str:
        """Hex SHA-256 of its canonical JSON."""
        return canonical.sha256(strict.encode(self))


class ProgramEntry(_Entry):
    """What trains the rounds of a plan from here on. Always of format 3."""

    type: Literal["program"] = "program"
    format: Literal[3] = 3
    plan: Hex32
    program: Program


class Charge(Document):
    """What a recovery charges to one grant."""

    grant: Integer
    rho: Integer


class Recover(_Entry):
    """The ledger goes on from a backup; what was lost is charged at its worst."""

    type: Literal["recover"] = "recover"
    ledger: LedgerId
    epoch: Integer
    lost_size: Integer
    lost_root: Hex32 | None
    reach: Literal["rounds", "unknown"]
    charges: tuple[Charge, ...]
    signatures: OfficerSignature = OfficerSignature()


class KeyRotate(_Entry):
    """A key is replaced."""

    type: Literal["key-rotate"] = "key-rotate"
    ledger: LedgerId
    role: Literal["node", "officer"]
    key: Vkey
    signatures: RotationSignatures = RotationSignatures()


class Close(_Entry):
    """Nothing follows."""

    type: Literal["close"] = "close"
    ledger: LedgerId
    reason: Text
    signatures: OfficerSignature = OfficerSignature()


Statement: TypeAlias = Genesis | Grant | Recover | KeyRotate | Close
Signed: TypeAlias = Statement | Approval | PlanEntry
Entry: TypeAlias = (
    Signed | Reserve | Release | Settle | Abort | Refuse | Incident | WitnessEntry | ProgramEntry
)
S = TypeVar("S", Genesis, Grant, Approval, PlanEntry, Recover, KeyRotate, Close)
_ADAPTER: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="type")])


def parse(content: bytes, *, place: str = "entry") -> Entry:
    """The entry whose canonical bytes are ``content``.

    Args:
        place: what a FormatError calls it.

    Raises:
        FormatError: a newer release wrote the entry, or the plan in it.
        EvidenceError: names what else is wrong.
    """
    if (b'"format"' in content or b"\\u" in content) and len(content) <= MAX_ENTRY:
        strict.demand_shallow(content, place)
        _demand_known(formats.peek(content), place)
    return strict.read(_ADAPTER, content, place="entry", limit=MAX_ENTRY)


def encode(entry: Entry) -> bytes:
    """The canonical bytes of ``entry``."""
    return strict.encode(entry)


def sign(entry: S, keys: Mapping[str, SigningKey]) -> S:
    """``entry`` with the signatures of ``keys``, by role as in its ``signatures``."""
    message = _signed(entry)
    made = {role: signer.sign(message).hex() for role, signer in keys.items()}
    return entry.model_copy(update={"signatures": entry.signatures.model_copy(update=made)})


def is_signed(entry: Signed, role: str, by: VerificationKey) -> bool:
    """Whether ``entry`` carries a good signature by the key ``by`` under ``role``."""
    signature = getattr(entry.signatures, role)
    return signature is not None and by.verify(bytes.fromhex(signature), _signed(entry))


def _demand_known(found: object, place: str) -> None:
    if isinstance(found, dict):
        formats.demand_known("ledger entry", found, place=place)
        plan = found.get("document") if found.get("type") == "plan" else None
        formats.demand_known("plan", plan, place=f"{place}, its plan")
        # No field of the document's own class refuses this: it is kept untyped.
        if isinstance(plan, dict) and not (type(number := plan.get("format", 1)) is int and number >= 1):
            raise EvidenceError(
                f"{place}, its plan", got="a format that is no version", expected="1 or above"
            )


def _signed(entry: Signed) -> bytes:
    return SIGNED_PREFIX + strict.encode(entry, without=("seq", "signatures"))
