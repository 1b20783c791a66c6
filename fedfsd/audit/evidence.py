"""Bundles, receipts and trusted keys as values, read but not believed.

What no longer is a bundle becomes a ``Refused``, so that one damaged file does not hide what the others
say. Entries stay bytes and are parsed again on each pass: that is fast, and a ledger of a hundred
thousand entries fits in little memory.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter

from fedfsd.audit import empirical, receipt, reviewed, trust
from fedfsd.audit.empirical import Found
from fedfsd.audit.finding import Finding, Kind, contradiction, newer, refusal, undecided
from fedfsd.audit.receipt import Receipts
from fedfsd.audit.reviewed import Reviewed
from fedfsd.audit.trust import Trust
from fedfsd.audit.updates import Updates
from fedfsd.errors import FormatError, NotReadyError
from fedfsd.ledger import bundle, entry, terms
from fedfsd.ledger.bundle import MAX_BUNDLE, Manifest
from fedfsd.ledger.entry import Entry, Genesis, PlanEntry, Recover, Signed
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.merkle import Tree, leaf_hash
from fedfsd.ledger.note import MAX_NOTE
from fedfsd.ledger.terms import Terms
from fedfsd.plain_text import plain

MAX_ENTRIES = 1_000_000
# Grants, plans and the like stay parsed, at about a hundred bytes a value.
MAX_VALUES, MAX_ENTRY_VALUES = 2_000_000, 100_000
MAX_SIGNED = 2**26  # bytes of them
_MALFORMED_SHOWN = 20


@dataclass(frozen=True, eq=False)
class Ledger:
    """One region's ledger as a bundle shows it."""

    source: str
    sha256: str
    """Of the bundle file."""
    manifest: Manifest
    checkpoints: tuple[tuple[int, int, str], ...]
    """(epoch, size, note), as the members are called and ordered."""
    lines: tuple[bytes, ...]
    tree: Tree
    signed: tuple[Signed, ...]
    """The entries that bear signatures, which all others lean on."""
    malformed: dict[int, Finding]
    """Lines that are no entries; the others can be read."""
    known: int
    """Number of lines before the first that a newer release wrote: no check looks at a later entry."""
    newer: Finding | None = None
    """What that line is, where there is one."""

    @property
    def region(self) -> str:
        """Whose ledger it says it is."""
        return self.manifest.region

    @property
    def id(self) -> str:
        """Which ledger it says it is."""
        return self.manifest.ledger

    @property
    def genesis(self) -> Genesis | None:
        """The first entry, where it is a genesis."""
        first = self.signed[0] if self.signed else None
        return first if isinstance(first, Genesis) and first.seq == 0 else None

    @cached_property
    def plans(self) -> dict[str, PlanEntry]:
        """Approved plans by hash; of two entries for one plan, the first."""
        found: dict[str, PlanEntry] = {}
        for one in self.signed:
            if isinstance(one, PlanEntry):
                found.setdefault(one.plan, one)
        return found

    @cached_property
    def terms(self) -> dict[str, Terms]:
        """What each plan's document makes of this region, where it can be read."""
        found = {}
        for plan, one in self.plans.items():
            with suppress(EvidenceError):
                found[plan] = terms.read(one.document, self.region)
        return found

    @cached_property
    def recoveries(self) -> tuple[Recover, ...]:
        """Where the ledger went on from a backup."""
        return tuple(one for one in self.signed if isinstance(one, Recover))

    def lost(self, epoch: int, size: int) -> bool:
        """Whether a recovery says that a head of that size is beyond what was kept of the epoch."""
        return epoch < len(self.recoveries) and size > self.recoveries[epoch].seq

    def entries(self) -> Iterator[Entry]:
        """Every entry that can be read, in order, up to the first that a newer release wrote."""
        return (one for _, one in self.numbered())

    def numbered(self) -> Iterator[tuple[int, Entry]]:
        """The same with the number of its line."""
        for position, line in enumerate(self.lines[: self.known]):
            if position not in self.malformed:
                yield position, _ENTRY.validate_json(line)


@dataclass(frozen=True)
class Refused:
    """A file that is no bundle, and why."""

    source: str
    finding: Finding

    @property
    def unread(self) -> bool:
        """Whether it may be a good bundle that this program cannot read."""
        return self.finding.kind == Kind.UNDECIDED


@dataclass(frozen=True)
class Evidence:
    """All that an auditor was given."""

    ledgers: tuple[Ledger, ...]
    refused: tuple[Refused, ...] = ()
    heads: tuple[tuple[str, str], ...] = ()
    """(file, note): checkpoints that others hold."""
    receipts: Receipts | None = None
    trust: Trust | None = None
    reviewed: Reviewed | None = None
    refused_receipts: Finding | None = None
    """Why a receipts file cannot be read, in the place of ``receipts``."""
    releases: Updates | None = None
    canaries: tuple[Found, ...] = ()
    """What trainings of canaries found of plans."""

    def unread(self, region: str) -> bool:
        """Whether there may be entries of the region that this program cannot read."""
        ledgers = (one for one in self.ledgers if one.region == region)
        return any(one.newer for one in ledgers) or any(one.unread for one in self.refused)


