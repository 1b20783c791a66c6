"""A Flower message as the content-addressed objects it travels in, with no copy more than needed.

A message is a tree: Message -> RecordDict -> records; an ArrayRecord -> Arrays -> chunks of up to 5 MB.
Flower's own helpers hold a model three times on the way in (all objects, joined chunks, the array) and
twice on the way out; here a chunk goes straight into the array it belongs to, and out one by one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, Metadata, MetricRecord, RecordDict
from flwr.app.message import make_message, remove_content_from_message
from flwr.common.serde import message_to_proto
from flwr.supercore.inflatable.inflatable_object import (
    InflatableObject,
    get_all_nested_objects,
    get_object_body,
    get_object_children_ids_from_object_content,
    get_object_tree,
    get_object_type_from_object_content,
    no_object_id_recompute,
)

from fedfsd.flower.flat import STYPE, Record

Get = Callable[[str], bytes]
"""An object's bytes by its id (hex SHA-256)."""

_SMALL: Mapping[str, Any] = {"ConfigRecord": ConfigRecord, "MetricRecord": MetricRecord}
_NPY_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


def unpack(message_id: str, get: Get) -> dict[str, Record]:
    """The records of the message ``message_id`` by name; the arrays of an ArrayRecord by name and in order.

    Raises:
        ValueError: an object that is not what Flower makes, or arrays that would need pickle.
        Whatever ``get`` raises.
    """
    content = get(message_id)
    get_object_body(content, Message)
    children = get_object_children_ids_from_object_content(content)
    if len(children) != 1:
        raise ValueError("a message without content")
    records = json.loads(get_object_body(get(children[0]), RecordDict))
    return {name: _record(get(record), get) for name, record in records.items()}


def _record(content: bytes, get: Get) -> Record:
    kind = get_object_type_from_object_content(content)
    if kind in _SMALL:
        small: ConfigRecord | MetricRecord = _SMALL[kind].inflate(content)
        return small
    arrays = json.loads(get_object_body(content, ArrayRecord))
    return {name: _array(get(array), get) for name, array in arrays.items()}


def _array(content: bytes, get: Get) -> np.ndarray:
    """One array, filled chunk by chunk."""
    children = get_object_children_ids_from_object_content(content)
    facts = json.loads(get_object_body(content, Array))
    chunks: Iterator[memoryview] = (_data(get(children[index])) for index in facts["arraychunk_ids"])
    first = next(chunks, None)
    if first is None or facts["stype"] not in (STYPE, "numpy.ndarray"):
        raise ValueError("an array of another serialization")
    header, fortran = BytesIO(first), False
    if facts["stype"] == STYPE:
        (size,) = facts["shape"]
        array = np.empty(size, np.uint8)
    else:
        shape, fortran, dtype = _NPY_HEADERS[np.lib.format.read_magic(header)](header)
        if dtype.hasobject:
            raise ValueError("an array of objects")
        array = np.empty(shape[::-1] if fortran else shape, dtype)
    room, filled = array.reshape(-1).view(np.uint8), 0
    for data in _chain(first[header.tell() :], chunks):
        part = np.frombuffer(data, np.uint8)
        if filled + part.size > room.size:
            raise ValueError("an array longer than its shape")
        room[filled : filled + part.size] = part
        filled += part.size
    if filled != room.size:
        raise ValueError("an array shorter than its shape")
    return array.T if fortran else array


def _chain(first: memoryview, rest: Iterator[memoryview]) -> Iterator[memoryview]:
    """One after another; itertools.chain would keep the first alive."""
    yield first
    del first
    yield from rest


def _data(content: bytes) -> memoryview:
    """What an ArrayChunk holds, without a copy."""
    if get_object_type_from_object_content(content[:200]) != "ArrayChunk":
        raise ValueError("a chunk of another type")
    return memoryview(content)[content.index(b"\0") + 1 :]


@dataclass(frozen=True)
class Parcel:
    """A message ready to go: its protobuf without content, the tree of its objects, the objects."""

    proto: Any
    tree: Any
    objects: Mapping[str, InflatableObject]

    def contents(self, wanted: set[str]) -> Iterator[tuple[str, bytes]]:
        """Id and bytes of each object in ``wanted``, children first, made one at a time."""
        with no_object_id_recompute():
            for name, each in self.objects.items():
                if name in wanted:
                    yield name, each.deflate()


def pack(metadata: Metadata, content: RecordDict | Error) -> Parcel:
    """Number the message and take it apart. The same metadata and content give the same id."""
    if isinstance(content, Error):
        message = make_message(metadata, error=content)
    else:
        message = make_message(metadata, content=content)
    with no_object_id_recompute():
        metadata.__dict__["_message_id"] = message.object_id
        tree, objects = get_object_tree(message), get_all_nested_objects(message)
    return Parcel(message_to_proto(remove_content_from_message(message)), tree, objects)
