"""On a server, before every call: who asks, and is that allowed still? A refusal is a code without text.

TLS has checked at the handshake that this federation's authority signed the certificate. A connection lives
long; so expiry and the list of revoked certificates are looked at again for each call.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import grpc
from cryptography import x509

from fedfsd.border import identity
from fedfsd.border.identity import Identity, IdentityError
from fedfsd.border.metadata import is_plain
from fedfsd.errors import FedfsdError

LOG = logging.getLogger("fedfsd.border")
AT_ONCE = 16
"""Calls that one region may have open, or one address where regions are not known yet."""
_KNOWN = 1000
ARRIVAL_SECONDS = 10.0
"""Within which the message of a call has to come."""


class Revoked:
    """The list of revoked certificates: serial numbers in hex, one a line; read again when it changed.

    A list that cannot be read revokes everything.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._mark, self._serials = path, (0, 0, 0), frozenset[int]()

    def __contains__(self, certificate: x509.Certificate) -> bool:
        try:
            state = self._path.stat()
            mark = (state.st_mtime_ns, state.st_size, state.st_ino)
            if mark != self._mark:
                self._serials, self._mark = serials(self._path.read_text(encoding="utf-8")), mark
        except (OSError, ValueError):
            self._mark = (0, 0, 0)
            LOG.error("the list of revoked certificates cannot be read", extra={"code": "revoked"})
            return True
        return certificate.serial_number in self._serials


def serials(text: str) -> frozenset[int]:
    """The serial numbers on a list of revoked certificates. ValueError where it is none."""
    return frozenset(int(line.split()[0], 16) for line in text.splitlines() if line.strip())


class Doorkeeper(grpc.ServerInterceptor):
    """Lets a call through with plain metadata and, where ``federation`` is given, from one of its regions.

    gRPC gives every call a thread, in which it waits for the call's message. So the caller is checked first,
    no caller has more than ``AT_ONCE`` open calls, and the message has to arrive in time.
    """

    def __init__(self, federation: str | None, revoked: Path | None) -> None:
        self._federation = federation
        self._revoked = None if revoked is None else Revoked(revoked)
        self._open: dict[str, set[object]] = {}

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """The handler of a call, behind the check; an exception in it reaches the log by its kind alone."""
        handler = continuation(details)
        if handler is None:
            return None
        asked = "stream" if handler.request_streaming else "unary"
        answered = "stream" if handler.response_streaming else "unary"
        behaviour = getattr(handler, f"{asked}_{answered}")
        if asked == "unary":
            behaviour = _of_one(behaviour)
        guarded = (self._guard_stream if handler.response_streaming else self._guard)(behaviour)
        # As a stream whatever it is: on the wire that is the same, and here it begins without a message.
        make = getattr(grpc, f"stream_{answered}_rpc_method_handler")
        return make(guarded, handler.request_deserializer, handler.response_serializer)

    def _guard(self, behaviour: Callable[..., Any]) -> Callable[..., Any]:
        def guarded(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
            with self._admitted(context):
                try:
                    return behaviour(requests, context)
                except Exception as error:
                    _end(context, error)

        return guarded

    def _guard_stream(self, behaviour: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
        def guarded(requests: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
            with self._admitted(context):
                try:
                    yield from behaviour(requests, context)
                except Exception as error:
                    _end(context, error)

        return guarded

    @contextmanager
    def _admitted(self, context: grpc.ServicerContext) -> Iterator[None]:
        """One more call of whoever calls, while it is open."""
        region, call = self._admit(context), object()
        # Where anybody may knock: by address, without the port. No lock: this also ends in the collector,
        # which may come in the middle of another call's turn.
        mine = self._open.setdefault(region or context.peer().rpartition(":")[0], set())
        mine.add(call)
        try:
            if len(mine) > AT_ONCE:
                refuse(context, grpc.StatusCode.RESOURCE_EXHAUSTED, "too many calls at once", region)
            yield
        finally:
            mine.discard(call)
            if len(self._open) > _KNOWN:
                self._open = {name: calls for name, calls in list(self._open.items()) if calls}

    def _admit(self, context: grpc.ServicerContext) -> str | None:
        """The region that calls; None where anybody may."""
        if not is_plain(context.invocation_metadata()):
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "metadata of the caller's own")
        # gRPC's Python cannot be told to offer nothing older; it can see what was agreed.
        if list(context.auth_context().get("ssl_tls_version", ())) != [b"TLSv1.3"]:
            refuse(context, grpc.StatusCode.UNAUTHENTICATED, "older than TLS 1.3")
        if self._federation is None:
            return None
        try:
            party, certificate = peer(context)
            identity.demand_valid(certificate)
        except FedfsdError as error:
            refuse(context, grpc.StatusCode.UNAUTHENTICATED, str(error))
        if party.region is None or party.federation != self._federation:
            refuse(context, grpc.StatusCode.PERMISSION_DENIED, "not a region of this federation")
        if self._revoked is not None and certificate in self._revoked:
            refuse(context, grpc.StatusCode.PERMISSION_DENIED, "revoked", party.region)
        return party.region


def peer(context: grpc.ServicerContext) -> tuple[Identity, x509.Certificate]:
    """Who calls. IdentityError where the certificate is missing or not of a party."""
    found = context.auth_context().get("x509_pem_cert", ())
    if len(found) != 1:
        raise IdentityError("certificate", got="none", expected="a region's")
    certificate = identity.read(bytes(found[0]))
    return identity.identify(certificate), certificate


def caller(context: grpc.ServicerContext) -> str:
    """The region that calls, on a server made by ``channel.serve``."""
    return peer(context)[0].region or ""


def refuse(
    context: grpc.ServicerContext, code: grpc.StatusCode, why: str, region: str | None = None
) -> NoReturn:
    """End the call with ``code`` and no text; ``why`` goes to the log alone."""
    LOG.warning("refused: %s", why, extra={"code": code.name.lower(), "region": region})
    context.abort(code, "")
    raise AssertionError("a call that was ended went on")


def _of_one(behaviour: Callable[..., Any]) -> Callable[..., Any]:
    """A handler of one message as one of a stream, from which exactly one has to come, and in time."""

    def of_one(requests: Iterator[Any], context: grpc.ServicerContext) -> Any:
        late = threading.Event()

        def end() -> None:
            late.set()
            context.cancel()

        timer = threading.Timer(ARRIVAL_SECONDS, end)
        timer.daemon = True
        timer.start()
        try:
            request, more = next(requests, None), next(requests, None)
        except grpc.RpcError:
            refuse(context, grpc.StatusCode.CANCELLED, "a call that ended before its message came")
        finally:
            timer.cancel()
        if request is None or more is not None or late.is_set():
            refuse(context, grpc.StatusCode.INVALID_ARGUMENT, "no message in time, or several")
        return behaviour(request, context)

    return of_one


def _end(context: grpc.ServicerContext, error: Exception) -> NoReturn:
    """gRPC would send an exception's text to the peer."""
    if type(error) is Exception and not error.args:  # how context.abort ends a call
        raise error
    LOG.error("failed: %s", type(error).__name__, extra={"code": "internal"})
    context.abort(grpc.StatusCode.INTERNAL, "")
    raise AssertionError("a call that was ended went on")
