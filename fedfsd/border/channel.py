"""The connection between the two gates: mutual TLS, bounded messages, keepalive, health.

A region knows the coordinator by the federation's root and by the host name derived from its URI
(``identity.host_name``): the authority gives that name to no other certificate, and gRPC compares it with
the certificate's whatever address was dialled. The coordinator knows a region by its certificate's URI.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
from grpc_health.v1 import health_pb2

from fedfsd.border import identity
from fedfsd.border.doorkeeper import Doorkeeper, caller, refuse
from fedfsd.border.metadata import PlainMetadata
from fedfsd.border.wire import MAX_MESSAGE
from fedfsd.errors import NotReadyError
from fedfsd.service import address as addresses

__all__ = ["caller", "open_channel", "refuse", "serve"]

SERVICE = "fedfsd.border.v1.Border"
_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.max_send_message_length", MAX_MESSAGE),
    ("grpc.max_receive_message_length", MAX_MESSAGE),
    ("grpc.max_metadata_size", 4096),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_retries", 0),
    ("grpc.compression_enabled_algorithms_bitset", 1),  # identity alone: nothing here unpacks
]
_CLIENT: list[tuple[str, Any]] = [
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.min_reconnect_backoff_ms", 1000),
    ("grpc.max_reconnect_backoff_ms", 5000),
]
_SERVER: list[tuple[str, Any]] = [
    ("grpc.so_reuseport", 0),  # a second gate on one port is noticed
    ("grpc.max_concurrent_streams", 32),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
]


def open_channel(
    address: str,
    *,
    root: Path,
    key: Path | None,
    certificate: Path | None,
    expected_uri: str,
    proxy: str = "",
) -> grpc.Channel:
    """A channel to the party with ``expected_uri``; connects with the first call.

    Args:
        address: host:port.
        root: the federation's root certificate, PEM.
        key, certificate: this region's, PEM; None where it has none yet.
        proxy: an HTTP proxy that opens the connection; it sees the coordinator's address and TLS. The
            environment's proxies are never used.

    Raises:
        NotReadyError: a file cannot be read.
    """
    credentials = grpc.ssl_channel_credentials(
        _read(root),
        None if key is None else _read(key),
        None if certificate is None else _read(certificate),
    )
    name = [("grpc.ssl_target_name_override", identity.host_name(expected_uri))]
    way: list[tuple[str, Any]] = [("grpc.enable_http_proxy", int(bool(proxy))), ("grpc.http_proxy", proxy)]
    options = [*_OPTIONS, *_CLIENT, *name, *(way if proxy else way[:1])]
    channel = grpc.secure_channel(address, credentials, options=options)
    return grpc.intercept_channel(channel, PlainMetadata())


def serve(
    add: Callable[[grpc.Server], None],
    *,
    host: str,
    port: int,
    root: Path | None,
    key: Path,
    certificate: Path,
    revoked: Path | None = None,
    max_workers: int,
) -> tuple[grpc.Server, int]:
    """A started server and its port.

    With ``root``, callers are regions of the federation that ``certificate`` names, by certificates that
    ``root`` signed and ``revoked`` does not list; ``caller`` says which. Without, anybody over TLS.
    A new ``certificate`` in the same file is used from the next connection on.

    Args:
        add: puts the servicers on the server, such as ``rpc.add(server, mine)``.
        port: 0 for a free one.
        revoked: the list of revoked certificates; else ``revoked`` beside ``root``.

    Raises:
        NotReadyError: a file cannot be read, or the port is taken.
    """
    federation = identity.identify(identity.read(_read(certificate))).federation
    server = grpc.server(
        ThreadPoolExecutor(max_workers, thread_name_prefix="border"),
        interceptors=[
            Doorkeeper(None, None)
            if root is None
            else Doorkeeper(federation, revoked or root.with_name("revoked"))
        ],
        options=[*_OPTIONS, *_SERVER],
        maximum_concurrent_rpcs=4 * max_workers,
    )
    add(server)
    server.add_generic_rpc_handlers((_health(),))
    where = addresses.join(host, port)
    try:
        bound = server.add_secure_port(where, _credentials(root, key, certificate))
    except RuntimeError:
        raise NotReadyError(
            where,
            got="an address that is not available",
            expected="an address of this machine with a free port",
            hint="stop the process that listens there, or choose another port",
        ) from None
    server.start()
    return server, bound


def _credentials(root: Path | None, key: Path, certificate: Path) -> grpc.ServerCredentials:
    """The files, looked at again for each connection."""

    def configuration() -> grpc.ServerCertificateConfiguration:
        pair = (_read(key), _read(certificate))
        return grpc.ssl_server_certificate_configuration([pair], None if root is None else _read(root))

    seen = [certificate.stat().st_mtime_ns]

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        try:
            changed = certificate.stat().st_mtime_ns
            if changed == seen[0]:
                return None
            made, seen[0] = configuration(), changed
            return made
        except (OSError, NotReadyError):
            return None  # half of a renewal; the next connection sees the whole

    return grpc.dynamic_ssl_server_credentials(
        configuration(), fetch, require_client_authentication=root is not None
    )


def _health() -> grpc.GenericRpcHandler:
    """Standard health checks, without Watch: it would occupy a worker for as long as a caller likes."""

    def check(request: health_pb2.HealthCheckRequest, context: grpc.ServicerContext) -> Any:
        if request.service not in ("", SERVICE):
            refuse(context, grpc.StatusCode.NOT_FOUND, "health of an unknown service")
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)

    handler = grpc.unary_unary_rpc_method_handler(
        check, health_pb2.HealthCheckRequest.FromString, health_pb2.HealthCheckResponse.SerializeToString
    )
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise NotReadyError(
            path.name,
            got=error.strerror,
            expected="a PEM file",
            hint="fedfsd region doctor shows what is missing",
        ) from None
