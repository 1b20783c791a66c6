"""XML without its dangers: no document type, so no entities, no external files, no expansion."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from fedfsd.drive.reader.drive import damaged
from fedfsd.errors import DataError


def parse(data: bytes, path: Path) -> Element:
    """The document's root element.

    Raises:
        DataError: a document type declaration, or not well-formed (cut short, for example).
    """

    def refuse(*_: Any) -> NoReturn:
        raise DataError(
            str(path),
            got="a document type declaration",
            expected="plain XML without DTD and entities",
            hint="delete the <!DOCTYPE ...> if you trust the file",
        )

    builder = TreeBuilder()
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(data, True)
    except expat.ExpatError as error:
        raise damaged(path, f"not well-formed XML at line {error.lineno}", "a complete XML file") from None
    except (LookupError, ValueError):
        raise damaged(path, "an unknown text encoding", "UTF-8") from None
    return builder.close()