def load(
    bundles: Sequence[Path],
    *,
    receipts: Path | None = None,
    trust: Path | None = None,
    code: Path | None = None,
    releases: Path | None = None,
    canaries: Sequence[Path] = (),
) -> Evidence:
    """Read everything; files that end in ``.note`` are checkpoints that others hold.

    Raises:
        ConfigError: a trust file or a list of reviewed code that is none.
        NotReadyError, OSError: a file that cannot be read.
    """
    read = [_bundle(path) for path in bundles if path.suffix != ".note"]
    received, refused_receipts = None, None
    try:
        received = None if receipts is None else receipt_file(receipts)
    except FormatError as error:
        refused_receipts = newer(error)
    except EvidenceError as error:
        refused_receipts = refusal("receipts", error)
    return Evidence(
        ledgers=tuple(one for one in read if isinstance(one, Ledger)),
        refused=tuple(one for one in read if isinstance(one, Refused)),
        heads=tuple((plain(path.name), _note(path)) for path in bundles if path.suffix == ".note"),
        receipts=received,
        trust=None if trust is None else trust_file(trust),
        reviewed=None if code is None else reviewed.read(_regular(code)),
        refused_receipts=refused_receipts,
        releases=None if releases is None else Updates(_folder(releases)),
        canaries=empirical.read(canaries),
    )


def receipt_file(path: Path) -> Receipts:
    """Receipts from a regular file. Errors as of ``receipt.read``."""
    return receipt.read(_regular(path))


def trust_file(path: Path) -> Trust:
    """Keys from a regular file."""
    return trust.read(_regular(path))


def _bundle(path: Path) -> Ledger | Refused:
    name = plain(path.name)
    size = _regular(path).stat().st_size
    if size > MAX_BUNDLE:
        return Refused(name, undecided("bundle", f"{size} bytes; this reader takes up to {MAX_BUNDLE}"))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    try:
        archive = bundle.read(path)
        return _ledger(name, digest, archive)
    except FormatError as error:
        return Refused(name, newer(error))
    except EvidenceError as error:
        return Refused(name, refusal("", error))


def _ledger(name: str, digest: str, archive: bundle.Bundle) -> Ledger | Refused:
    lines, signed, tree, size, values = [], [], Tree(), 0, 0
    malformed: dict[int, Finding] = {}
    unread: tuple[int, Finding] | None = None
    for position, line in enumerate(archive.entries()):
        more = sum(map(line.count, (b"[", b"{", b",")))
        if position >= MAX_ENTRIES or more > MAX_ENTRY_VALUES:
            return Refused(name, _large(position))
        lines.append(line)
        tree.append(leaf_hash(line))
        try:
            one = entry.parse(line, place=f"entry {position}")
        except FormatError as error:
            unread = unread or (position, newer(error))
            continue
        except EvidenceError as error:
            shown = len(malformed) < _MALFORMED_SHOWN
            malformed[position] = refusal(f"entry {position}", error) if shown else _SAME
            continue
        if isinstance(one, Signed) and unread is None:
            signed.append(one)
            size, values = size + len(line), values + more
            if size > MAX_SIGNED or values > MAX_VALUES:
                return Refused(name, _large(position))
    if unread is not None and unread[0] == 0:  # without its genesis nothing of a ledger can be judged
        return Refused(name, unread[1])
    return Ledger(
        source=name,
        sha256=digest,
        manifest=archive.manifest,
        checkpoints=archive.checkpoints,
        lines=tuple(lines),
        tree=tree,
        signed=tuple(signed),
        malformed=malformed,
        known=len(lines) if unread is None else unread[0],
        newer=None if unread is None else unread[1],
    )


def _large(position: int) -> Finding:
    return undecided(f"entry {position}", "a ledger above the limits of FORMAT.md, section 12")


def _note(path: Path) -> str:
    """The text of a file that may be a checkpoint; whether it is one is for a check."""
    with _regular(path).open("rb") as file:
        return file.read(MAX_NOTE + 1).decode(errors="replace")


def _folder(path: Path) -> Path:
    if not path.is_dir():
        raise NotReadyError(str(path), got="no folder", expected="a folder with released updates")
    return path


def _regular(path: Path) -> Path:
    """``path``, unless reading it might never end."""
    path.stat()  # for the error where there is nothing
    if not path.is_file():
        raise NotReadyError(str(path), got="no regular file", expected="a file")
    return path


_SAME = contradiction("", "one more line that is no entry", "an entry")
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="type")])
