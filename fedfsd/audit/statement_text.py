"""A statement as plain text: numbered sentences, ready to be quoted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from textwrap import fill
from typing import Any

_WIDTH = 92


def text(document: Mapping[str, Any]) -> str:
    """The page of a statement's document."""
    return "\n".join(_lines(document)).rstrip()


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    title = "STATEMENT OF PRIVACY GUARANTEE"
    yield f"{title}: {document['heading'].upper()}" if document["heading"] else title
    yield ""
    if document["heading"]:
        yield from _heading(document["heading"])
    yield from _section("Contradicted by the evidence", document["contradictions"])
    if document["undecided"]:
        yield fill("What follows holds if what could not be decided, listed at the end, holds.", _WIDTH)
        yield ""
    for region in document["regions"]:
        entity = f" ({region['legal_entity']}, as declared)" if region["legal_entity"] else ""
        yield fill(f"Region {region['region']}{entity}", _WIDTH)
        where = f"evidence: {region['source']}, sha256 {region['sha256']}; ledger {region['ledger']}, "
        yield fill(f"({where}{region['entries']:,} entries; verification: {region['outcome']})", _WIDTH)
        if region["withheld"]:
            yield from _numbered([f"No guarantee is stated: {region['withheld']}."])
        elif not region["data_sets"]:
            yield from _numbered(["No guarantee is stated: there is no grant."])
        for one in region["data_sets"]:
            yield from _numbered(
                f"{some['about'].capitalize()}{', as declared' if some['declared'] else ''}: {some['text']}"
                for some in one["sentences"]
            )
        if region.get("empirical"):
            yield "What was tried (by whoever ran it; shows what it found, and proves nothing more)"
            yield from _numbered(region["empirical"])
        yield ""
    yield from _section("All regions", document["joint"]["sentences"])
    yield from _section("For every region", [f"{name}: {one}" for name, one in document["general"].items()])
    yield from _section("Cannot be decided from this evidence", document["undecided"])
    yield from _section("Not shown by any ledger", document["unproved"])


def _heading(heading: str) -> Iterator[str]:
    if "simulated" in heading:
        yield fill("Simulated: all keys or grants were made by a simulation, and no person stands behind "
                   "them.", _WIDTH)  # fmt: skip
    if "rehearsal" in heading:
        yield fill("Rehearsal, no guarantee: a noise key was known.", _WIDTH)
    yield ""


def _section(title: str, sentences: Iterable[str]) -> Iterator[str]:
    sentences = list(sentences)
    if sentences:
        yield title
        yield from _numbered(sentences)
        yield ""


def _numbered(sentences: Iterable[str]) -> Iterator[str]:
    for place, sentence in enumerate(sentences, 1):
        lead = f"  {place}. "
        yield fill(
            sentence,
            _WIDTH,
            initial_indent=lead,
            subsequent_indent=" " * len(lead),
            break_on_hyphens=False,
        )
