"""Inviting a region, confirming what it asked, revoking what it was given."""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from pydantic import Field, ValidationError

from fedfsd import canonical, formats
from fedfsd.border import authority, enrolment, identity, invitation
from fedfsd.border.authority import Authority
from fedfsd.border.identity import RENEW_DAYS
from fedfsd.border.invitation import Invitation
from fedfsd.config.experiment import REGION_PATTERN
from fedfsd.config.load import Frozen
from fedfsd.coordinator.folder import Coordinator
from fedfsd.errors import NotReadyError, RefusedError, UsageError
from fedfsd.ledger import key
from fedfsd.ledger.disk import write_whole
from fedfsd.ledger.error import EvidenceError

VALID_DAYS = 7
RESERVED = "coordinator"


class KeptInvitation(Frozen):
    """What the coordinator keeps of an invitation: enough to know its token, not to use it."""

    format: Literal[1] = 1
    token_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    expires: str


@dataclass(frozen=True)
class Confirmed:
    """A certificate that was just issued."""

    certificate: x509.Certificate
    changed: tuple[str, ...]
    """Keys of the region's ledger that are not those of its last certificate."""


def invite(coordinator: Coordinator, region: str, *, today: datetime.date) -> Invitation:
    """A new invitation for ``region``, in place of an earlier one; a certificate it has stays good."""
    if not re.fullmatch(REGION_PATTERN, region) or region == RESERVED:
        raise UsageError(
            "REGION",
            got=region,
            expected="up to 32 letters, digits, - and _, a letter first",
            hint="such as EU",
        )
    settings, token = coordinator.settings, secrets.token_bytes(invitation.TOKEN_BYTES)
    root = Authority.read(coordinator.ca)
    made = Invitation(
        federation=coordinator.name,
        region=region,
        address=settings.address,
        join=settings.join_address,
        root=coordinator.root.read_text(encoding="ascii"),
        coordinator=str(coordinator.key.verification),
        witness=str(coordinator.key.cosigner),
        token=token.hex(),
        expires=(today + datetime.timedelta(days=VALID_DAYS)).isoformat(),
    )
    kept = KeptInvitation(token_sha256=hashlib.sha256(token).hexdigest(), expires=made.expires)
    folder = coordinator.region(region)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_whole(folder / "invitation.json", canonical.encode(kept.model_dump()))
    # Only now: whoever has the old token could have left another request here.
    (folder / "request.json").unlink(missing_ok=True)
    return invitation.sign(made, root)


def kept(coordinator: Coordinator, region: str) -> KeptInvitation | None:
    """What is kept of the region's last invitation. FormatError where a newer release wrote it."""
    try:
        content = (coordinator.region(region) / "invitation.json").read_bytes()
        formats.demand_known("invitation", formats.peek(content), place=f"invitation of {region}")
        return KeptInvitation.model_validate_json(content)
    except (OSError, ValidationError):
        return None


def waiting(coordinator: Coordinator, region: str) -> enrolment.Request:
    """The region's request. NotReadyError where none came yet."""
    path = coordinator.region(region) / "request.json"
    if not path.exists():
        raise NotReadyError(
            f"region {region}",
            got="no signing request",
            expected="a request, sent by fedfsd region init --join",
            hint=f"fedfsd coordinator invite {region} makes an invitation; coordinator up takes requests",
        )
    return enrolment.read(path)


def confirm(coordinator: Coordinator, region: str, *, said: str) -> Confirmed:
    """Issue the pending certificate of ``region``, if its operators ``said`` the fingerprint of its request.

    Raises:
        NotReadyError: no request came yet.
        RefusedError: another fingerprint.
    """
    asked = waiting(coordinator, region)
    if not identity.same_fingerprint(said, asked.fingerprint):
        raise RefusedError(
            f"region {region}",
            got="a request with another fingerprint",
            expected="the fingerprint that the region's operators told you out of band",
            hint=f"fedfsd coordinator invite {region} makes a new invitation, if this request is not theirs",
        )
    folder = coordinator.region(region)
    requested = authority.requested_key(bytes.fromhex(asked.request))
    changed = []
    with _alone(folder):
        for role, vkey in (("node", asked.node), ("officer", asked.officer)):
            path = folder / f"{role}.vkey"
            if path.exists() and path.read_text(encoding="utf-8").strip() != vkey:
                changed.append(role)
            write_whole(path, f"{vkey}\n".encode())
        return Confirmed(_issue(coordinator, region, requested), tuple(changed))


