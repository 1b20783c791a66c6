"""Papers: documents with entries that the officer must sign on a machine of their own.

One mechanism for a genesis, a grant, an approval, a plan above the caps, a recovery, a rotation and the
closing entry: the node drafts a file, the officer reads and signs it, the node adds it. A file holds one
paper a line, in the order in which they become entries: a new region's genesis and its first grant, say.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from fedfsd import canonical
from fedfsd.errors import ConfigError, NotReadyError, UsageError
from fedfsd.ledger import entry
from fedfsd.ledger.disk import write_whole
from fedfsd.ledger.entry import MAX_ENTRY, Genesis, KeyRotate, Signed
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import SigningKey
from fedfsd.node.node import private

SIGNED = ".signed.json"
MOST = 16
"""Papers in one file."""


def write(papers: Sequence[Signed], path: Path) -> None:
    """Keep ``papers`` in ``path``, canonical, for their owner's eyes."""
    with private():
        write_whole(path, b"".join(entry.encode(paper) + b"\n" for paper in papers))


def read(path: Path) -> tuple[Signed, ...]:
    """The papers in ``path``; their signatures are not checked yet. ConfigError where it has none."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST * (MAX_ENTRY + 1) + 1)
    except OSError as error:
        raise NotReadyError(
            str(path), got=error.strerror, expected="a file that fedfsd drafted or signed"
        ) from None
    lines = content.removesuffix(b"\n").split(b"\n")
    if len(lines) > MOST:
        raise ConfigError(str(path), got="more lines", expected=f"at most {MOST} ledger documents")
    return tuple(_read(line, str(path)) for line in lines)


def _read(line: bytes, place: str) -> Signed:
    try:
        made = entry.parse(line)
    except EvidenceError as error:
        raise ConfigError(
            place,
            got=f"not a ledger document ({error})",
            expected="an unchanged file",
            hint="draft it again",
        ) from None
    if not isinstance(made, Signed):
        raise ConfigError(place, got=f"an entry of type {made.type}", expected="one that an officer signs")
    return made


def name(papers: Sequence[Signed]) -> str:
    """A file name for a draft."""
    digest = canonical.sha256(b"".join(entry.encode(paper) for paper in papers))
    return f"{papers[0].type}-{digest[:8]}.json"


def sign(paper: Signed, officer: SigningKey, *, new: SigningKey | None = None) -> Signed:
    """``paper`` signed by the data officer; by ``new`` too where it makes that the officer's key.

    Raises:
        UsageError: not an officer's key, not the one that the genesis names, or ``new`` out of place.
    """
    expected = paper.officer_key if isinstance(paper, Genesis) else None
    if not officer.name.endswith("/officer") or expected not in (None, str(officer.verification)):
        raise UsageError(
            "--officer-key",
            got=f"the key {officer.name}",
            expected=expected or "a data officer's key, called fedfsd/REGION/officer",
            hint="fedfsd keys show names the key in a file",
        )
    roles = {"officer": officer}
    if isinstance(paper, KeyRotate) and paper.role == "officer":
        if new is None or str(new.verification) != paper.key:
            raise UsageError(
                "--new-key",
                got="no key, or a different one",
                expected=paper.key,
                hint="the new key must sign as well",
            )
        roles["new"] = new
    elif new is not None:
        raise UsageError(
            "--new-key", got="a second key", expected="none: only a new officer's key signs as the second one"
        )
    signed: Signed = entry.sign(cast(Any, paper), roles)
    return signed


def signed_path(draft: Path) -> Path:
    """Default path of the signed document: beside the draft."""
    return draft.with_name(draft.stem + SIGNED)
