"""All records of a message as one object: what costs time at a SuperLink is objects, not bytes.

Each object is asked for and stored by a request of its own, about 5 ms each; a model of twenty arrays is
forty objects for every region and way. Here a message's records are one byte string: eight bytes of length,
a JSON header, then every array at a multiple of 64 bytes.

>>> blob = write({"arrays": {"w": np.float32([1, 2])}, "config": ConfigRecord({"round": 3})})
>>> records = read(np.frombuffer(blob, np.uint8))
>>> records["arrays"]["w"], records["config"]["round"]
(array([1., 2.], dtype=float32), 3)
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from fedfsd.flower import held

Record = dict[str, np.ndarray] | ConfigRecord | MetricRecord
Records = Mapping[str, Mapping[str, np.ndarray] | ConfigRecord | MetricRecord]

FLAT = "flat"
STYPE = "fedfsd.flat"
"""Flower's mark of a serialization; it treats the bytes of an unknown one as bytes."""
# From here on in chunks; below, one object holds everything.
_LARGE = 2**20
_ALIGN = 64
_LENGTH = struct.Struct("<Q")
_SMALL = {"config": ConfigRecord, "metrics": MetricRecord}


def wrap(records: Records) -> RecordDict:
    """The records as Flower carries them. Holds one copy of the arrays."""
    blob = write(records)
    if len(blob) < _LARGE:
        return RecordDict({FLAT: ConfigRecord({FLAT: blob})})
    return RecordDict({FLAT: ArrayRecord({FLAT: Array("uint8", (len(blob),), STYPE, blob)})})


def unwrap(records: Records) -> Records | None:
    """What ``wrap`` was given, or None for records that were not wrapped. ValueError for damaged ones."""
    inner = records.get(FLAT)
    if len(records) != 1 or inner is None or list(inner) != [FLAT]:
        return None
    blob = inner[FLAT]
    return read(np.frombuffer(blob, np.uint8) if isinstance(blob, bytes) else np.asarray(blob))


def plain(records: Records) -> RecordDict:
    """The records as Flower's own types."""
    return RecordDict(
        {
            name: record if isinstance(record, ConfigRecord | MetricRecord) else held.record(record)
            for name, record in records.items()
        }
    )


def records_of(content: RecordDict) -> Records:
    """Flower's types as records, the arrays as numpy's."""
    return {
        name: held.arrays_of(record) if isinstance(record, ArrayRecord) else record
        for name, record in content.items()
    }


def write(records: Records) -> bytes:
    """One byte string. TypeError for a value that JSON cannot represent (bytes).

    Arrays are looked up twice, one at a time: a mapping that reads them from a file needs memory for one.
    """
    facts: dict[str, Any] = {}
    for name, record in records.items():
        if isinstance(record, ConfigRecord | MetricRecord):
            kind = "config" if isinstance(record, ConfigRecord) else "metrics"
            facts[name] = [kind, dict(record)]
        else:
            facts[name] = ["arrays", [[key, each.dtype.str, each.shape] for key, each in record.items()]]
    header = json.dumps(facts).encode()
    made = BytesIO()  # its value is its buffer, not a copy
    made.write(_LENGTH.pack(len(header)) + header)
    for record in records.values():
        if not isinstance(record, ConfigRecord | MetricRecord):
            for array in record.values():
                made.write(bytes(-made.tell() % _ALIGN))
                made.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
    return made.getvalue()


def read(blob: np.ndarray) -> dict[str, Record]:
    """The records; their arrays are views of ``blob`` (uint8).

    Raises:
        ValueError: not what ``write`` makes.
    """
    try:
        (length,) = _LENGTH.unpack(blob[: _LENGTH.size].tobytes())
        place = _LENGTH.size + length
        facts = json.loads(blob[_LENGTH.size : place].tobytes())
        records: dict[str, Record] = {}
        for name, (kind, body) in facts.items():
            if kind != "arrays":
                records[name] = _SMALL[kind](body)
                continue
            arrays = records[name] = {}
            for key, code, shape in body:
                dtype = np.dtype(code)
                if dtype.kind not in "fiub":
                    raise ValueError("an array of something else than numbers")
                place = -(-place // _ALIGN) * _ALIGN
                end = place + dtype.itemsize * int(np.prod(shape, dtype=np.int64))
                arrays[key] = blob[place:end].view(dtype).reshape(shape)
                place = end
        if place != blob.size:
            raise ValueError("bytes that belong to nothing")
        return records
    except (struct.error, ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise ValueError(f"not a flat message: {type(error).__name__}") from None
