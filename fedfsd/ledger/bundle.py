"""What an auditor gets from a region: a ZIP archive that has one possible spelling (FORMAT.md, section 8).

Members are stored, not compressed, so nothing can unpack to more than the file's size. Sizes and names
follow from the manifest, the first member; the reader writes every header anew and compares, so that
not one byte can change unseen, and no general ZIP parser sees untrusted bytes.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Literal

from pydantic import Field, TypeAdapter

from fedfsd import formats
from fedfsd.ledger import strict
from fedfsd.ledger.entry import MAX_ENTRY, Hex32, Integer, LedgerId, Region
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.note import MAX_NOTE
from fedfsd.ledger.strict import Document

MANIFEST = "bundle.json"
ENTRIES = "entries.jsonl"
MAX_BUNDLE = 2**30
MAX_CHECKPOINTS = 60_000  # with the other two members within the 16-bit count of a ZIP archive
MAX_MANIFEST = 200 * MAX_CHECKPOINTS
_CHECKPOINT = re.compile(r"checkpoints/[0-9]{4}-[0-9]{10}\.note")
_CHUNK = 1 << 20
_VERSION, _MADE_BY, _DATE, _MODE = 20, 3 << 8 | 20, 0x21, 0o100600 << 16


class Member(Document):
    """One file of an archive."""

    bytes: Integer
    sha256: Hex32


class Manifest(Document):
    """The first member: whose ledger it is, and every other member."""

    format: Literal[1] = 1
    kind: Literal["fedfsd-bundle"] = "fedfsd-bundle"
    region: Region
    ledger: LedgerId
    size: Integer
    files: Annotated[dict[str, Member], Field(max_length=MAX_CHECKPOINTS + 1)]


@dataclass(frozen=True)
class Bundle:
    """An archive whose bytes are in order; what its entries say is not checked yet."""

    path: Path
    manifest: Manifest
    checkpoints: tuple[tuple[int, int, str], ...]
    """(epoch, size, note), ascending."""
    start: int

    def entries(self) -> Iterator[bytes]:
        """The entries' canonical bytes in order, read as they are asked for."""
        left = self.manifest.files[ENTRIES].bytes
        with self.path.open("rb") as file:
            file.seek(self.start)
            while left:
                line = file.readline(min(left, MAX_ENTRY + 1))
                if not line.endswith(b"\n"):
                    raise EvidenceError(ENTRIES, got="a line without end", expected="one entry a line")
                left -= len(line)
                yield line[:-1]


