"""The search "nothing raw crosses": known texts and coordinates, looked for in recorded bytes.

Spellings of a text: UTF-8, UTF-16 in both byte orders. Of coordinates: float16, bfloat16, float32, float64,
float32 widened to float64, in both byte orders, and as decimals. Each of these as it is, in hex of either
case and in base64 at its three alignments. And all that inside gzip, zlib, zip, bzip2, xz and, where
Python has it, zstd, inside one another, and inside base64 or hex runs.

A needle has at least 8 bytes, so N random bytes meet one of K needles by chance with a probability of about
N K / 2^64: for 100 MB and 5,000 needles 3 in 100 million. Hence float16 is looked for as four
coordinates in a row and float32 as two: give a canary at least four.
"""

from __future__ import annotations

import base64
import bz2
import lzma
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import numpy as np

LEAST = 8
"""Bytes of the shortest needle."""
_DEPTH = 4
_MOST = 2**28
"""Bytes that are unpacked from one content, at most: a bomb is no reason to stop a test."""
_PIECE = 2**12
"""Packed bytes taken at once: one of them may hold a thousand."""
_BLOCK = 2**20

Needles = Mapping[bytes, str]
"""From what is looked for to what it says about its find."""


def text(value: str, name: str | None = None) -> dict[bytes, str]:
    """The needles of a text. Letters and digits, 8 or more: others are escaped in too many ways."""
    if not value.isascii() or not value.isalnum() or len(value) < LEAST:
        raise ValueError(f"a canary is at least {LEAST} letters and digits")
    spelled = {encoding: value.encode(encoding) for encoding in ("utf-8", "utf-16-le", "utf-16-be")}
    return _wrapped(spelled.items(), name or value)


def numbers(values: Sequence[float], name: str) -> dict[bytes, str]:
    """The needles of coordinates that stand in a row: every 8 bytes of them, and each as a decimal."""
    row = np.asarray(values, "f8")
    if row.ndim != 1 or len(row) < 4 or not np.all(np.abs(row) <= np.finfo("f2").max):
        raise ValueError("a canary is at least four coordinates within float16")
    spelled = []
    for kind, array in _widths(row).items():
        count = LEAST // array.itemsize
        for order in "<>":
            ordered = array.astype(array.dtype.newbyteorder(order))
            for start in range(len(row) - count + 1):
                spelled.append((f"{kind}{order}", ordered[start : start + count].tobytes()))
    # A car that stands, or numbers of few digits: chance, and honest zeros, would meet them.
    spelled, whole = [one for one in spelled if len(set(one[1])) >= 4], len(spelled)
    if len(spelled) < whole / 2:
        raise ValueError("a canary's coordinates are irregular numbers, not 0, 1 or 2.5")
    decimals = {f"{value:.{digits}f}" for value in row for digits in range(1, 8)}
    spelled += [("decimal", one[:LEAST].encode()) for one in decimals if len(one) >= LEAST]
    return _wrapped(spelled, name)


def track(points: Sequence[Sequence[float]], name: str) -> dict[bytes, str]:
    """The needles of rows, (T, D): column by column, and value by value."""
    rows = np.asarray(points, "f8")
    found = numbers(rows.reshape(-1), f"{name} by row")
    for number, column in enumerate(rows.T):
        found |= numbers(column, f"{name} column {number}")
    return found


