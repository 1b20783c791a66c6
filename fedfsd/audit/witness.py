"""What others saw of a ledger: cosigned checkpoints, checkpoints they kept, other bundles of it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from fedfsd.audit.evidence import Evidence, Ledger
from fedfsd.audit.finding import Finding, contradiction, left_out, refusal, remark, skipped, undecided
from fedfsd.audit.history import judge, origin
from fedfsd.audit.keyring import NO_GENESIS, keyring
from fedfsd.ledger.entry import Genesis, WitnessEntry
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import VerificationKey
from fedfsd.ledger.note import Checkpoint, Note


def check_witnesses(ledger: Ledger, evidence: Evidence) -> Iterator[Finding]:
    """Nobody who cosigned, kept or was given a checkpoint saw another history than this one."""
    genesis = ledger.genesis
    if genesis is None:
        yield undecided("witnesses", NO_GENESIS)
        return
    yield from _cosigned(ledger, evidence)
    yield from _booked(ledger, genesis)
    for source, text in evidence.heads:
        yield from _held_elsewhere(source, text, ledger, genesis)
    for other in evidence.ledgers:
        if other is not ledger and other.genesis is not None and other.genesis.ledger == genesis.ledger:
            yield from _other_bundle(other, ledger)


def check_heads(evidence: Evidence) -> Iterator[Finding]:
    """Every checkpoint that was handed in is one of a ledger that was handed in."""
    if not evidence.heads:
        yield skipped("no .note file was given")
    origins = {origin(one.genesis, 0) for one in evidence.ledgers if one.genesis is not None}
    for source, text in evidence.heads:
        try:
            head = Checkpoint.parse(Note.parse(text).text)
        except EvidenceError as error:
            yield refusal(source, error)
            continue
        if not any(epoch_of(head, one) is not None for one in origins):
            yield undecided(source, f"of {head.origin}, whose bundle is not here")


def epoch_of(head: Checkpoint, base: str) -> int | None:
    """The epoch of a head of the ledger whose first origin is ``base``; None for another ledger's."""
    found = re.fullmatch(re.escape(base) + "(?:/([1-9][0-9]{0,8}))?", head.origin)
    return int(found[1] or 0) if found else None


def _cosigned(ledger: Ledger, evidence: Evidence) -> Iterator[Finding]:
    """How far each trusted witness vouches; a bad line under a witness's name is a finding."""
    witnesses = evidence.trust.of("witness") if evidence.trust else ()
    newest: dict[VerificationKey, int] = {}
    for place, text in _notes(ledger) if witnesses else ():
        try:
            parsed = Note.parse(text)
            size = Checkpoint.parse(parsed.text).size
            for one in witnesses:
                if parsed.signed_by(one):
                    newest[one] = max(newest.get(one, 0), size)
        except EvidenceError as error:
            yield refusal(place, error)
    for one, size in newest.items():
        yield remark(f"vouches for the first {size} entries", one.name)
    last = max(newest.values(), default=0)
    if last < len(ledger.lines):
        yield left_out(
            f"whether others saw the same entries from {last} on" if last else "whether others saw the same"
        )


def _notes(ledger: Ledger) -> Iterator[tuple[str, str]]:
    """Every checkpoint inside a bundle, with its place; those that stand twice once."""
    kept = set()
    for epoch, size, text in ledger.checkpoints:
        kept.add(text)
        yield f"checkpoint {epoch}-{size}", text
    for one in ledger.entries():
        if isinstance(one, WitnessEntry) and one.checkpoint not in kept:
            yield f"entry {one.seq}", one.checkpoint


def _booked(ledger: Ledger, genesis: Genesis) -> Iterator[Finding]:
    """The checkpoints that the ledger's own witness entries hold."""
    keys, epoch = keyring(ledger), 0
    kept = {text for _, _, text in ledger.checkpoints}
    for one in ledger.entries():
        epoch += one.type == "recover"
        if not isinstance(one, WitnessEntry):
            continue
        place = f"entry {one.seq} (witness)"
        try:
            parsed = Note.parse(one.checkpoint)
            head = Checkpoint.parse(parsed.text)
        except EvidenceError as error:
            yield refusal(place, error)
            continue
        if (head.origin, head.size) != (origin(genesis, epoch), one.size) or not 1 <= one.size <= one.seq:
            yield contradiction(place, "another origin or size", "an earlier head of this ledger")
        elif one.checkpoint not in kept:  # the others are judged with the bundle's checkpoints
            if keys is not None and not _signed(parsed, (keys.node_at(head.size),)):
                yield contradiction(place, "no signature by the node", "one")
            yield from judge(head, epoch, ledger, place, proof=(one.checkpoint,))


def _held_elsewhere(source: str, text: str, ledger: Ledger, genesis: Genesis) -> Iterator[Finding]:
    """A checkpoint that somebody else kept: it need not be this ledger's, but if it is, it must fit."""
    keys = keyring(ledger)
    try:
        parsed = Note.parse(text)
        head = Checkpoint.parse(parsed.text)
    except EvidenceError:
        return  # told by check_heads
    epoch = epoch_of(head, origin(genesis, 0))
    if epoch is not None and keys is not None:
        if not _signed(parsed, tuple(one for _, one in keys.nodes)):
            yield undecided(source, "a checkpoint of this ledger that no key of its node signed")
        else:
            newest = tuple(text for _, _, text in ledger.checkpoints[-1:])
            yield from judge(head, epoch, ledger, source, proof=(text, *newest))


def _other_bundle(other: Ledger, ledger: Ledger) -> Iterator[Finding]:
    """An older bundle of the same ledger: this one must extend it."""
    newest = ledger.checkpoints[-1:]
    for epoch, size, text in other.checkpoints:
        if newest and (epoch, size) <= newest[0][:2]:
            try:
                head = Checkpoint.parse(Note.parse(text).text)
            except EvidenceError:
                continue  # told where that bundle is checked
            place = f"{other.source}, checkpoint {epoch}-{size}"
            yield from judge(head, epoch, ledger, place, proof=(text, newest[0][2]))


def _signed(parsed: Note, keys: tuple[VerificationKey, ...]) -> bool:
    try:
        return any(parsed.signed_by(one) for one in keys)
    except EvidenceError:
        return False
