"""The test sink: what crosses the border in plaintext, inside TLS, recorded by both ends.

A program under test has no switch for it. In this process ``installed(folder)`` wraps what gRPC is opened
with; ``environment(folder)`` makes any Python child, and its children, do the same: their PYTHONPATH begins
with ``site``, whose sitecustomize wraps gRPC when it is imported. Each process appends to a file of its own,
each record at once, so that what a killed process sent is there too.

Recorded at each end, for every method but Flower's own: each message as serialized bytes, metadata in all
four places, status code and details, an exception that gRPC would turn into details.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
from border.recording import Record, Recorder, read, streams

__all__ = ["Record", "Recorder", "environment", "installed", "read", "streams", "wrap"]

FOLDER = "FEDFSD_BORDER_RECORD"
SITE = Path(__file__).parent / "site"
_KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")


@contextmanager
def installed(folder: Path) -> Iterator[Recorder]:
    """Every gRPC channel and server that is made within records in ``folder``."""
    recorder = Recorder(folder)
    channels = {name: getattr(grpc, name) for name in ("secure_channel", "insecure_channel")}
    server = grpc.server
    try:
        wrap(recorder)
        yield recorder
    finally:
        grpc.server = server
        for name, function in channels.items():
            setattr(grpc, name, function)
        recorder.close()


def environment(folder: Path, env: Mapping[str, str] = os.environ) -> dict[str, str]:
    """``env`` for a child process that records in ``folder``, which any user may write to."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o1777)
    path = [str(SITE), str(SITE.parents[1]), *filter(None, [env.get("PYTHONPATH")])]
    return {**env, FOLDER: str(folder), "PYTHONPATH": os.pathsep.join(path)}


def wrap(recorder: Recorder) -> None:
    """Have gRPC's own ways to make channels and servers record."""
    for name in ("secure_channel", "insecure_channel"):
        setattr(grpc, name, _opening(getattr(grpc, name), recorder))
    plain = grpc.server

    def server(
        pool: Any, handlers: Any = None, interceptors: Any = None, *args: Any, **kwargs: Any
    ) -> grpc.Server:
        # The first interceptor is the outermost: it sees what the others answer.
        return plain(pool, handlers, (_Serving(recorder), *(interceptors or ())), *args, **kwargs)

    grpc.server = server


def _opening(plain: Callable[..., grpc.Channel], recorder: Recorder) -> Callable[..., grpc.Channel]:
    def opened(*args: Any, **kwargs: Any) -> grpc.Channel:
        return _Channel(plain(*args, **kwargs), recorder)

    return opened