class Search:
    """All needles at once: one pass over the bytes, however many there are."""

    def __init__(self, needles: Needles) -> None:
        if any(len(needle) < LEAST for needle in needles):
            raise ValueError(f"a needle has at least {LEAST} bytes")
        self._first, self._second = np.zeros(2**16, bool), np.zeros(2**16, bool)
        self._names, self._by_start = dict(needles), {}
        for needle in needles:
            first, second = np.frombuffer(needle[:4], "<u2")
            self._first[first] = self._second[second] = True
            self._by_start.setdefault(needle[:4], []).append(needle)

    def __call__(self, content: bytes) -> list[str]:
        """What is found in ``content`` or in anything packed in it, each once."""
        found: dict[str, None] = {}
        left = _MOST
        todo = [(content, "", _DEPTH)]
        while todo:
            part, way, depth = todo.pop()
            found.update((f"{name}{way}", None) for name in self._plain(part))
            for how, inner in unpacked(part) if depth else ():
                left -= len(inner)
                if left > 0:
                    todo.append((inner, f"{way} in {how}", depth - 1))
        return list(found)

    def _plain(self, content: bytes) -> Iterator[str]:
        if len(content) < LEAST:
            return
        for start in (0, 1):
            pairs = np.frombuffer(content, "<u2", offset=start, count=(len(content) - start) // 2)
            for offset in range(0, len(pairs), _BLOCK):
                piece = pairs[offset : offset + _BLOCK + 1]
                maybe = np.flatnonzero(self._first[piece[:-1]])
                for index in maybe[self._second[piece[maybe + 1]]]:
                    at = start + 2 * (offset + int(index))
                    for needle in self._by_start.get(content[at : at + 4], ()):
                        if content.startswith(needle, at):
                            yield self._names[needle]


def unpacked(content: bytes) -> Iterator[tuple[str, bytes]]:
    """(format, content) of everything in ``content`` that can be unpacked, also in part."""
    view = memoryview(content)
    for name, magic, start, opened in _FORMATS:
        for match in re.finditer(magic, content, re.DOTALL):
            offset = start(content, match.start())
            inner = _pump(opened, view[offset:])
            if len(inner) >= LEAST:
                yield name, inner
    for match in re.finditer(rb"[A-Za-z0-9+/_-]{24,}", content):
        run = match[0].replace(b"-", b"+").replace(b"_", b"/")
        for shift in range(4):
            whole = run[shift : shift + (len(run) - shift) // 4 * 4]
            yield "base64", base64.b64decode(whole)
    for match in re.finditer(rb"[0-9a-fA-F]{24,}", content):
        for shift in range(2):
            whole = match[0][shift : shift + (len(match[0]) - shift) // 2 * 2]
            yield "hex", bytes.fromhex(whole.decode())


def fields(messages: Iterable[bytes]) -> Iterator[bytes]:
    """What serialized messages hold: each field's bytes or numbers, joined over all messages.

    So what is cut into chunks, or spread over numbers, stands in a row.
    """
    joined: dict[tuple[int, ...], bytearray] = {}
    for message in messages:
        _collect(memoryview(message), (), joined)
    for collected in joined.values():
        yield bytes(collected)


def _collect(message: memoryview, path: tuple[int, ...], joined: dict[tuple[int, ...], bytearray]) -> bool:
    """Whether ``message`` reads as one; its fields are then in ``joined``, those of submessages too."""
    at, read = 0, []
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if not tag >> 3 or at < 0:
            return False
        if kind == 0:
            value, at = _varint(message, at)
            content = (value % 2**64).to_bytes(8, "little")
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            content, at = bytes(message[at : at + size]), at + size
        elif kind == 2:
            size, at = _varint(message, at)
            content, at = message[at : at + size], at + size
        else:
            return False
        if not 0 <= at <= len(message):
            return False
        read.append(((*path, tag >> 3), kind, content))
    for where, kind, content in read:
        joined.setdefault(where, bytearray()).extend(content)
        if kind == 2 and len(path) < 8:
            _collect(content, where, joined)
    return True


def _varint(content: memoryview, at: int) -> tuple[int, int]:
    """A number and where it ends; (0, -1) where there is none."""
    value = 0
    for shift in range(0, 70, 7):
        if not 0 <= at < len(content):
            break
        byte = content[at]
        value, at = value | (byte & 127) << shift, at + 1
        if byte < 128:
            return value, at
    return 0, -(2**62)


def _widths(row: np.ndarray) -> dict[str, np.ndarray]:
    """The coordinates in every width; bfloat16 as the two bytes it has."""
    single = row.astype("f4")
    bits = single.view("u4")
    return {
        "float16": row.astype("f2"),
        "bfloat16": ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("u2"),
        "float32": single,
        "float64": row,
        "float32 as float64": single.astype("f8"),
    }


def _wrapped(spelled: Iterable[tuple[str, bytes]], name: str) -> dict[bytes, str]:
    """Every spelling as it is, in hex and in base64."""
    found = {}
    for kind, content in spelled:
        found[content] = f"{name} as {kind}"
        found[content.hex().encode()] = found[content.hex().upper().encode()] = f"{name} as {kind}, hex"
        for shift in range(3):
            coded = base64.b64encode(bytes(shift) + content)
            # Only the characters that the content alone determines.
            inner = coded[-(-8 * shift // 6) : (8 * (shift + len(content))) // 6]
            for one in (inner, inner.replace(b"+", b"-").replace(b"/", b"_")):
                found[one] = f"{name} as {kind}, base64"
    return found


def _zip_start(content: bytes, at: int) -> int:
    """Where the content of a member begins whose local header is at ``at``."""
    sizes = content[at + 26 : at + 30]
    return at + 30 + int.from_bytes(sizes[:2], "little") + int.from_bytes(sizes[2:], "little")


def _here(content: bytes, at: int) -> int:
    return at


def _pump(opened: Callable[[], object], packed: memoryview) -> bytes:
    """What can be unpacked up to the first error, piece by piece: a copy of the rest at each try is dear."""
    machine, out, size = opened(), [], 0
    try:
        for at in range(0, len(packed), _PIECE):
            out.append(machine.decompress(packed[at : at + _PIECE]))
            size += len(out[-1])
            if machine.eof or size > _MOST // 4:
                break
    except Exception:  # no such format after all, or an end of it
        pass
    return b"".join(out)


_FORMATS: list[tuple[str, bytes, Callable[[bytes, int], int], Callable[[], object]]] = [
    ("gzip", rb"\x1f\x8b\x08", _here, lambda: zlib.decompressobj(31)),
    ("zlib", rb"\x78[\x01\x5e\x9c\xda]", _here, zlib.decompressobj),
    ("zip", rb"PK\x03\x04.{4}\x08\x00", _zip_start, lambda: zlib.decompressobj(-15)),
    ("bzip2", rb"BZh[1-9]1AY&SY", _here, bz2.BZ2Decompressor),
    ("xz", rb"\xfd7zXZ\x00", _here, lzma.LZMADecompressor),
]
try:  # Python 3.14
    from compression import zstd

    _FORMATS.append(("zstd", rb"\x28\xb5\x2f\xfd", _here, zstd.ZstdDecompressor))
except ImportError:
    pass
