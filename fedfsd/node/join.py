"""A region joins a federation: its TLS key is made here and never leaves; the certificate is issued when the
operators of both sides have compared a fingerprint. Joining again, with a new invitation, makes a new pair.

``tls/`` is what the gate connects with: region.key, region.crt, root.crt, invitation.json, request.json.
``tls.next/`` is the same without region.crt, while the request is pending.
"""

from __future__ import annotations

import datetime
import shutil
from dataclasses import dataclass
from pathlib import Path

from fedfsd.border import authority, enrolment, identity, invitation
from fedfsd.border.invitation import Invitation
from fedfsd.errors import NotReadyError, PendingError, RefusedError
from fedfsd.ledger.disk import sync_folder, write_whole
from fedfsd.ledger.key import SigningKey, VerificationKey
from fedfsd.ledger.ledger import NODE_KEY
from fedfsd.ledger.store import DATABASE
from fedfsd.node.node import Node, private
from fedfsd.service import address as addresses

REQUEST = "request.json"


@dataclass(frozen=True)
class Peer:
    """How the gate reaches the coordinator, and the keys by which it believes what it gets."""

    address: str
    root: Path
    key: Path
    certificate: Path
    expected_uri: str
    proxy: str
    invitation: Invitation

    @property
    def way_out(self) -> str:
        """The host:port that the gate connects to, and nobody else of the region should."""
        return addresses.of_proxy(self.proxy) if self.proxy else self.address

    @property
    def days_left(self) -> int:
        """Whole days until this region's certificate expires."""
        return identity.days_left(identity.read(self.certificate.read_bytes()))

    def demand_valid(self) -> None:
        """NotReadyError where no handshake can succeed by this machine's clock."""
        mine, now = identity.read(self.certificate.read_bytes()), datetime.datetime.now(datetime.UTC)
        if mine.not_valid_before_utc <= now <= mine.not_valid_after_utc:
            return
        name, clock = self.invitation.region, f"this machine's clock ({now:%Y-%m-%d %H:%M} UTC)"
        if now < mine.not_valid_before_utc:
            raise NotReadyError(
                "certificate",
                got=f"one that begins on {mine.not_valid_before_utc:%Y-%m-%d}, by {clock}",
                expected="a valid one",
                hint="set the clock",
            )
        raise NotReadyError(
            "certificate",
            got=f"one that expired {identity.ago(mine, now)}, by {clock}",
            expected="a valid one",
            hint=f"set the clock if it is wrong; else a new invitation (fedfsd coordinator invite {name})"
            f" and fedfsd region init {name} --join INVITATION -o FOLDER",
        )

    def demand_pair(self) -> None:
        """Raise a FedfsdError where key or certificate cannot be read, or one is not the other's."""
        certificate = identity.read(self.certificate.read_bytes())
        if authority.read_key(self.key).public_key() != certificate.public_key():
            raise NotReadyError(
                str(self.key),
                got="another key than the certificate's",
                expected=f"the key of {self.certificate.name}",
                hint="fedfsd region init --join with a new invitation makes a new pair",
            )


def peer(node: Node) -> Peer:
    """The coordinator that this region joined.

    Raises:
        PendingError: it asked for a certificate and has none yet.
        NotReadyError: it was never invited.
    """
    folder = node.folder / "tls"
    _finish(node)
    if not (folder / "region.crt").exists():
        raise _unjoined(node)
    mine = invitation.read(folder / "invitation.json")
    return Peer(
        address=node.settings.border.coordinator or mine.address,
        root=folder / "root.crt",
        key=folder / "region.key",
        certificate=folder / "region.crt",
        expected_uri=mine.expected_uri,
        proxy=node.settings.border.proxy,
        invitation=mine,
    )


def _unjoined(node: Node) -> NotReadyError:
    """What to say of a region without a certificate."""
    if (request := node.folder / "tls.next" / REQUEST).exists():
        return PendingError(
            "certificate",
            got=f"no certificate yet: a request with the fingerprint {enrolment.read(request).fingerprint}",
            expected="the coordinator's operators to confirm that fingerprint",
            hint=f"fedfsd region up --region {node.folder} asks for it again and again, by itself",
        )
    return NotReadyError(
        "certificate",
        got="no invitation yet",
        expected="a region that joined a federation",
        hint=f"fedfsd region init {node.settings.name} --join INVITATION -o {node.folder}",
    )