class _Channel(grpc.Channel):
    """A channel whose calls are recorded below every interceptor."""

    def __init__(self, channel: grpc.Channel, recorder: Recorder) -> None:
        self._channel, self._recorder = channel, recorder

    def _callable(self, kind: str, method: str, serialize: Any, deserialize: Any, **options: Any) -> Any:
        return _Calling(self._channel, self._recorder, kind, method, serialize, deserialize, options)

    def unary_unary(
        self, method: str, request_serializer=None, response_deserializer=None, _registered_method=False
    ):
        return self._callable("unary_unary", method, request_serializer, response_deserializer)

    def unary_stream(
        self, method: str, request_serializer=None, response_deserializer=None, _registered_method=False
    ):
        return self._callable("unary_stream", method, request_serializer, response_deserializer)

    def stream_unary(
        self, method: str, request_serializer=None, response_deserializer=None, _registered_method=False
    ):
        return self._callable("stream_unary", method, request_serializer, response_deserializer)

    def stream_stream(
        self, method: str, request_serializer=None, response_deserializer=None, _registered_method=False
    ):
        return self._callable("stream_stream", method, request_serializer, response_deserializer)

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:
        self._channel.subscribe(callback, try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> _Channel:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Calling:
    """One method of a channel; each call gets serializers of its own, which write its records."""

    def __init__(
        self,
        channel: grpc.Channel,
        recorder: Recorder,
        kind: str,
        method: str,
        serialize: Any,
        deserialize: Any,
        options: Mapping[str, Any],
    ) -> None:
        self._channel, self._recorder, self._options = channel, recorder, options
        self._kind, self._method, self._serialize, self._deserialize = kind, method, serialize, deserialize

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._kind.endswith("stream"):
            return self._start("__call__", args, kwargs)
        return self.with_call(*args, **kwargs)[0]

    def with_call(self, *args: Any, **kwargs: Any) -> Any:
        write = self._write(kwargs)
        try:
            reply, call = self._made(write).with_call(*args, **kwargs)
        except grpc.RpcError as error:
            _ended(write, error)
            raise
        _ended(write, call)
        return reply, call

    def future(self, *args: Any, **kwargs: Any) -> Any:
        return self._start("future", args, kwargs)

    def _start(self, name: str, args: Any, kwargs: Any) -> Any:
        write = self._write(kwargs)
        call = getattr(self._made(write), name)(*args, **kwargs)
        if not call.add_callback(lambda: _ended(write, call)):
            _ended(write, call)
        return call

    def _write(self, kwargs: Mapping[str, Any]) -> Callable[[str, bytes], None]:
        write = self._recorder.call("client", self._method) or _nothing
        write("metadata", _text(kwargs.get("metadata")))
        return write

    def _made(self, write: Callable[[str, bytes], None]) -> Any:
        make = getattr(self._channel, self._kind)
        return make(
            self._method,
            _told(write, "request", self._serialize),
            _heard(write, "reply", self._deserialize),
            **self._options,
        )


class _Serving(grpc.ServerInterceptor):
    """On a server: the records of every call, behind all other interceptors."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        handler = continuation(details)
        write = self._recorder.call("server", details.method)
        if write is None:
            return handler
        write("metadata", _text(details.invocation_metadata))
        if handler is None:
            return None
        kind = _KINDS[2 * handler.request_streaming + handler.response_streaming]
        return getattr(grpc, f"{kind}_rpc_method_handler")(
            _behaviour(getattr(handler, kind), write, streaming=handler.response_streaming),
            _heard(write, "request", handler.request_deserializer),
            _told(write, "reply", handler.response_serializer),
        )


def _behaviour(behaviour: Any, write: Callable[[str, bytes], None], *, streaming: bool) -> Any:
    def single(request: Any, context: Any) -> Any:
        try:
            return behaviour(request, _Context(context, write))
        except Exception as error:
            write("status", str(error).encode())  # gRPC would send it
            raise

    def stream(request: Any, context: Any) -> Iterator[Any]:
        try:
            yield from behaviour(request, _Context(context, write))
        except Exception as error:
            write("status", str(error).encode())
            raise

    return stream if streaming else single


class _Context:
    """A call's context; what is said beside the messages is recorded."""

    _SAID = (
        "abort",
        "abort_with_status",
        "set_code",
        "set_details",
        "send_initial_metadata",
        "set_trailing_metadata",
    )

    def __init__(self, context: Any, write: Callable[[str, bytes], None]) -> None:
        self._context, self._write = context, write

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._context, name)
        if name not in self._SAID:
            return value

        def said(*args: Any, **kwargs: Any) -> Any:
            for content in (*args, *kwargs.values()):
                self._write("metadata" if "metadata" in name else "status", _text(content))
            return value(*args, **kwargs)

        return said


def _told(write: Callable[[str, bytes], None], kind: str, serialize: Any) -> Any:
    def told(message: Any) -> bytes:
        content = serialize(message) if serialize else message
        write(kind, content)
        return content

    return told


def _heard(write: Callable[[str, bytes], None], kind: str, deserialize: Any) -> Any:
    def heard(content: bytes) -> Any:
        write(kind, content)
        return deserialize(content) if deserialize else content

    return heard


def _ended(write: Callable[[str, bytes], None], call: Any) -> None:
    """What the other end said beside its messages."""
    write("metadata", _text(call.initial_metadata()))
    write("metadata", _text(call.trailing_metadata()))
    write("status", _text(call.code()) + b" " + _text(call.details()))


def _nothing(kind: str, content: bytes) -> None:
    """For calls that are not recorded."""


def _text(value: Any) -> bytes:
    """Metadata or a word of the status as bytes in which a search finds what they hold."""
    if isinstance(value, bytes):
        return value
    if isinstance(value, str) or value is None:
        return (value or "").encode("utf-8", "surrogateescape")
    if isinstance(value, grpc.StatusCode):
        return value.name.encode()
    if isinstance(value, tuple | list):
        return b"\n".join(map(_text, value))
    if hasattr(value, "details"):
        return b"\n".join(map(_text, (value.code, value.details, value.trailing_metadata)))
    return str(value).encode("utf-8", "surrogateescape")
