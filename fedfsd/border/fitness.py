"""Checks of a border for doctors: certificates, and whether the other side answers."""

from __future__ import annotations

import datetime
from contextlib import suppress
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from fedfsd.border import authority, clock, identity, rpc, wire
from fedfsd.border import border_pb2 as pb
from fedfsd.border.channel import SERVICE, open_channel
from fedfsd.border.identity import WARN_DAYS, Identity
from fedfsd.service import address as addresses
from fedfsd.service.diagnosis import CheckResult, fail, ok, warn

SECONDS = 5.0


def certificate(check: str, path: Path, *, root: Path, key: Path, party: Identity, fix: str) -> CheckResult:
    """Whether the certificate at ``path`` is ``party``'s, of this key, by ``root``, and for how long."""
    mine, authority_of = identity.read(path.read_bytes()), identity.read(root.read_bytes())
    days, now = identity.days_left(mine), datetime.datetime.now(datetime.UTC)
    if days < 0:
        return fail(check, f"expired {identity.ago(mine, now)}, by this machine's clock", fix=fix)
    authority.check(mine, root=authority_of, party=party)
    if mine.public_key() != authority.read_key(key).public_key():
        return fail(check, f"not the certificate of {key.name}", fix=fix)
    found = f"{party}, {days} days left"
    return warn(check, found, fix=fix) if days <= WARN_DAYS else ok(check, found)


def reach(
    check: str, address: str, *, root: Path, key: Path, certificate: Path, expected_uri: str, proxy: str = ""
) -> CheckResult:
    """Whether the coordinator at ``address`` can be reached, is who it should be, and lets this region in."""
    try:
        addresses.knock(address, proxy, seconds=SECONDS)
    except (OSError, ValueError):
        return fail(
            check,
            f"{address}: no connection{' through border.proxy' if proxy else ''}",
            fix="allow outgoing TCP there; is fedfsd coordinator up? region.toml may name another address,"
            " and a proxy",
        )
    with open_channel(
        address, root=root, key=key, certificate=certificate, expected_uri=expected_uri, proxy=proxy
    ) as channel:
        # Not Hello: beside the region's gate that would look like a second node with its key.
        request = health_pb2.HealthCheckRequest(service=SERVICE)
        try:
            health_pb2_grpc.HealthStub(channel).Check(request, timeout=SECONDS)
        except grpc.RpcError as error:
            return _unwelcome(check, address, error.code())
    return ok(check, f"{address} answers as {expected_uri}")


def clock_offset(
    address: str, *, root: Path, key: Path, certificate: Path, expected_uri: str, proxy: str = ""
) -> float | None:
    """Seconds by which this machine's clock is ahead of the coordinator's; None where it does not say."""
    with open_channel(
        address, root=root, key=key, certificate=certificate, expected_uri=expected_uri, proxy=proxy
    ) as channel:
        stub, ready = rpc.stub(channel), pb.Ready(version=wire.VERSION)
        with suppress(grpc.RpcError):
            return clock.offset(lambda: int(stub.Clock(ready, timeout=SECONDS).seconds))
    return None


def _unwelcome(check: str, address: str, code: grpc.StatusCode) -> CheckResult:
    if code == grpc.StatusCode.PERMISSION_DENIED:
        return fail(
            check,
            f"{address} refuses this certificate",
            fix="ask the coordinator's operators: it may be revoked",
        )
    if code == grpc.StatusCode.UNAVAILABLE:
        return fail(
            check,
            f"{address}: connected, but the TLS handshake failed",
            fix="check certificate and clock on both sides; is something else listening there?",
        )
    return fail(check, f"{address}: {code.name.lower()}", fix="see the coordinator's log")