def demand_fingerprint(mine: Invitation, said: str | None) -> None:
    """RefusedError if ``said`` is not the fingerprint of the invitation's root."""
    if said is not None and not identity.same_fingerprint(said, mine.fingerprint):
        raise RefusedError(
            "--root-fingerprint",
            got=f"an invitation with the root {mine.fingerprint}",
            expected=said,
            hint="do not use it; ask the coordinator's operators",
        )


def demand_current(mine: Invitation) -> None:
    """NotReadyError where the invitation's last day is over."""
    invitation.demand_current(mine, today=datetime.datetime.now(datetime.UTC).date())


def prepare(node: Node, mine: Invitation, *, officer: VerificationKey | None) -> enrolment.Request:
    """Make the TLS key and the request for it; the same again where that was done with this invitation.

    Args:
        officer: the data officer's key, needed as long as there is no ledger that names it.

    Raises:
        RefusedError: another region's invitation.
        NotReadyError: no ledger yet and no officer's key given, or a new invitation that has expired.
    """
    if mine.region != node.settings.name:
        raise RefusedError(
            "invitation", got=f"one for {mine.region}", expected=f"one for {node.settings.name}"
        )
    for name in ("tls.next", "tls"):
        known = node.folder / name / "invitation.json"
        if known.exists() and invitation.read(known).token == mine.token:
            return enrolment.read(node.folder / name / REQUEST)
    demand_current(mine)
    following, part = node.folder / "tls.next", node.folder / "tls.part"
    with private():
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        key = authority.new_key()
        authority.write_key(key, part / "region.key")
        write_whole(part / "root.crt", mine.root.encode())
        write_whole(part / "invitation.json", mine.model_dump_json(indent=1).encode())
        signer, officer = _keys(node, officer)
        request = enrolment.Request(
            request=authority.request(key).hex(), node=str(signer), officer=str(officer)
        )
        request.write(part / REQUEST)
        shutil.rmtree(following, ignore_errors=True)
        part.replace(following)
    return request


def fetch_certificate(node: Node) -> bool:
    """Ask for the certificate that this region waits for; whether it has one now.

    Raises:
        NotReadyError: the coordinator cannot be reached, or there is nothing to ask for.
        RefusedError: it does not take the invitation, or what it sent is no certificate of this key.
    """
    folder = node.folder / "tls.next"
    _finish(node)
    if not folder.exists():
        peer(node)
        return True
    mine, request = invitation.read(folder / "invitation.json"), enrolment.read(folder / REQUEST)
    pem = enrolment.ask(mine, request, root=folder / "root.crt", proxy=node.settings.border.proxy)
    if not pem:
        return False
    certificate = identity.read(pem)
    party = identity.region(mine.federation, mine.region)
    authority.check(certificate, root=mine.certificate, party=party)
    if certificate.public_key() != authority.read_key(folder / "region.key").public_key():
        raise RefusedError("certificate", got="one of another key", expected="one of this region's key")
    with private():
        authority.write_certificate(certificate, folder / "region.crt")
        _finish(node)
    return True


def _finish(node: Node) -> None:
    """Put a complete ``tls.next`` in the place of ``tls``; also after a crash in the middle of that."""
    following, current, old = (node.folder / name for name in ("tls.next", "tls", "tls.old"))
    if (following / "region.crt").exists():
        if current.exists():
            shutil.rmtree(old, ignore_errors=True)
            current.replace(old)
        following.replace(current)
        sync_folder(node.folder)
    shutil.rmtree(old, ignore_errors=True)


def _keys(node: Node, officer: VerificationKey | None) -> tuple[VerificationKey, VerificationKey]:
    """The keys that the ledger names, or as its genesis will name them."""
    if (node.ledger / DATABASE).exists():
        ledger = node.open_ledger()
        try:
            return ledger.state.node, ledger.state.officer
        finally:
            ledger.close()
    if officer is None:
        raise NotReadyError(
            "--officer-vkey",
            got="nothing, and no ledger yet",
            expected="the data officer's public key",
            hint="name it, or add the signed genesis first",
        )
    return SigningKey.read(node.ledger / NODE_KEY).verification, officer
