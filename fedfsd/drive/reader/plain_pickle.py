"""Read a pickle as data: a small machine that builds values and can call nothing.

Python's own unpickler is not used. Opcodes are decoded by ``pickletools.genops`` (a parser) and
interpreted here; the five names that recordings need stand for constants of this module, not for
objects that can be called:

- ``numpy.core.multiarray._reconstruct`` (or ``numpy._core``), ``numpy.ndarray``, ``numpy.dtype``:
  together they describe an array, which is rebuilt by ``frombuffer`` from bytes of the file;
- ``collections.defaultdict`` with ``builtins.int``: becomes a plain dict.

Everything else is refused by name. Arrays take no memory that is not in the file.

Why not ``pickle.Unpickler`` with an allow-list of names, in a child process of limited memory and time?
There the allowed names are the real callables: ``ndarray(shape)`` and ``_reconstruct`` give uninitialised
memory, ``dtype`` gives objects, records and a ``__setstate__`` in C, and a key may be anything that has a
hash. To be as strict it needs stand-ins for every name, a copy of the result over a pipe in a format that
is not a pickle, and a process for each scene: hardly less code than the opcodes below, and more to trust.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from fedfsd.errors import DataError

RECONSTRUCT, NDARRAY, DTYPE, INT, DEFAULTDICT = (
    "_reconstruct",
    "ndarray",
    "dtype",
    "int",
    "defaultdict",
)
GLOBALS = {
    ("numpy.core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy._core.multiarray", "_reconstruct"): RECONSTRUCT,
    ("numpy", "ndarray"): NDARRAY,
    ("numpy", "dtype"): DTYPE,
    ("builtins", "int"): INT,
    ("collections", "defaultdict"): DEFAULTDICT,
}
# Plain numbers, truth values and fixed-size text; never objects or records.
DTYPE_CODE = re.compile(r"b1|[iu][1248]|f[248]|U\d{1,4}|S\d{1,4}")
# An opcode of one byte can make an object of a few hundred: this bounds the memory near 1 GB.
MAX_OPCODES = 5_000_000
VALUES = {
    *("NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY = {"EMPTY_DICT": dict, "EMPTY_LIST": list, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def load(data: bytes, path: Path) -> Any:
    """The value in ``data``: dict, list, tuple, set, str, bytes, numbers and numpy arrays.

    Raises:
        DataError: any other name, an opcode that could call or import, a damaged pickle.
    """
    machine = _Machine(path)
    try:
        for number, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if number > MAX_OPCODES:
                raise machine.refused(f"over {MAX_OPCODES} opcodes")
            if opcode.name == "STOP":
                return machine.only()
            machine.step(opcode.name, argument)
    except DataError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError):
        pass
    # genops has ended, or a step found the stack in a state no honest writer leaves it in.
    raise DataError(
        str(path), got="a damaged pickle", expected="a complete pickle", hint="fetch the file again"
    )


@dataclass(frozen=True)
class _Global:
    name: str


@dataclass
class _Dtype:
    """A dtype between its call and its state."""

    code: str


@dataclass
class _Array:
    """An array between its call and its state; ``slots`` are the memo keys that mean it."""

    slots: list[int] = field(default_factory=list)


_MARK = object()


class _Machine:
    """The stack and the memo of one pickle."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}

    def only(self) -> Any:
        """What is left at the end: exactly one finished value."""
        (value,) = self.stack
        return value

    def step(self, name: str, argument: Any) -> None:
        """Carry out one opcode."""
        if name in VALUES:
            self.stack.append(CONSTANTS.get(name, argument))
        elif name in EMPTY:
            self.stack.append(EMPTY[name]())
        elif name in TUPLES:
            items = [self.stack.pop() for _ in range(TUPLES[name])]
            self.stack.append(tuple(reversed(items)))
        elif name in ("PROTO", "FRAME"):
            pass
        elif name == "MARK":
            self.stack.append(_MARK)
        elif handler := getattr(self, f"_do_{name.lower()}", None):
            handler(argument)
        else:
            raise self.refused(f"opcode {name}")

    def _do_tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._marked()))

    def _do_append(self, _: Any) -> None:
        value = self.stack.pop()
        self._top(list).append(value)

    def _do_appends(self, _: Any) -> None:
        values = self._marked()
        self._top(list).extend(values)

    def _do_additems(self, _: Any) -> None:
        values = self._marked()
        self._top(set).update(self._key(value) for value in values)

    def _do_setitem(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._top(dict)[self._key(key)] = value

    def _do_setitems(self, _: Any) -> None:
        items = self._marked()
        target = self._top(dict)
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[self._key(key)] = value

    def _do_memoize(self, _: Any) -> None:
        self._put(len(self.memo))

    def _do_binput(self, slot: int) -> None:
        self._put(slot)

    _do_long_binput = _do_binput

    def _do_binget(self, slot: int) -> None:
        self.stack.append(self.memo[slot])

    _do_long_binget = _do_binget

    def _do_global(self, argument: str) -> None:
        module, _, name = argument.partition(" ")
        self._push_global(module, name)

    def _do_stack_global(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise self.refused("a global that is not named by text")
        self._push_global(module, name)

    def _do_reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        name = function.name if isinstance(function, _Global) else "something that is no name"
        if name == DTYPE and isinstance(arguments[0], str) and DTYPE_CODE.fullmatch(arguments[0]):
            self.stack.append(_Dtype(arguments[0]))
        elif name == RECONSTRUCT and arguments == (_Global(NDARRAY), (0,), b"b"):
            self.stack.append(_Array())
        elif name == DEFAULTDICT and arguments in ((), (_Global(INT),)):
            self.stack.append({})
        else:
            raise self.refused(f"a call of {name}")

    def _do_build(self, _: Any) -> None:
        state = self.stack.pop()
        target = self.stack[-1]
        if isinstance(target, _Dtype):
            # (version, byte order, None, None, None, item size, alignment, flags)
            if state[1] not in ("<", ">", "|", "=") or state[2:5] != (None, None, None):
                raise self.refused("a structured dtype")
            target.code = state[1] + target.code.lstrip("<>|=")
        elif isinstance(target, _Array):
            array = self._array(state)
            self.stack[-1] = array
            for slot in target.slots:
                self.memo[slot] = array
        else:
            raise self.refused("state for a value that has none")

    def _array(self, state: tuple[Any, ...]) -> np.ndarray:
        _, shape, dtype, fortran, raw = state
        if not (isinstance(dtype, _Dtype) and isinstance(raw, bytes)):
            raise self.refused("an array of objects")
        if not all(type(size) is int and size >= 0 for size in shape) or len(shape) > 4:
            raise self.refused("an array without a plain shape")
        return np.frombuffer(raw, np.dtype(dtype.code)).reshape(shape, order="F" if fortran else "C")

    def _push_global(self, module: str, name: str) -> None:
        known = GLOBALS.get((module, name))
        if known is None:
            # The name is the attack, not anybody's data: printable and short, it may be shown.
            raise self.refused(ascii(f"{module}.{name}"[:80]))
        self.stack.append(_Global(known))

    def _put(self, slot: int) -> None:
        value = self.stack[-1]
        if isinstance(value, _Array):
            value.slots.append(slot)
        self.memo[slot] = value

    def _marked(self) -> list[Any]:
        """The values above the last mark, which goes."""
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:
            start -= 1
            if start < 0:
                raise IndexError
        values = self.stack[start + 1 :]
        del self.stack[start:]
        return values

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise TypeError
        return self.stack[-1]

    def _key(self, value: Any) -> Any:
        """Only flat keys: the hash of a tuple nested a million deep would end the process."""
        if type(value) not in (str, int, float, bool, bytes, type(None)):
            raise self.refused("a key that is neither text nor number")
        return value

    def refused(self, what: str) -> DataError:
        """The error for what a recording has no need of."""
        return DataError(
            str(self.path),
            got=f"a pickle with {what}",
            expected="plain values and numpy arrays",
            hint="do not open this file with Python's pickle; ask its maker for plain data",
        )
