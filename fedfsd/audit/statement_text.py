"""A statement as plain text: numbered sentences, ready to be quoted."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from fedfsd.language import say
from fedfsd.plain_text import folded


def text(document: Mapping[str, Any]) -> str:
    """The page of a statement's document, in the language in which it was made."""
    return "\n".join(_lines(document)).rstrip()


def _lines(document: Mapping[str, Any]) -> Iterator[str]:
    title = say("STATEMENT OF PRIVACY GUARANTEE")
    heading = say(document["heading"]).upper()
    yield say("{about}: {text}", about=title, text=heading) if heading else title
    yield ""
    if document["heading"]:
        yield from _heading(document["heading"])
    yield from _section(say("Contradicted by the evidence"), document["contradictions"])
    if document["undecided"]:
        yield folded(say("What follows holds if what could not be decided, listed at the end, holds."))
        yield ""
    for region in document["regions"]:
        yield from _region(region)
    yield from _section(say("All regions"), document["joint"]["sentences"])
    yield from _section(
        say("For every region"),
        [say("{about}: {text}", about=name, text=one) for name, one in document["general"].items()],
    )
    yield from _section(say("Cannot be decided from this evidence"), document["undecided"])
    yield from _section(say("Not shown by any ledger"), document["unproved"])


def _region(region: Mapping[str, Any]) -> Iterator[str]:
    name = say("Region {region}", region=region["region"])
    if region["legal_entity"]:
        name = say("{region} ({entity}, as declared)", region=name, entity=region["legal_entity"])
    yield folded(name)
    yield folded(
        say(
            "(evidence: {source}, sha256 {sha256}; ledger {ledger}, {entries:,} entries; verification: "
            "{outcome})",
            **{key: region[key] for key in ("source", "sha256", "ledger", "entries")},
            outcome=say(region["outcome"]),
        )
    )
    if region["withheld"]:
        yield from _numbered([say("No guarantee is stated: {why}.", why=region["withheld"])])
    elif not region["data_sets"]:
        yield from _numbered([say("No guarantee is stated: {why}.", why=say("there is no grant"))])
    for one in region["data_sets"]:
        yield from _numbered(map(_sentence, one["sentences"]))
    if region.get("empirical"):
        yield folded(say("What was tried (by whoever ran it; shows what it found, and proves nothing more)"))
        yield from _numbered(region["empirical"])
    yield ""


def _sentence(some: Mapping[str, Any]) -> str:
    about = say(some["about"]).capitalize()
    about = say("{about}, as declared", about=about) if some["declared"] else about
    return say("{about}: {text}", about=about, text=some["text"])


def _heading(heading: str) -> Iterator[str]:
    if "simulated" in heading:
        yield folded(
            say("Simulated: all keys or grants were made by a simulation, and no person stands behind them.")
        )
    if "rehearsal" in heading:
        yield folded(say("Rehearsal, no guarantee: a noise key was known."))
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
        yield folded(sentence, lead=lead, indent=" " * len(lead))
