"""A protobuf message taken apart: as the fields on the wire, and as the values of a parsed one."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message


def split(content: bytes) -> list[tuple[int, int, Any]]:
    """(number, wire type, value) of the fields of a well-formed message of numbers, bytes and messages."""
    at, fields = 0, []
    while at < len(content):
        head, at = _read(content, at)
        value, at = _read(content, at)
        if head & 7 == 2:
            value, at = content[at : at + value], at + value
        fields.append((head >> 3, head & 7, value))
    return fields


def whole(number: int, kind: int, value: Any) -> bytes:
    """One field as bytes: a number (0) or bytes with their length (2)."""
    return tag(number, kind) + (varint(value) if kind == 0 else varint(len(value)) + value)


def tag(number: int, kind: int) -> bytes:
    """A field's number and wire type."""
    return varint(number << 3 | kind)


def varint(value: int) -> bytes:
    """A number, seven bits a byte."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def _read(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value, at, shift = value | (byte & 127) << shift, at + 1, shift + 7
        if byte < 128:
            return value, at


def set_fields(message: Message) -> list[tuple[Message, FieldDescriptor]]:
    """Every field that is set, in the message and in those within."""
    found = []
    for field, value in message.ListFields():
        found.append((message, field))
        if field.message_type:
            for inner in value if field.is_repeated else [value]:
                found += set_fields(inner)
    return found


def places(message: Message) -> list[tuple[Message, FieldDescriptor, int | None]]:
    """Every single value: (message that holds it, field, index in a list)."""
    found: list[tuple[Message, FieldDescriptor, int | None]] = []
    for holder, field in set_fields(message):
        if field.message_type:
            continue
        if field.is_repeated:
            found += [(holder, field, index) for index in range(len(getattr(holder, field.name)))]
        else:
            found.append((holder, field, None))
    return found


def value_of(holder: Message, field: FieldDescriptor, index: int | None) -> Any:
    value = getattr(holder, field.name)
    return value if index is None else value[index]
