"""Objects between two processes of this machine: small things by a pipe, large arrays by shared memory.

A packed object can be sent to several processes; they map the same memory. That is nobody's file: it is gone
when the last process that has it is.
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Iterator
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

_LARGE = 2**16  # bytes of an array; smaller ones go through the pipe
_ALIGN = 64


class Packed:
    """An object ready to be sent."""

    def __init__(self, thing: object) -> None:
        large: list[memoryview] = []

        def through_the_pipe(one: pickle.PickleBuffer) -> bool:
            if one.raw().nbytes < _LARGE:
                return True
            large.append(one.raw())
            return False

        self._content = pickle.dumps(thing, 5, buffer_callback=through_the_pipe)
        self._sizes = [one.nbytes for one in large]
        self._memory = _filled(large) if large else None

    def send(self, pipe: Connection) -> None:
        """Raises OSError where nobody is at the other end."""
        pipe.send((self._content, self._sizes))
        if self._memory is not None:
            reduction.send_handle(pipe, self._memory, 0)

    def close(self) -> None:
        """Nothing more will be sent; whoever has received it keeps it."""
        if self._memory is not None:
            os.close(self._memory)
            self._memory = None


def send(pipe: Connection, thing: object) -> None:
    """Send one object once. Raises OSError where nobody is at the other end."""
    packed = Packed(thing)
    try:
        packed.send(pipe)
    finally:
        packed.close()


def receive(pipe: Connection) -> Any:
    """The next object; its large arrays are mapped. EOFError or OSError where nobody is at the other end."""
    content, sizes = pipe.recv()
    if not sizes:
        return pickle.loads(content)
    memory = reduction.recv_handle(pipe)
    try:
        # For reading alone: nobody changes what others have mapped.
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        mapped = memoryview(mmap.mmap(memory, _end(sizes), flags=flags, prot=mmap.PROT_READ))
    finally:
        os.close(memory)
    return pickle.loads(content, buffers=[mapped[place : place + size] for place, size in _places(sizes)])


def _filled(arrays: list[memoryview]) -> int:
    """The descriptor of memory that holds ``arrays``."""
    memory = os.memfd_create("fedfsd", os.MFD_CLOEXEC)
    try:
        for (place, _), array in zip(_places([one.nbytes for one in arrays]), arrays, strict=True):
            written = 0
            while written < array.nbytes:
                written += os.pwrite(memory, array[written:], place + written)
        os.truncate(memory, _end([one.nbytes for one in arrays]))
    except BaseException:
        os.close(memory)
        raise
    return memory


def _places(sizes: list[int]) -> Iterator[tuple[int, int]]:
    """Where each array begins, and its size."""
    place = 0
    for size in sizes:
        yield place, size
        place += -(-size // _ALIGN) * _ALIGN


def _end(sizes: list[int]) -> int:
    return sum(-(-size // _ALIGN) * _ALIGN for size in sizes)
