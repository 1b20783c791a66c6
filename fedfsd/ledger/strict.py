"""Typed documents from anybody: accepted only in their one canonical spelling (RFC 8785).

Whatever is read is written again and compared, so duplicate keys, white space, NaN and other spellings of
a number never get further; types, fields and sizes are checked by the document's own class.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from fedfsd import canonical
from fedfsd.errors import ConfigError
from fedfsd.ledger.error import EvidenceError

D = TypeVar("D", bound=BaseModel)
MAX_DEPTH = 64
_STRING, _BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"', re.DOTALL), re.compile(rb"[\[\]{}]")


class Document(BaseModel):
    """Base of everything that is signed or shipped: frozen, no other fields, no other types."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )


def read(adapter: TypeAdapter[D], content: bytes, *, place: str, limit: int) -> D:
    """The document whose canonical bytes are ``content``, at most ``limit`` of them.

    Raises:
        EvidenceError: anything else; it names a field, never a value.
    """
    if len(content) > limit:
        raise EvidenceError(place, got=f"{len(content)} bytes", expected=f"at most {limit}")
    demand_shallow(content, place)
    try:
        found = adapter.validate_json(content)
    except ValidationError as error:
        where, kind, _ = first_of(error)
        raise EvidenceError(f"{place}{where}", got=f"a value that is not allowed ({kind})") from None
    if encode(found) != content:
        raise EvidenceError(place, got="bytes that are not canonical JSON", expected="RFC 8785")
    return found


def demand_shallow(content: bytes, place: str) -> None:
    """EvidenceError where objects and lists are nested too deep for some reader."""
    if _depth(content) > MAX_DEPTH:
        raise EvidenceError(place, got="deeper nesting", expected=f"at most {MAX_DEPTH} levels")


def _depth(content: bytes) -> int:
    """How many objects and lists stand in one another at most."""
    if content.count(b"{") + content.count(b"[") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    for one in _BRACKET.findall(_STRING.sub(b"", content)):
        depth += 1 if one in b"{[" else -1
        deepest = max(deepest, depth)
    return deepest


def first_of(error: ValidationError) -> tuple[str, str, str]:
    """(.field, kind, message) of the first thing wrong; the field may be a stranger's text, so it is cut."""
    first: Any = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = "".join(f".{step}" for step in first["loc"])
    return ascii(where).strip("'\"")[:100], first["type"], first["msg"]


@contextmanager
def typed(place: str) -> Iterator[None]:
    """ConfigError where a person's words do not fit the field of a document that is being made."""
    try:
        yield
    except ValidationError as error:
        where, _, message = first_of(error)
        raise ConfigError(f"{place}{where}", got="a value that is not allowed", expected=message) from None


def encode(one: BaseModel, *, without: tuple[str, ...] = ()) -> bytes:
    """The canonical bytes of a document, leaving out some fields."""
    values = one.model_dump(mode="json", by_alias=True)
    for name in without:
        values.pop(name)
    try:
        return canonical.encode(values)
    except ConfigError:
        raise EvidenceError(
            "document", got="values outside canonical JSON", expected="integers up to 2^53 - 1"
        ) from None
