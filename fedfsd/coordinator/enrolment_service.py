"""The join listener: anybody may connect, only a valid token is answered, and no input is echoed."""

from __future__ import annotations

import datetime
import hashlib
import hmac
import threading
import time

import grpc
from pydantic import ValidationError

from fedfsd.border import border_pb2 as pb
from fedfsd.border import enrolment, rpc, wire
from fedfsd.border.channel import refuse, serve
from fedfsd.coordinator import invite
from fedfsd.coordinator.folder import Coordinator
from fedfsd.errors import FedfsdError, RefusedError

CALLS_PER_SECOND, BURST = 2.0, 10.0
WORKERS = 64
"""More than one address may have calls open: they may all be waiting for a message that does not come."""


class Enrolment:
    """Takes signing requests, one at a time and few a second."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator
        self._lock = threading.Lock()
        self._allowed, self._since = BURST, time.monotonic()

    def Join(self, request: pb.SigningRequest, context: grpc.ServicerContext) -> pb.Enrolled:
        """The certificate for a token's request, empty until an operator confirmed it."""
        with self._lock:
            busy = not self._take()
        if busy:
            refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "too many requests to join")
        try:
            wire.strict(request)
            asked = enrolment.Request(
                request=request.request.hex(), node=request.node.decode(), officer=request.officer.decode()
            )
        except (FedfsdError, ValidationError, UnicodeDecodeError):
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "a malformed signing request")
        with self._lock:  # whose token it is and whether it is used already are one question
            region = self._invited(request.token)
            if region is None:
                refuse(context, grpc.StatusCode.UNAUTHENTICATED, "a token that is unknown or expired")
            try:
                return pb.Enrolled(certificate=invite.accept(self._coordinator, region, asked))
            except RefusedError as error:
                refuse(context, grpc.StatusCode.PERMISSION_DENIED, str(error), region)

    def _take(self) -> bool:
        now = time.monotonic()
        self._allowed = min(BURST, self._allowed + CALLS_PER_SECOND * (now - self._since))
        self._since = now
        if self._allowed < 1:
            return False
        self._allowed -= 1
        return True

    def _invited(self, token: bytes) -> str | None:
        """The region whose token this is; every one is compared, in constant time."""
        digest, today, found = (
            hashlib.sha256(token).hexdigest(),
            datetime.datetime.now(datetime.UTC).date(),
            None,
        )
        for region in self._coordinator.invited():
            kept = invite.kept(self._coordinator, region)
            if kept is not None and hmac.compare_digest(kept.token_sha256, digest):
                found = region if today.isoformat() <= kept.expires else None
        return found


def add_enrolment(server: grpc.Server, coordinator: Coordinator) -> None:
    """Put the join service on ``server``."""
    rpc.add(server, Enrolment(coordinator), rpc.ENROLMENT)


def serve_enrolment(coordinator: Coordinator) -> tuple[grpc.Server, int]:
    """A started server on the join port, and that port. NotReadyError where the port is taken."""
    return serve(
        lambda server: add_enrolment(server, coordinator),
        host=coordinator.settings.listen,
        port=coordinator.settings.join_port,
        root=None,
        key=coordinator.tls_key,
        certificate=coordinator.tls_certificate,
        max_workers=WORKERS,
    )
