"""Objects between two processes of this machine: small things by a pipe, large arrays by shared memory.

A packed object can be sent to several processes; they map the same memory. It is nobody's file, gone
when the last process that has it is, or a file that they are all given as it is.
"""

from __future__ import annotations

import mmap
import os
import pickle
from collections.abc import Iterator
from multiprocessing import reduction
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from fedfsd.ledger.disk import Mapped

_LARGE = 2**16  # bytes of an array; smaller ones go through the pipe
_ALIGN = 64


class Packed:
    """An object ready to be sent. What it has of a ``Mapped`` file goes as that file, without a copy."""

    def __init__(self, thing: object) -> None:
        large: list[memoryview] = []

        def through_the_pipe(one: pickle.PickleBuffer) -> bool:
            if one.raw().nbytes < _LARGE:
                return True
            large.append(one.raw())
            return False

        content = pickle.dumps(thing, 5, buffer_callback=through_the_pipe)
        files = [_file_of(one) for one in large]
        copied = [one for one, file in zip(large, files, strict=True) if file is None]
        self._mapped = list({id(file): file for file in files if file is not None}.values())
        self._copy = _filled(copied) if copied else None
        copies = _places([one.nbytes for one in copied])
        places = [
            (len(self._mapped), *next(copies))
            if file is None
            else (self._mapped.index(file), _address(one) - _address(memoryview(file)), one.nbytes)
            for one, file in zip(large, files, strict=True)
        ]
        self._message = content, places, len(self._mapped) + bool(copied)

    def send(self, pipe: Connection) -> None:
        """Raises OSError where nobody is at the other end."""
        pipe.send(self._message)
        for file in self._mapped:
            reduction.send_handle(pipe, file.descriptor, 0)
        if self._copy is not None:
            reduction.send_handle(pipe, self._copy, 0)

    def close(self) -> None:
        """Nothing more will be sent; whoever has received it keeps it."""
        self._mapped = []
        if self._copy is not None:
            os.close(self._copy)
            self._copy = None


def send(pipe: Connection, thing: object) -> None:
    """Send one object once. Raises OSError where nobody is at the other end."""
    packed = Packed(thing)
    try:
        packed.send(pipe)
    finally:
        packed.close()


def receive(pipe: Connection) -> Any:
    """The next object; its large arrays are mapped. EOFError or OSError where nobody is at the other end."""
    content, places, count = pipe.recv()
    memories = [_received(pipe) for _ in range(count)]
    parts = [memories[which][place : place + size] for which, place, size in places]
    return pickle.loads(content, buffers=parts)


def _received(pipe: Connection) -> memoryview:
    """Memory or a file of the other process, for reading alone: nobody changes what others have mapped."""
    descriptor = reduction.recv_handle(pipe)
    try:
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        return memoryview(mmap.mmap(descriptor, 0, flags=flags, prot=mmap.PROT_READ))
    finally:
        os.close(descriptor)


def _file_of(one: memoryview) -> Mapped | None:
    """The file that an array's bytes lie in."""
    owner: object = one
    while isinstance(owner, memoryview | np.ndarray):
        owner = owner.obj if isinstance(owner, memoryview) else owner.base
    return owner if isinstance(owner, Mapped) else None


def _address(one: memoryview) -> int:
    return np.frombuffer(one, np.uint8).ctypes.data


def _filled(arrays: list[memoryview]) -> int:
    """The descriptor of memory that holds ``arrays``."""
    memory = os.memfd_create("fedfsd", os.MFD_CLOEXEC)
    try:
        for (place, _), array in zip(_places([one.nbytes for one in arrays]), arrays, strict=True):
            written = 0
            while written < array.nbytes:
                written += os.pwrite(memory, array[written:], place + written)
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
