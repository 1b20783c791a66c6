"""Messages taken apart and put together without a SuperLink, and against Flower's own."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, Metadata, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedfsd.flower import flat, parcel

ARRAYS = {
    "w": np.arange(6, dtype=np.float32).reshape(2, 3),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float64).reshape(2, 3)),
    "empty": np.zeros((0, 3), np.float32),
    "scalar": np.array(7, np.float32),
    "large": np.random.default_rng(0).normal(size=3_000_000).astype(np.float32),
    "same": np.zeros(3_000_000, np.float32),
}
RECORDS = {
    "arrays": ARRAYS,
    "config": ConfigRecord({"plan": "a plan", "round": 3}),
    "metrics": MetricRecord({"loss": 0.5}),
}


def metadata() -> Metadata:
    """Always the same."""
    return Metadata(1, "", 2, 3, "", "1", 1.8e9, 60.0, "train")


def objects(content: RecordDict) -> tuple[str, dict[str, bytes]]:
    """A message's id and everything it is made of."""
    packed = parcel.pack(metadata(), content)
    made = dict(packed.contents(set(packed.objects)))
    assert all(len(each) <= 5 * 2**20 + 200 for each in made.values())
    return packed.tree.object_id, made


def check(records: flat.Records) -> None:
    """They are RECORDS."""
    assert list(records) == list(RECORDS)
    assert list(records["arrays"]) == list(ARRAYS)
    for name, array in records["arrays"].items():
        assert (array.dtype, array.shape) == (ARRAYS[name].dtype, ARRAYS[name].shape)
        np.testing.assert_array_equal(array, ARRAYS[name])
    assert dict(records["config"]) == {"plan": "a plan", "round": 3}
    assert dict(records["metrics"]) == {"loss": 0.5}


def test_flowers_own_form_there_and_back() -> None:
    name, made = objects(flat.plain(RECORDS))
    check(parcel.unpack(name, made.__getitem__))
    # Flower reads the same from it, and gives it the same id.
    message = inflate_object_from_contents(name, dict(made))
    check(flat.records_of(message.content))
    assert objects(flat.plain(RECORDS))[0] == name


@pytest.mark.parametrize("large", [True, False])
def test_the_flat_form_there_and_back(large: bool) -> None:
    records = RECORDS if large else {"arrays": {"w": ARRAYS["w"]}, "config": RECORDS["config"]}
    name, made = objects(flat.wrap(records))
    assert len(made) <= 9  # the message, its record, the array and its chunks
    back = flat.unwrap(parcel.unpack(name, made.__getitem__))
    if large:
        check(back)
    else:
        np.testing.assert_array_equal(back["arrays"]["w"], ARRAYS["w"])
        assert dict(back["config"]) == dict(records["config"])


def test_one_copy_is_enough() -> None:
    records = {"arrays": {"w": np.ones(10_000_000, np.float32)}, "config": ConfigRecord({})}
    one = records["arrays"]["w"].nbytes
    records["arrays"]["w"][:] = np.arange(10_000_000)
    tracemalloc.start()
    try:
        packed = parcel.pack(metadata(), flat.wrap(records))
        for _ in packed.contents(set(packed.objects)):
            pass
        out = tracemalloc.get_traced_memory()[1]
        made = dict(packed.contents(set(packed.objects)))
        del packed
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        # As a client has them: each object is made when it is asked for.
        name = next(key for key, value in made.items() if value.startswith(b"Message "))
        parcel.unpack(name, lambda key: bytes(bytearray(made[key])))
        back = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert out < 1.8 * one
    assert back < 1.8 * one


def hostile(**facts: object) -> dict[str, bytes]:
    """A message whose one array says something else than it holds."""
    name, made = objects(RecordDict({"arrays": ArrayRecord({"w": Array(ARRAYS["w"])})}))
    key = next(key for key, value in made.items() if value.startswith(b"Array "))
    head, _, body = made[key].partition(b"\0")
    made[key] = head + b"\0" + json.dumps(json.loads(body) | facts).encode()
    return {"": name.encode()} | made


@pytest.mark.parametrize(
    "made",
    [
        hostile(stype="pickle"),
        hostile(arraychunk_ids=[]),
        hostile(arraychunk_ids=[0, 0]),
        hostile(arraychunk_ids=[5]),
        hostile(arraychunk_ids="x"),
        hostile(stype=flat.STYPE, shape=[3]),
        hostile(stype=flat.STYPE, shape=["a"]),
    ],
)
def test_arrays_that_lie_are_refused(made: dict[str, bytes]) -> None:
    name = made.pop("").decode()
    with pytest.raises((ValueError, TypeError, IndexError)):
        parcel.unpack(name, made.__getitem__)


def test_an_array_of_objects_is_refused() -> None:
    code = (
        np.lib.format.magic(1, 0) + b"\x46\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    )
    record = ArrayRecord({"w": Array("object", (1,), "numpy.ndarray", code.ljust(80) + b"cos\nsystem\n")})
    name, made = objects(RecordDict({"arrays": record}))
    with pytest.raises(ValueError, match="objects"):
        parcel.unpack(name, made.__getitem__)


@pytest.mark.parametrize(
    "damage",
    [
        lambda blob: blob[:-1],
        lambda blob: blob + b"\0",
        lambda blob: b"\xff" * 8 + blob[8:],
        lambda blob: blob.replace(b"<f4", b"|O4"),
        lambda blob: blob.replace(b"arrays", b"arrayz"),
        lambda blob: b"",
        lambda blob: blob.replace(b"[2, 3]", b"[2,-3]"),
        lambda blob: blob.replace(b"[2, 3]", b"[9, 9]"),
    ],
)
def test_a_damaged_flat_message_is_refused(damage) -> None:  # type: ignore[no-untyped-def]
    blob = damage(flat.write({"arrays": {"w": ARRAYS["w"]}, "config": RECORDS["config"]}))
    with pytest.raises(ValueError, match="not a flat message"):
        flat.read(np.frombuffer(blob, np.uint8))
