"""XML without its dangers: no document type, so no entities, no external files, no expansion."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml.common import DefusedXmlException
from defusedxml.ElementTree import fromstring

from fedfsd.drive.reader.drive import damaged
from fedfsd.errors import DataError


def parse(data: bytes, path: Path) -> Element:
    """The document's root element.

    Raises:
        DataError: a document type declaration, or not well-formed (cut short, for example).
    """
    try:
        root: Element = fromstring(data, forbid_dtd=True)
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
    return root
