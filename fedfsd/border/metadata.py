"""gRPC metadata beside the messages: the transport's own keys and nothing else, in both directions."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc

from fedfsd.errors import RefusedError

LOG = logging.getLogger("fedfsd.border")
# All that gRPC shows of its own. Anything else (grpc-status-details-bin, a trace, a token) could carry data.
TRANSPORT = {
    "user-agent": re.compile(r"grpc-python/[0-9.]{1,16} grpc-c/[0-9.]{1,16} \([a-z0-9]{1,16}; chttp2\)")
}


class MetadataError(RefusedError):
    """A peer sent metadata of its own."""


def is_plain(metadata: Iterable[tuple[str, str | bytes]] | None) -> bool:
    """Whether ``metadata`` is the transport's alone."""
    return all(
        key in TRANSPORT and isinstance(value, str) and TRANSPORT[key].fullmatch(value)
        for key, value in metadata or ()
    )


def demand_plain(call: Any) -> None:
    """MetadataError where ``call`` brought metadata of the peer's own; waits until it is finished."""
    if not (is_plain(call.initial_metadata()) and is_plain(call.trailing_metadata())):
        LOG.warning("refused: the coordinator sent metadata of its own", extra={"code": "metadata"})
        raise MetadataError("gRPC metadata", got="keys of the peer's own", expected="those of the transport")


class PlainMetadata(
    grpc.UnaryUnaryClientInterceptor, grpc.StreamUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor
):
    """On a channel: a reply with metadata of the coordinator's own is not handed on."""

    def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """One request, one reply."""
        call = continuation(details, request)
        demand_plain(call)
        return call

    def intercept_stream_unary(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
        """Many requests, one reply."""
        return self.intercept_unary_unary(continuation, details, requests)

    def intercept_unary_stream(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        """One request, many replies."""
        return _Stream(continuation(details, request))


class _Stream:
    """Replies one by one: metadata before them is checked first, that behind them at the end."""

    def __init__(self, call: Any) -> None:
        self._call, self._begun = call, False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        if not self._begun:
            self._begun = True
            if not is_plain(self._call.initial_metadata()):
                self._call.cancel()
                demand_plain(self._call)
        try:
            return next(self._call)
        except (StopIteration, grpc.RpcError):
            demand_plain(self._call)
            raise

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)
