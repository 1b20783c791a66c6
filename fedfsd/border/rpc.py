"""The services of border.proto, called and answered by its own description: no code is generated for them."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import grpc
from google.protobuf.message_factory import GetMessageClass

from fedfsd.border import border_pb2

BORDER, ENROLMENT = "Border", "Enrolment"


def stub(channel: grpc.Channel, service: str = BORDER) -> Any:
    """The calls of a service over ``channel``: an attribute for each, as border.proto names it.

    They are not registered with the channel: gRPC 1.81 crashes when one is closed while such a call begins.
    """
    calls = {
        method.name: getattr(channel, kind)(
            path, request_serializer=asked.SerializeToString, response_deserializer=answered.FromString
        )
        for method, path, kind, asked, answered in _methods(service)
    }
    return SimpleNamespace(**calls)


def add(server: grpc.Server, servicer: object, service: str = BORDER) -> None:
    """Answer the calls of a service by the methods of ``servicer``; one that it lacks is UNIMPLEMENTED."""
    handlers = {
        method.name: getattr(grpc, f"{kind}_rpc_method_handler")(
            getattr(servicer, method.name),
            request_deserializer=asked.FromString,
            response_serializer=answered.SerializeToString,
        )
        for method, _, kind, asked, answered in _methods(service)
        if hasattr(servicer, method.name)
    }
    name = border_pb2.DESCRIPTOR.services_by_name[service].full_name
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(name, handlers),))


def _methods(service: str) -> Iterator[tuple[Any, str, str, Any, Any]]:
    """(descriptor, path, gRPC's name for its kind, class of the request, of the answer) of each method."""
    described = border_pb2.DESCRIPTOR.services_by_name[service]
    for method in described.methods:
        asked = "stream" if method.client_streaming else "unary"
        answered = "stream" if method.server_streaming else "unary"
        path = f"/{described.full_name}/{method.name}"
        yield (
            method,
            path,
            f"{asked}_{answered}",
            GetMessageClass(method.input_type),
            GetMessageClass(method.output_type),
        )