def renew(coordinator: Coordinator, region: str, request: bytes) -> x509.Certificate:
    """A new certificate for the key and the name of the one that ``region`` was given last.

    Before it is due, and where an answer got lost, the same one again.

    Raises:
        RefusedError: no certificate, as after it was revoked, or another key: that takes a new invitation.
    """
    key, folder = authority.requested_key(request), coordinator.region(region)
    with _alone(folder):
        issued = folder / "region.crt"
        last = identity.read(issued.read_bytes()) if issued.exists() else None
        if last is None or last.public_key() != key:
            raise RefusedError(
                "certificate",
                got="a request to renew one that is not in force",
                expected="the key of the last one",
                hint=f"fedfsd coordinator invite {region}",
            )
        if identity.days_left(last) > RENEW_DAYS:
            return last
        return _issue(coordinator, region, key)


def revoke(coordinator: Coordinator, region: str) -> int:
    """Put every certificate that ``region`` was ever given on the list, and end its invitation; how many."""
    folder = coordinator.region(region)
    if not folder.is_dir():
        raise NotReadyError(f"region {region}", got="never invited", expected="a region of this federation")
    with _alone(folder):
        for name in ("invitation.json", "request.json"):
            (folder / name).unlink(missing_ok=True)
        issued = (
            (folder / "issued").read_text(encoding="ascii").split() if (folder / "issued").exists() else []
        )
        listed = coordinator.revoked.read_text(encoding="ascii")
        new = "".join(f"{serial} {region}\n" for serial in issued if serial not in listed.split())
        write_whole(coordinator.revoked, (listed + new).encode())
        (folder / "region.crt").unlink(missing_ok=True)
        return len(issued)


def accept(coordinator: Coordinator, region: str, request: enrolment.Request) -> bytes:
    """Keep a first request, or answer the one that is kept: its certificate, or nothing yet.

    Raises:
        RefusedError: another request than the one this invitation was used for, or one that cannot be.
    """
    folder = coordinator.region(region)
    path, issued = folder / "request.json", folder / "region.crt"
    if not path.exists():
        authority.requested_key(bytes.fromhex(request.request))
        _demand_keys(region, request)
        request.write(path)
        return b""
    if enrolment.read(path) != request:
        raise RefusedError("token", got="a token already used for another request", expected="a new token")
    pem = issued.read_bytes() if issued.exists() else b""
    mine = authority.requested_key(bytes.fromhex(request.request))
    return pem if pem and identity.read(pem).public_key() == mine else b""


def _demand_keys(region: str, request: enrolment.Request) -> None:
    """The ledger's keys must be called like the region's."""
    try:
        node, officer = (key.parse(one, kind=key.SIGNER) for one in (request.node, request.officer))
        good = re.fullmatch(rf"fedfsd/{re.escape(region)}/[0-9a-f]{{32}}", node.name) is not None
        good &= officer.name == f"fedfsd/{region}/officer" and officer.public != node.public
    except EvidenceError:
        good = False
    if not good:
        raise RefusedError(
            "signing request", got="keys of another region", expected="this region's ledger keys"
        )


def _issue(coordinator: Coordinator, region: str, key: EllipticCurvePublicKey) -> x509.Certificate:
    """A certificate for that key and name, the region's own from now on."""
    folder, party = coordinator.region(region), identity.region(coordinator.name, region)
    made = Authority.read(coordinator.ca).issue(party, key)
    _append(folder / "issued", made.serial_number)  # before it exists: revoking must know of it
    authority.write_certificate(made, folder / "region.crt")
    return made


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """One at a time gives or revokes: the gate renews while people type."""
    with (folder / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _append(path: Path, serial: int) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w") as file:
        file.write(f"{serial:x}\n")
        file.flush()
        os.fsync(file.fileno())
