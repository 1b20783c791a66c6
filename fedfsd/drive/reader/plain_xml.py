"""XML without its dangers: no document type, so no entities, no external files, no expansion."""

from __future__ import annotations

from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError, XMLPullParser
from xml.parsers import expat

from fedfsd.drive.reader.drive import damaged, too_large
from fedfsd.drive.reader.spool import opened
from fedfsd.errors import DataError

# Bytes from one wanted element to the next at most; bytes that are read at once.
MAX_BYTES, CHUNK = 64 * 2**20, 2**14


def elements(path: Path, tags: Container[str]) -> Iterator[Element]:
    """The document's root element, without children; then each element of some tags, emptied afterwards.

    Every byte is seen by a parser that only refuses document types before it is seen by the one that builds
    elements: the latter is several times faster than one that does both.

    Raises:
        DataError: a document type declaration, not well-formed (cut short, for example), or too large to be
            held.
    """
    guard = expat.ParserCreate()
    pull: Any = XMLPullParser(("end",))
    guard.StartDoctypeDeclHandler = lambda *_: _refuse(path)
    roots: list[Element] = []

    def start(tag: str, attributes: dict[str, str]) -> None:
        roots.append(Element(tag, attributes))
        guard.StartElementHandler = None

    guard.StartElementHandler = start
    size, data = 0, b"x"
    try:
        with opened(path) as take:
            while data:
                data = take(CHUNK)
                guard.Parse(data, not data)
                yield from roots
                roots.clear()
                pull.feed(data) if data else pull.close()
                size += len(data)
                if size > MAX_BYTES:
                    raise too_large(path, f"more than {MAX_BYTES} bytes without a track", MAX_BYTES)
                for _, element in pull.read_events():
                    if element.tag in tags:
                        size = 0
                        yield element
                        element.clear()
    except (ParseError, expat.ExpatError) as error:
        line = error.position[0] if isinstance(error, ParseError) else error.lineno
        raise damaged(path, f"not well-formed XML at line {line}", "a complete XML file") from None
    except (LookupError, ValueError):
        raise damaged(path, "an unknown text encoding", "UTF-8") from None


def _refuse(path: Path) -> None:
    raise DataError(
        str(path),
        got="a document type declaration",
        expected="plain XML without DTD and entities",
        hint="delete the <!DOCTYPE ...> if you trust the file",
    )
