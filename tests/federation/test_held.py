"""Arrays that Flower's records hold: their mean is Flower's own, their way to another process is short."""

from __future__ import annotations

import os
import pickle
import threading
from multiprocessing import Pipe

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, MetricRecord, RecordDict
from flwr.common.serde import recorddict_from_proto, recorddict_to_proto
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfsd.federation import shared
from fedfsd.flower import held
from fedfsd.ledger.disk import Mapped, write_whole


def arrays(seed: int, dtype: str = "float32") -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes = {"large": (3, 50_000), "small": (7,), "one": (), "none": (0, 4)}
    return {name: np.asarray(random.normal(size=shape), dtype) for name, shape in shapes.items()}


def reply(record: ArrayRecord, weight: float) -> RecordDict:
    return RecordDict({"arrays": record, "metrics": MetricRecord({"w": weight})})


def bits(record: ArrayRecord) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    return {
        name: (str(one.numpy().dtype), one.numpy().shape, one.numpy().tobytes())
        for name, one in record.items()
    }


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@settings(max_examples=8, deadline=None)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=4))
def test_the_mean_is_flowers_to_the_last_bit(dtype, weights):
    theirs = [
        reply(ArrayRecord({name: Array(one) for name, one in arrays(seed, dtype).items()}), weight)
        for seed, weight in enumerate(weights)
    ]
    ours = [reply(held.record(arrays(seed, dtype)), weight) for seed, weight in enumerate(weights)]
    expected = bits(aggregate_arrayrecords(theirs, "w"))
    assert bits(held.weighted_mean(ours, "w")) == expected
    assert bits(held.weighted_mean(theirs, "w")) == expected


@pytest.mark.parametrize("scale", [1.0, 0.7])
def test_a_moved_model_is_what_its_sum_is(scale):
    base, update, number = arrays(1), arrays(2), np.float32(scale)
    moved = ArrayRecord()
    for name in base:
        moved[name] = held.Moved(base[name], update[name], number)
    plain = ArrayRecord({name: Array(np.asarray(base[name] + number * update[name])) for name in base})
    assert bits(moved) == bits(plain)
    others = [reply(moved, 2.0), reply(held.record(arrays(3)), 1.0)]
    expected = [reply(plain, 2.0), reply(held.record(arrays(3)), 1.0)]
    assert bits(held.weighted_mean(others, "w")) == bits(aggregate_arrayrecords(expected, "w"))


def test_flower_sends_a_held_array_as_any_other():
    record = held.record(arrays(4))
    sent = recorddict_from_proto(recorddict_to_proto(RecordDict({"arrays": record})))
    assert bits(sent.array_records["arrays"]) == bits(record)
    plain = Array(arrays(4)["small"])
    assert record["small"].data == plain.data
    assert record["small"].object_id == plain.object_id


def test_what_a_strategy_changes_is_its_own():
    record = held.record(arrays(5))
    record["small"].numpy()[:] = 0
    assert bits(record) == bits(held.record(arrays(5)))


def test_large_arrays_are_mapped_and_small_ones_sent():
    ours, theirs = Pipe()
    content = RecordDict({"arrays": held.record(arrays(6))})
    packed = shared.Packed(content)
    received = []
    for _ in range(2):  # the same memory, to several
        sender = threading.Thread(target=packed.send, args=(theirs,))
        sender.start()
        received.append(shared.receive(ours))
        sender.join()
    packed.close()
    assert len(pickle.dumps(content, 5)) > 600_000 > len(packed._message[0])
    for one in received:
        assert bits(one.array_records["arrays"]) == bits(content.array_records["arrays"])
        with pytest.raises(ValueError, match="read-only"):
            one.array_records["arrays"]["large"].whole()[0, 0] = 1


def test_what_lies_in_a_file_goes_as_the_file(tmp_path):
    first, second = (tmp_path / name for name in ("first", "second"))
    values = np.arange(200_000, dtype="<f4")
    for path, some in ((first, values), (second, -values)):
        write_whole(path, some.data.cast("B"))
    found = [np.frombuffer(Mapped(path), "<f4") for path in (first, second)]
    thing = [found[1][5:150_005], np.ones(50_000), found[0], found[1][150_000:], found[0][:7]]
    ours, theirs = Pipe()
    packed = shared.Packed(thing)
    first.unlink()
    sender = threading.Thread(target=packed.send, args=(theirs,))
    sender.start()
    received = shared.receive(ours)
    sender.join()
    assert [one.tolist() for one in received] == [one.tolist() for one in thing]
    assert os.fstat(packed._copy).st_size == 50_000 * 8
    packed.close()


def test_a_file_is_open_as_long_as_it_is_looked_at(tmp_path):
    write_whole(tmp_path / "file", b"seven")
    mapped = Mapped(tmp_path / "file")
    values, descriptor = np.frombuffer(mapped, np.uint8), mapped.descriptor
    del mapped
    os.fstat(descriptor)
    assert values.tobytes() == b"seven"
    del values
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    write_whole(tmp_path / "empty", b"")
    with pytest.raises(ValueError, match="empty"):
        Mapped(tmp_path / "empty")


def test_who_is_gone_is_noticed():
    ours, theirs = Pipe()
    theirs.close()
    with pytest.raises((EOFError, OSError)):
        shared.receive(ours)
    with pytest.raises(OSError, match="Broken pipe"):
        shared.send(ours, held.record(arrays(7)))
