"""Arrays in Flower's records without a serialization that nobody asked for.

Flower writes an array into bytes where it goes into a record, and reads it again for everybody who asks.
What stays in one process, or goes to another by shared memory, needs neither: a held array is written only
when its bytes are wanted, as where it goes through a SuperLink.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any

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
        self.dtype, self.shape, self.stype = str(array.dtype), tuple(array.shape), SType.NUMPY
        self.__dict__["held"] = array

    @cached_property
    def data(self) -> bytes:  # type: ignore[override]
        """As Flower writes it."""
        return Array(self.__dict__["held"]).data

    def numpy(self) -> np.ndarray:
        """A copy, as of any record's array."""
        return np.array(self.__dict__["held"])

    def __reduce_ex__(self, _: Any) -> tuple[Any, ...]:
        return _hold, (self.__dict__["held"],)


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
    return {name: _array(one) for name, one in record.items()}


def weighted_mean(records: list[RecordDict], weighting_metric_name: str) -> ArrayRecord:
    """Flower's ``aggregate_arrayrecords``: the same sums in the same order, bit for bit, block by block."""
    weights = [float(next(iter(one.metric_records.values()))[weighting_metric_name]) for one in records]  # type: ignore[arg-type]
    total = sum(weights)
    sums: dict[str, np.ndarray] = {}
    for one, weight in zip(records, weights, strict=True):
        for part in one.array_records.values():
            for name, array in arrays_of(part).items():
                if name in sums:
                    _add(sums[name], array, weight / total)
                else:
                    sums[name] = np.asarray(array * (weight / total))
    return record(sums)


def replace_mean() -> None:
    """Have Flower's strategies take their mean by ``weighted_mean``."""
    for module in (fedavg, multikrum):
        module.aggregate_arrayrecords = weighted_mean  # type: ignore[attr-defined]


def _array(one: Array) -> np.ndarray:
    found = one.__dict__.get("held")
    return one.numpy() if found is None else found


def _add(total: np.ndarray, array: np.ndarray, weight: float) -> None:
    if not (total.flags.c_contiguous and array.flags.c_contiguous and total.shape == array.shape):
        total += array * weight
        return
    flat, values = total.reshape(-1), array.reshape(-1)
    for start in range(0, flat.size, _BLOCK):
        flat[start : start + _BLOCK] += values[start : start + _BLOCK] * weight
