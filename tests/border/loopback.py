"""The border without sockets: real stubs, real servicers, and between them the bytes, to be changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

import grpc

from fedfsd.border import rpc

Tap = Callable[[str, bytes], bytes]
"""(method, content) to the content that arrives."""


class Status(grpc.RpcError):
    """A call that ended with a status."""

    def __init__(self, code: grpc.StatusCode, details: str = "") -> None:
        super().__init__(code)
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


class Malformed(Status):
    """Bytes that are no message: gRPC itself ends such a call."""

    def __init__(self) -> None:
        super().__init__(grpc.StatusCode.INTERNAL, "Exception deserializing!")


class Context:
    """A call as a servicer sees it; ``region`` is who calls."""

    def __init__(self, region: str, timeout: float | None = None) -> None:
        self.region, self._timeout = region, timeout

    def abort(self, code: grpc.StatusCode, details: str) -> None:
        raise Status(code, details)

    def time_remaining(self) -> float | None:
        return self._timeout

    def is_active(self) -> bool:
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return True

    def cancel(self) -> bool:
        return True

    def peer(self) -> str:
        return f"memory:{self.region}"


class Server:
    """A servicer behind its bytes: what gRPC would hand it and take from it."""

    def __init__(self, servicer: object) -> None:
        rpc.add(self, servicer)

    def add_generic_rpc_handlers(self, handlers: Iterable[grpc.GenericRpcHandler]) -> None:
        (self._service,) = handlers

    def call(self, method: str, requests: Iterable[bytes], context: Context) -> Iterator[bytes]:
        """The replies to ``requests``. Status where the call ends with one; any other error is a crash."""
        handler = self._service.service(SimpleNamespace(method=method))
        parsed = _parsed(requests, handler.request_deserializer)
        request = parsed if handler.request_streaming else next(parsed)
        if handler.request_streaming:
            replies: Iterable[Any] = [handler.stream_unary(request, context)]
        elif handler.response_streaming:
            replies = handler.unary_stream(request, context)
        else:
            replies = [handler.unary_unary(request, context)]
        for reply in replies:
            yield handler.response_serializer(reply)


class Loopback(grpc.Channel):
    """A channel whose ``answer(method, requests, timeout)`` gives the replies, all as bytes."""

    def __init__(self, answer: Callable[[str, Iterable[bytes], float | None], Iterator[bytes]]) -> None:
        self._answer = answer

    def _multi(self, method: str, serialize: Any, deserialize: Any, *, many: bool, stream: bool) -> Any:
        def call(request: Any, timeout: float | None = None) -> Any:
            requests = map(serialize, request) if many else iter([serialize(request)])
            replies = _parsed(self._answer(method, requests, timeout), deserialize)
            return _Stream(replies) if stream else next(replies)

        return call

    def unary_unary(
        self, method, request_serializer=None, response_deserializer=None, _registered_method=False
    ):
        return self._multi(method, request_serializer, response_deserializer, many=False, stream=False)

    def unary_stream(
        self, method, request_serializer=None, response_deserializer=None, _registered_method=False
    ):
        return self._multi(method, request_serializer, response_deserializer, many=False, stream=True)

    def stream_unary(
        self, method, request_serializer=None, response_deserializer=None, _registered_method=False
    ):
        return self._multi(method, request_serializer, response_deserializer, many=True, stream=False)

    def stream_stream(
        self, method, request_serializer=None, response_deserializer=None, _registered_method=False
    ):
        raise NotImplementedError

    def subscribe(self, callback, try_to_connect=False):
        pass

    def unsubscribe(self, callback):
        pass

    def close(self) -> None:
        pass

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return None


def connect(server: Server, region: str, *, sent: Tap, received: Tap) -> Loopback:
    """A channel of ``region`` to ``server``; the taps see every message that it sends and receives."""

    def answer(method: str, requests: Iterable[bytes], timeout: float | None) -> Iterator[bytes]:
        tapped = (sent(method, content) for content in requests)
        for reply in server.call(method, tapped, Context(region, timeout)):
            yield received(method, reply)

    return Loopback(answer)


class _Stream:
    """Replies one by one, and the word to stop."""

    def __init__(self, replies: Iterator[Any]) -> None:
        self._replies = replies

    def __iter__(self) -> Iterator[Any]:
        return self._replies

    def cancel(self) -> None:
        pass


def _parsed(contents: Iterable[bytes], deserialize: Callable[[bytes], Any]) -> Iterator[Any]:
    """gRPC ends a call whose bytes are no message."""
    for content in contents:
        try:
            message = deserialize(content)
        except Exception:
            raise Malformed from None
        yield message
