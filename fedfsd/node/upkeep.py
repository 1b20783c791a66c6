"""What the gate does for its connection beside rounds: declare, renew the certificate, compare clocks.

Only where the coordinator speaks a version of the border that has it.
"""

from __future__ import annotations

import time

from fedfsd.border import authority, clock, identity, wire
from fedfsd.border import border_pb2 as pb
from fedfsd.border.identity import RENEW_DAYS
from fedfsd.errors import RefusedError
from fedfsd.ledger.disk import sync_folder
from fedfsd.node import join
from fedfsd.node.line import CoordinatorLine
from fedfsd.node.station import GateStation
from fedfsd.service.owner import private

AGAIN_SECONDS = 3600.0
_IDENTITIES = {"physical": pb.IDENTITY_PHYSICAL, "recording": pb.IDENTITY_RECORDING}


class Upkeep:
    """For one connection; ``look`` does what is due, at first at once."""

    def __init__(self, station: GateStation, line: CoordinatorLine) -> None:
        self._station, self._line, self._due = station, line, 0.0

    def look(self) -> bool:
        """Do what is due; whether there is a new certificate, for which a connection has to be made anew.

        Raises:
            grpc.RpcError: the connection fails, or the coordinator refuses.
            RefusedError: it sent a certificate that is not this region's.
            NotReadyError: the renewal cannot be written into the ledger and on the mirror.
        """
        now = time.monotonic()
        if self._line.version < wire.CARES or now < self._due:
            return False
        first, self._due = self._due == 0.0, now + AGAIN_SECONDS
        if first:
            self._declare()
        self._compare()
        return self._renew()

    def _declare(self) -> None:
        """Say what the policy declares."""
        policy = self._station.gate.policy
        if policy.roster is not None and policy.identity is not None:
            self._line.declare(policy.roster, _IDENTITIES[policy.identity])

    def _compare(self) -> None:
        """Notice a clock that is off: certificates and permissions end by it."""
        station = self._station
        offset = clock.offset(self._line.clock)
        told = clock.objection(offset)
        if told is not None and clock.objection(station.tally.clock_offset or 0.0) is None:
            station.log.warning("clock_off", extra={"line": str(told), "seconds": round(offset)})
        station.tally.clock(offset)

    def _renew(self) -> bool:
        """Before the certificate ends: a new one for the same key."""
        peer = join.peer(self._station.node)
        if peer.days_left > RENEW_DAYS:
            return False
        key, now = authority.read_key(peer.key), identity.read(peer.certificate.read_bytes())
        made = identity.read(self._line.renew(authority.request(key)))
        party = identity.region(peer.invitation.federation, self._station.region)
        authority.check(made, root=peer.invitation.certificate, party=party)
        if made.public_key() != key.public_key():
            raise RefusedError("certificate", got="one of another key", expected="one of this region's key")
        if made.not_valid_after_utc <= now.not_valid_after_utc:
            return False
        # On record before it is in force: an auditor sees until when this key may speak for the region.
        self._station.ledger.incident(
            "key",
            f"border certificate renewed for the same key: serial {made.serial_number:x} until"
            f" {made.not_valid_after_utc:%Y-%m-%d}, in place of {now.serial_number:x}",
        )
        with private():
            authority.write_certificate(made, peer.certificate)
            sync_folder(peer.certificate.parent)
        self._station.log.info("certificate_renewed", extra={"days": identity.days_left(made)})
        return True
