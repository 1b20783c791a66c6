"""SQLite's own file system layer with two listeners, so that a test knows what is written and what is synced.

The default VFS is copied and its ``xOpen`` replaced by one that replaces ``xWrite`` and ``xSync`` of the file
it opened. Needs SQLite as a shared library, as on most systems; ``available`` says whether it is.
"""

from __future__ import annotations

import _sqlite3
import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, POINTER, Structure, c_char_p, c_int, c_int64, c_void_p


class Vfs(Structure):
    """struct sqlite3_vfs, version 3."""


Vfs._fields_ = [
    *((name, c_int) for name in ("version", "file_size", "max_path")),
    ("next", POINTER(Vfs)),
    ("name", c_char_p),
    ("data", c_void_p),
    ("open", c_void_p),
    *((f"other{number}", c_void_p) for number in range(15)),
]


class Methods(Structure):
    """struct sqlite3_io_methods, version 3."""

    _fields_ = [
        ("version", c_int),
        *((name, c_void_p) for name in ("close", "read", "write", "truncate", "sync")),
        *((f"other{number}", c_void_p) for number in range(13)),
    ]


class File(Structure):
    """struct sqlite3_file."""

    _fields_ = [("methods", POINTER(Methods))]


Open = CFUNCTYPE(c_int, c_void_p, c_void_p, POINTER(File), c_int, POINTER(c_int))
Write = CFUNCTYPE(c_int, POINTER(File), c_void_p, c_int, c_int64)
Sync = CFUNCTYPE(c_int, POINTER(File), c_int)


def _library() -> ctypes.CDLL | None:
    for name in ("libsqlite3.so.0", _sqlite3.__file__):
        try:
            library = ctypes.CDLL(name)
            library.sqlite3_vfs_find.restype = POINTER(Vfs)
        except (OSError, AttributeError):
            continue
        return library
    return None


def available() -> bool:
    """Whether Python's SQLite can be listened to."""
    library = _library()
    return library is not None and bool(library.sqlite3_vfs_find(None))


@contextmanager
def listening(on_write: Callable[[str], None], on_sync: Callable[[str], None]) -> Iterator[None]:
    """Call ``on_write`` before each write and ``on_sync`` after each sync of a file that is opened within.

    ``on_sync`` comes too late to prevent the sync, ``on_write`` could: both get the file's path.
    """
    library = _library()
    usual = library.sqlite3_vfs_find(None)
    paths: dict[int, str] = {}
    keep: list[object] = []
    usual_open = Open(usual.contents.open)

    def opened(_: int, name: int | None, file: object, flags: int, out: object) -> int:
        # The name goes on as the pointer it is: SQLite keeps it.
        code = usual_open(ctypes.cast(usual, c_void_p), name, file, flags, out)
        if code or not name:
            return code
        address = ctypes.addressof(file.contents)
        methods = Methods()
        ctypes.memmove(ctypes.byref(methods), file.contents.methods, ctypes.sizeof(Methods))
        usual_write, usual_sync = Write(methods.write), Sync(methods.sync)
        paths[address] = ctypes.string_at(name).decode()

        def write(which: object, content: int, count: int, offset: int) -> int:
            on_write(paths[ctypes.addressof(which.contents)])
            return usual_write(which, content, count, offset)

        def sync(which: object, how: int) -> int:
            code = usual_sync(which, how)
            on_sync(paths[ctypes.addressof(which.contents)])
            return code

        callbacks = Write(write), Sync(sync)
        methods.write, methods.sync = (ctypes.cast(one, c_void_p) for one in callbacks)
        file.contents.methods = ctypes.pointer(methods)
        keep.extend((methods, callbacks))
        return code

    mine = Vfs()
    ctypes.memmove(ctypes.byref(mine), usual, ctypes.sizeof(Vfs))
    callback = Open(opened)
    mine.name, mine.open = b"listening", ctypes.cast(callback, c_void_p)
    library.sqlite3_vfs_register(ctypes.byref(mine), 1)
    try:
        yield
    finally:
        library.sqlite3_vfs_unregister(ctypes.byref(mine))
        library.sqlite3_vfs_register(usual, 1)
        LIVE.append((mine, callback, keep))


LIVE: list[object] = []
"""Connections opened within may be closed later: what they point to must live on."""
