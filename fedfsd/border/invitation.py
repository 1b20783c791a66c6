"""An invitation: all that a region needs to ask for its certificate, signed by the federation's root.

It may be sent over any channel: the region's operators check the root's fingerprint out of band, and the
root's signature covers the rest: the coordinator's keys, the address, the token.
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Annotated, Literal

from cryptography import x509
from pydantic import Field, ValidationError

from fedfsd import canonical, formats
from fedfsd.border import authority, identity
from fedfsd.config.experiment import RegionName
from fedfsd.config.load import Frozen
from fedfsd.errors import NotReadyError, RefusedError
from fedfsd.ledger import key
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import VerificationKey

MAX_INVITATION = 16_384
TOKEN_BYTES = 32
_PREFIX = b"fedfsd/invitation/v1\n"
Address = Annotated[str, Field(pattern=r"^[A-Za-z0-9._\[\]:-]{1,255}:\d{1,5}$")]


class Invitation(Frozen):
    """What the coordinator's operators send to the operators of one region."""

    kind: Literal["fedfsd-invitation"] = "fedfsd-invitation"
    format: Literal[1] = 1
    federation: RegionName
    region: RegionName
    address: Address
    """Where the coordinator's gate listens, host:port."""
    join: Address
    """Where to ask for the certificate."""
    root: Annotated[str, Field(max_length=4096)]
    """The federation's root certificate, PEM."""
    coordinator: Annotated[str, Field(max_length=400)]
    """The key that countersigns receipts."""
    witness: Annotated[str, Field(max_length=400)]
    """The same key as it cosigns checkpoints."""
    token: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Good for one signing request."""
    expires: Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    """The last day (UTC) on which it can be used."""
    signature: Annotated[str, Field(pattern="^[0-9a-f]{0,200}$")] = ""
    """By the root's key."""

    @property
    def certificate(self) -> x509.Certificate:
        """The root."""
        return identity.read(self.root.encode())

    @property
    def fingerprint(self) -> str:
        """The root's, to be compared out of band with the coordinator's operators."""
        return identity.fingerprint(self.certificate)

    @property
    def expected_uri(self) -> str:
        """Who must answer."""
        return str(identity.coordinator(self.federation))

    @property
    def coordinator_key(self) -> VerificationKey:
        """What checks receipts."""
        return key.parse(self.coordinator, kind=key.SIGNER)

    @property
    def witness_key(self) -> VerificationKey:
        """What checks cosignatures."""
        return key.parse(self.witness, kind=key.COSIGNER)

    @property
    def message(self) -> bytes:
        """What the root signs."""
        return _PREFIX + canonical.encode(self.model_dump(exclude={"signature"}))


def sign(invitation: Invitation, root: authority.Authority) -> Invitation:
    """``invitation`` with the root's signature."""
    return invitation.model_copy(update={"signature": root.sign(invitation.message).hex()})


def read(path: Path) -> Invitation:
    """The invitation in ``path``.

    Raises:
        FormatError: a newer release made it.
        NotReadyError: no file, or no invitation.
        RefusedError: changed after the root signed it, or with keys that are no keys.
    """
    try:
        content = path.read_bytes() if path.stat().st_size <= MAX_INVITATION else b""
        formats.demand_known("invitation", formats.peek(content), place=str(path))
        made = Invitation.model_validate_json(content)
        certificate = made.certificate
        datetime.date.fromisoformat(made.expires)
    except OSError as error:
        raise NotReadyError(
            str(path), got=error.strerror, expected="an invitation, as fedfsd coordinator invite makes it"
        ) from None
    except (ValidationError, ValueError, NotReadyError):
        raise NotReadyError(str(path), got="another content", expected="an invitation") from None
    try:
        named = made.coordinator_key.name == made.witness_key.name == f"fedfsd/coordinator/{made.federation}"
        named &= made.coordinator_key.public == made.witness_key.public
    except EvidenceError:
        named = False
    if not named or not authority.is_signed(bytes.fromhex(made.signature), made.message, certificate):
        raise RefusedError(
            str(path),
            got="a modified invitation",
            expected="one signed by its federation's root",
            hint="ask the coordinator's operators to send it again",
        )
    return made


def demand_current(invitation: Invitation, *, today: datetime.date) -> None:
    """NotReadyError where the invitation's last day is over."""
    if today.isoformat() > invitation.expires:
        raise NotReadyError(
            "invitation",
            got=f"one that expired on {invitation.expires}",
            expected="one that is valid today",
            hint=f"ask the coordinator's operators: fedfsd coordinator invite {invitation.region}",
        )
