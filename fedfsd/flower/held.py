"""Arrays in Flower's records without a serialization that nobody asked for.

Flower writes an array into bytes where it goes into a record, and reads it again for everybody who asks.
What stays in one process, or goes to another by shared memory, needs neither: a held array is written only
when its bytes are wanted, as where it goes through a SuperLink.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, cast

import numpy as np
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.common.constant import SType
from flwr.serverapp.strategy import fedavg, multikrum

_BLOCK = 2**15
"""Elements that are added up at a time: what is between two additions stays in the processor's cache."""


class Held(Array):
    """An array of a record that is numpy's still. Nobody may change it afterwards."""

    __qualname__ = "Array"  # by this name Flower's objects say what they are

    def __init__(self, array: np.ndarray) -> None:
        # Past Flower's own setter, which looks after hashes that there are none of yet.
        self.__dict__.update(dtype=array.dtype.name, shape=array.shape, stype=SType.NUMPY, held=array)

    @cached_property
    def data(self) -> bytes:  # type: ignore[override]
        """As Flower writes it."""
        return Array(self.whole()).data

    def numpy(self) -> np.ndarray:
        """A copy, as of any record's array."""
        return np.array(self.whole())

    def whole(self) -> np.ndarray:
        """The array itself."""
        held: np.ndarray = self.__dict__["held"]
        return held

    def part(self, some: slice) -> np.ndarray:
        """Some of its elements, in order."""
        return self.whole().reshape(-1)[some]

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return _hold, (self.whole(),)


class Moved(Held):
    """``base`` moved by ``scale`` times ``update``: made where it is wanted, block by block for a mean."""

    __qualname__ = "Array"

    def __init__(self, base: np.ndarray, update: np.ndarray, scale: np.float32) -> None:
        super().__init__(base)
        self.__dict__["move"] = update, scale

    def whole(self) -> np.ndarray:
        """The array, made anew each time."""
        return self.part(slice(None)).reshape(self.shape)

    def part(self, some: slice) -> np.ndarray:
        """Some of its elements, in order."""
        update, scale = self.__dict__["move"]
        move = update.reshape(-1)[some]
        moved: np.ndarray = super().whole().reshape(-1)[some] + (move if scale == 1 else scale * move)
        return moved


def _hold(array: np.ndarray) -> Held:
    return Held(array)


def record(arrays: Mapping[str, np.ndarray]) -> ArrayRecord:
    """A record that holds ``arrays``."""
    made = ArrayRecord()
    for name, array in arrays.items():
        made[name] = Held(array)  # the constructor would copy its bytes
    return made


def arrays_of(record: ArrayRecord) -> dict[str, np.ndarray]:
    """The arrays of any record by name; those that it holds are not copied and must not be changed."""
    return {name: _held(one).whole() for name, one in record.items()}


def weighted_mean(records: list[RecordDict], weighting_metric_name: str) -> ArrayRecord:
    """Flower's ``aggregate_arrayrecords``: the same sums in the same order, bit for bit, block by block."""
    found = (next(iter(one.metric_records.values()))[weighting_metric_name] for one in records)
    weights = [cast(float, weight) for weight in found]
    total = sum(weights)
    terms: dict[str, list[tuple[Held, float]]] = {}
    for one, weight in zip(records, weights, strict=True):
        for part in one.array_records.values():
            for name, array in part.items():
                terms.setdefault(name, []).append((_held(array), weight / total))
    return record({name: _sum(each) for name, each in terms.items()})


def replace_mean() -> None:
    """Have Flower's strategies take their mean by ``weighted_mean``."""
    for module in (fedavg, multikrum):
        module.aggregate_arrayrecords = weighted_mean  # type: ignore[attr-defined]


def _held(one: Array) -> Held:
    return one if isinstance(one, Held) else Held(one.numpy())


def _sum(terms: list[tuple[Held, float]]) -> np.ndarray:
    """All arrays times their weights, added up in order."""
    (first, weight), *others = terms
    made = np.empty(first.shape, (first.part(slice(1)) * weight).dtype)
    flat = made.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        some = slice(start, start + _BLOCK)
        block = np.multiply(first.part(some), weight, out=flat[some])
        for array, factor in others:
            block += array.part(some) * factor
    return made