def write(
    path: Path,
    *,
    region: str,
    ledger: str,
    entries: Sequence[bytes],
    checkpoints: Iterable[tuple[int, int, str]],
) -> None:
    """Write a bundle of canonical ``entries`` and (epoch, size, note) ``checkpoints``, ascending.

    Of more checkpoints than an archive may have, the newest.
    """
    newest = list(checkpoints)[-MAX_CHECKPOINTS:]
    members = {f"checkpoints/{epoch:04}-{size:010}.note": note.encode() for epoch, size, note in newest}
    members[ENTRIES] = b"".join(content + b"\n" for content in entries)
    manifest = Manifest(
        region=region,
        ledger=ledger,
        size=len(entries),
        files={
            name: Member(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
            for name, content in members.items()
        },
    )
    directory = _Directory()
    with path.open("wb") as file:
        for name, content in {MANIFEST: strict.encode(manifest), **members}.items():
            file.write(directory.add(name, len(content), zlib.crc32(content)))
            file.write(content)
        file.write(directory.end())


def read(path: Path) -> Bundle:
    """Open a bundle and check that every byte of the archive is where the format wants it.

    Raises:
        FormatError: a newer release wrote it.
        EvidenceError: not readable, not a bundle, changed, or too large.
    """
    try:
        with path.open("rb") as file:
            return _read(path, file)
    except OSError as error:
        raise EvidenceError("bundle", got=error.strerror, expected="a file that can be read") from None


def _read(path: Path, file: IO[bytes]) -> Bundle:
    size = path.stat().st_size
    if size > MAX_BUNDLE:
        raise EvidenceError("bundle", got=f"{size} bytes", expected=f"at most {MAX_BUNDLE}")
    directory = _Directory()
    header = file.read(_LOCAL.size + len(MANIFEST))
    length = _LOCAL.unpack_from(header)[8] if len(header) >= _LOCAL.size else 0
    if not 0 < length <= MAX_MANIFEST:
        raise EvidenceError(
            "bundle", got="another file", expected=f"a ZIP archive that begins with {MANIFEST}"
        )
    content = file.read(length)
    strict.demand_shallow(content, MANIFEST)
    formats.demand_known("bundle", formats.peek(content), place=MANIFEST)
    _demand(header == directory.add(MANIFEST, length, zlib.crc32(content)), MANIFEST)
    manifest = _manifest(content)
    checkpoints, start = [], 0
    for name, member in sorted(manifest.files.items()):
        header = file.read(_LOCAL.size + len(name))
        start = file.tell()
        kept = b""
        crc, digest, left = 0, hashlib.sha256(), member.bytes
        while left:
            chunk = file.read(min(left, _CHUNK))
            if not chunk:
                raise EvidenceError(name, got="fewer bytes", expected=f"{member.bytes} bytes")
            crc, left = zlib.crc32(chunk, crc), left - len(chunk)
            digest.update(chunk)
            kept = kept + chunk if name != ENTRIES else b""
        _demand(digest.hexdigest() == member.sha256, name)
        _demand(header == directory.add(name, member.bytes, crc), name)
        if name != ENTRIES:
            checkpoints.append((int(name[12:16]), int(name[17:27]), _text(kept, name)))
    end = directory.end()
    _demand(file.read(len(end) + 1) == end, "the archive's directory")
    return Bundle(path, manifest, tuple(checkpoints), start)


def _manifest(content: bytes) -> Manifest:
    manifest = strict.read(_MANIFEST, content, place=MANIFEST, limit=MAX_MANIFEST)
    for name, member in manifest.files.items():
        if name != ENTRIES and (not _CHECKPOINT.fullmatch(name) or member.bytes > MAX_NOTE):
            raise EvidenceError(MANIFEST, got="another file", expected=f"{ENTRIES} and checkpoints only")
    _demand(ENTRIES in manifest.files, MANIFEST)
    return manifest


class _Directory:
    """The archive's headers, as they must be."""

    def __init__(self) -> None:
        self._records: list[bytes] = []
        self._offset = 0

    def add(self, name: str, size: int, crc: int) -> bytes:
        """The local header of the next member."""
        local = _LOCAL.pack(b"PK\x03\x04", _VERSION, 0, 0, 0, _DATE, crc, size, size, len(name), 0)
        self._records.append(
            _CENTRAL.pack(
                b"PK\x01\x02",
                _MADE_BY,
                _VERSION,
                0,
                0,
                0,
                _DATE,
                crc,
                size,
                size,
                len(name),
                0,
                0,
                0,
                0,
                _MODE,
                self._offset,
            )
            + name.encode()
        )
        self._offset += len(local) + len(name) + size
        return local + name.encode()

    def end(self) -> bytes:
        """What follows the last member."""
        records, count = b"".join(self._records), len(self._records)
        return records + _END.pack(b"PK\x05\x06", 0, 0, count, count, len(records), self._offset, 0)


# The layouts of the ZIP format, all little-endian: local header, directory record, end record.
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_MANIFEST = TypeAdapter(Manifest)


def _text(content: bytes, name: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise EvidenceError(name, got="other bytes", expected="UTF-8 text") from None


def _demand(holds: bool, place: str) -> None:
    if not holds:
        raise EvidenceError(place, got="changed bytes", expected="the bytes that the region wrote")
