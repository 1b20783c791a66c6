"""Which formats this release reads: one table of numbers, asked by every reader before it looks further.

A document says its number under ``format``; one that says none has number 1, which is what the first
release wrote. A field that came later has a default that means what its absence meant, and is not written
at that default: a document is written in the oldest format that can hold it, hashed and compared as it was
written. A number that is not in the table is a newer release's: it is refused by name, never guessed at,
and an auditor cannot decide.

>>> demand("plan", 1)
1
>>> demand("bundle", 9)
Traceback (most recent call last):
    ...
fedfsd.errors.FormatError: format: bundle: got format 9, expected format 1; fix: upgrade fedfsd on this side
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fedfsd.errors import ConfigError, FormatError

READ: Mapping[str, tuple[int, ...]] = {
    "experiment": (1, 2, 3, 4),
    "plan": (1, 2, 3, 4),
    "policy": (1,),
    "region.toml": (1,),
    "train.toml": (1, 2),
    "coordinator.toml": (1,),
    "ledger entry": (1, 2, 3, 4),
    "bundle": (1,),
    "receipts": (1, 2),
    "table": (1, 2),
    "mapping": (1,),
    "run folder": (1,),
    "border": (1, 2, 3, 4),
    "declaration": (1,),
    "own model": (1,),
    "runner socket": (4,),  # gate and runner of a region are upgraded together
    "invitation": (1,),
    "signing request": (1,),
}
NEWEST: Mapping[str, int] = {name: max(numbers) for name, numbers in READ.items()}


def demand(name: str, number: object, *, place: str | None = None) -> int:
    """``number`` if this release reads that format of ``name`` (None is 1).

    Raises:
        FormatError: a newer release's format.
        ConfigError: no number.
    """
    number = 1 if number is None else number
    if type(number) is not int or number < 1:
        raise ConfigError("format", got="no format number", expected=f"the format of this {name}")
    if number in READ[name]:
        return number
    raise FormatError(
        place or name,
        got=f"format {number}",
        expected=f"one of {', '.join(map(str, READ[name]))}" if len(READ[name]) > 1 else "format 1",
        hint="upgrade fedfsd on this side",
    )


def demand_known(name: str, document: object, *, place: str | None = None) -> None:
    """Refuse what a newer release wrote; whatever else is wrong is for the reader that follows.

    An auditor's readers need this difference: a newer release's number decides nothing, a word in its
    place is a damaged document.

    Raises:
        FormatError: ``document`` is an object whose ``format`` is a number above all that are known.
    """
    number = document.get("format") if isinstance(document, Mapping) else None
    if type(number) is int and NEWEST[name] < number < 2**53:
        demand(name, number, place=place)


def disagreement(name: str, theirs: int, *, peer: str, here: str) -> FormatError:
    """What to say of a peer with which no version of a protocol is shared.

    >>> print(disagreement("border", 9, peer="the hub", here="region CN"))
    format: border: got version 9 at the hub, expected version 1, 2, 3 or 4; fix: upgrade fedfsd at region CN
    """
    *older, newest = map(str, READ[name])
    return FormatError(
        name,
        got=f"version {theirs} at {peer}",
        expected=f"version {', '.join(older)} or {newest}" if older else f"version {newest}",
        hint=f"upgrade fedfsd at {here if theirs > NEWEST[name] else peer}",
    )


def peek(content: bytes) -> Any:
    """The JSON in ``content``, to read its number before anything else; None where it is no JSON."""
    try:
        return json.loads(content.decode(), parse_constant=_no_json)
    except (ValueError, RecursionError):
        return None


def _no_json(word: str) -> None:
    raise ValueError(word)  # NaN and the infinities
