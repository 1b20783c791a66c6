"""XML without its dangers: no document type, so no entities, no external files, no expansion."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import iterparse

from fedfsd.drive.reader.drive import damaged, too_large
from fedfsd.drive.reader.spool import opened
from fedfsd.errors import DataError

# Bytes of one child of the root at most, and of tags that are open at one time.
MAX_CHILD, MAX_DEPTH = 64 * 2**20, 100


def children(path: Path) -> Iterator[Element]:
    """The document's root element, still without children; then each child, which is gone from it afterwards.

    Raises:
        DataError: a document type declaration, not well-formed (cut short, for example), too deep, or a child
            that is too large to be held.
    """
    try:
        with opened(path) as take:
            source = _Counted(path, take)
            depth, root = 0, None
            for event, element in iterparse(source, events=("start", "end"), forbid_dtd=True):
                depth += 1 if event == "start" else -1
                if depth > MAX_DEPTH:
                    raise damaged(path, f"elements in {MAX_DEPTH} others", "a file of this format")
                if root is None:
                    root = element
                    yield root
                elif event == "end" and depth == 1:
                    source.count = 0
                    yield element
                    root.clear()
    except DefusedXmlException:
        raise DataError(
            str(path),
            got="a document type declaration",
            expected="plain XML without DTD and entities",
            hint="delete the <!DOCTYPE ...> if you trust the file",
        ) from None
    except ParseError as error:
        line, _ = error.position
        raise damaged(path, f"not well-formed XML at line {line}", "a complete XML file") from None
    except (LookupError, ValueError):
        raise damaged(path, "an unknown text encoding", "UTF-8") from None


class _Counted:
    """A file whose bytes are counted since the count was last set back."""

    def __init__(self, path: Path, take: Callable[[int], bytes]) -> None:
        self._path, self._take, self.count = path, take, 0

    def read(self, size: int = 2**16) -> Any:
        """The next bytes."""
        found = self._take(size)
        self.count += len(found)
        if self.count > MAX_CHILD:
            raise too_large(self._path, f"an element of more than {MAX_CHILD} bytes", MAX_CHILD)
        return found
