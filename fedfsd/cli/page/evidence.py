"""The auditor's pages: the audit report with every finding, and the entries that findings name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup, escape

from fedfsd.audit.declaration import declarations
from fedfsd.audit.evidence import Evidence, load
from fedfsd.audit.report import report
from fedfsd.audit.report_page import key_note, page
from fedfsd.audit.verify import verify
from fedfsd.cli.page.site import Address, Page
from fedfsd.errors import NotReadyError
from fedfsd.language import say


@dataclass(frozen=True)
class Files:
    """What an auditor was given, found in a folder or named."""

    bundles: tuple[Path, ...]
    receipts: Path | None = None
    trust: Path | None = None
    beside: bool = False
    """Whether the keys were found beside the evidence."""
    code: Path | None = None
    releases: Path | None = None
    canaries: tuple[Path, ...] = ()
    declared: tuple[Path, ...] = ()
    vehicles_cross: bool = False

    def stamp(self) -> tuple[Any, ...]:
        """Changes when a file does."""
        files = [*self.bundles, self.receipts, self.trust, self.code, *self.canaries, *self.declared]
        files += sorted(self.releases.iterdir()) if self.releases and self.releases.is_dir() else []
        found = [(one, one.stat()) for one in files if one]
        return tuple((one, stat.st_mtime_ns, stat.st_size) for one, stat in found)

    def load(self) -> Evidence:
        """All of it, read."""
        return load(
            self.bundles,
            receipts=self.receipts,
            trust=self.trust,
            code=self.code,
            releases=self.releases,
            canaries=self.canaries,
        )


def files_in(path: Path) -> Files | None:
    """The evidence in a folder (or in ``bundles/`` and ``checkpoints/`` of it), or one bundle; else None."""
    if path.suffix == ".zip" and path.is_file():
        return Files((path,))
    bundles = [*sorted(path.glob("*.zip")), *sorted(path.glob("bundles/*.zip"))]
    if not bundles:
        return None
    notes = [*sorted(path.glob("*.note")), *sorted(path.glob("checkpoints/*.note"))]
    receipts, trust = path / "receipts.json", path / "trust.keys"
    return Files(
        (*bundles, *notes),
        receipts if receipts.exists() else None,
        trust if trust.exists() else None,
        beside=trust.exists(),
    )


def addresses(find: Callable[[], Files], *, prefix: str = "/") -> list[Address]:
    """The report under ``prefix``, and each entry of each ledger below it."""
    kept: dict[tuple[Any, ...], tuple[Evidence, str]] = {}

    def judged() -> tuple[Evidence, str]:
        files = find()
        stamp = files.stamp()
        if stamp not in kept:
            evidence, said = files.load(), declarations(files.declared)
            document = report(evidence, verify(evidence), said, vehicles_cross=files.vehicles_cross)
            names = [ledger.region for ledger in evidence.ledgers]
            made = page(document, linked=_links(names, prefix), notes=_notes(files))
            kept.clear()
            kept[stamp] = (evidence, made)
        return kept[stamp]

    def whole() -> Page:
        return Page(whole=judged()[1])

    def entry(ledger: int, seq: int) -> Page:
        evidence, _ = judged()
        if ledger >= len(evidence.ledgers) or seq >= len(evidence.ledgers[ledger].lines):
            raise NotReadyError("entry", got=seq, expected="an entry of a ledger that was handed in")
        one = evidence.ledgers[ledger]
        text = one.lines[seq].decode(errors="replace")
        values = {
            "title": say("{region}: entry {entry}", region=one.region, entry=seq),
            "heading": "",
            "back": prefix,
            "text": _indented(text),
            "hash": one.tree.leaf(seq).hex(),
            "before": f"{prefix.rstrip('/')}/entry/{ledger}/{seq - 1}" if seq else None,
            "after": f"{prefix.rstrip('/')}/entry/{ledger}/{seq + 1}" if seq + 1 < len(one.lines) else None,
        }
        return Page("entry.html", values)

    below = prefix.rstrip("/")
    return [Address(prefix, whole), Address(below + "/entry/{ledger:int}/{seq:int}", entry)]


def _notes(files: Files) -> list[str]:
    """What the reader must know of where the files come from."""
    return [key_note(files.trust.name)] if files.trust and files.beside else []


def _links(regions: list[str], prefix: str) -> Callable[[str, str | None], Markup]:
    """Text in which the entries of a region's ledger are links."""

    def linked(text: str, region: str | None) -> Markup:
        if region is None or regions.count(region) != 1:
            return escape(text)
        at = f"{prefix.rstrip('/')}/entry/{regions.index(region)}"
        parts, end = [], 0
        entry = re.escape(say("entry {entry}")).replace(r"\{entry\}", "([0-9]{1,9})")
        for found in re.finditer(rf"(?<!\w){entry}(?!\w)", text):
            parts += [
                escape(text[end : found.start()]),
                Markup('<a href="{}/{}">{}</a>').format(at, int(found[1]), found[0]),
            ]
            end = found.end()
        return Markup("").join([*parts, escape(text[end:])])

    return linked


def _indented(text: str) -> str:
    try:
        return json.dumps(json.loads(text), indent=1, ensure_ascii=True)
    except ValueError:
        return text
