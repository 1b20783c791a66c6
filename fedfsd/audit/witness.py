"""What others saw of a ledger: cosigned checkpoints, checkpoints they kept, other bundles of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from fedfsd.audit.evidence import Evidence, Ledger
from fedfsd.audit.finding import Finding, contradiction, left_out, refusal, remark, skipped, undecided
from fedfsd.audit.history import judge, origin
from fedfsd.audit.keyring import NO_GENESIS, Keyring, keyring
from fedfsd.language import say
from fedfsd.ledger.entry import Genesis, WitnessEntry
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import VerificationKey
from fedfsd.ledger.note import Checkpoint, Note


@dataclass(frozen=True)
class Held:
    """A head of a ledger that its node signed, whoever kept it."""

    place: str
    text: str
    head: Checkpoint
    epoch: int


def check_witnesses(ledger: Ledger, evidence: Evidence) -> Iterator[Finding]:
    """Nobody who cosigned, kept or was given a checkpoint saw another history than this one."""
    genesis, keys = ledger.genesis, keyring(ledger)
    if genesis is None or keys is None:
        yield undecided("witnesses", NO_GENESIS)
        return
    yield from _cosigned(ledger, evidence)
    yield from _booked(ledger, genesis, keys)
    copies = [one for one in evidence.ledgers if one.genesis and one.genesis.ledger == genesis.ledger]
    mine = [one for one in (_held(*row, genesis, keys) for row in _notes(ledger)) if one]
    others = []
    keyrings = [found for one in copies if (found := keyring(one))]
    for source, text in evidence.heads:
        held = next(filter(None, (_held(source, text, genesis, one) for one in keyrings)), None)
        if held is None:
            if _names(text, genesis):
                yield undecided(source, say("a checkpoint of this ledger that no key of its node signed"))
        else:
            others.append(held)
    for other in copies:
        own = keyring(other) or keys  # a fork may have rotated to a key that this ledger does not name
        for place, text in _notes(other) if other is not ledger else ():
            held = _held(f"{other.source}, {place}", text, genesis, own)
            others += [held] if held else []  # told where that bundle is checked
    newest = _newest(ledger)
    longest = all(_newest(other) <= newest for other in copies)
    proof = tuple(text for _, _, text in ledger.checkpoints[-1:])
    for held in others:
        if longest or (held.epoch, held.head.size) <= newest:  # else the longer bundle is asked
            yield from judge(held.head, held.epoch, ledger, held.place, proof=(held.text, *proof))
    yield from _forked([*mine, *others])


def _forked(heads: Sequence[Held]) -> Iterator[Finding]:
    """Two signed heads of one epoch and size with different roots, also where what they cover is lost."""
    first: dict[tuple[int, int], Held] = {}
    for one in heads:
        other = first.setdefault((one.epoch, one.head.size), one)
        if other.head.root != one.head.root:
            got = f"another root over {one.head.size} entries than in {other.place}"
            yield contradiction(one.place, got, say("one history"), proof=(other.text, one.text))


def check_heads(evidence: Evidence) -> Iterator[Finding]:
    """Every checkpoint that was handed in is one of a ledger that was handed in."""
    if not evidence.heads:
        yield skipped(say("no .note file was given"))
    origins = {origin(one.genesis, 0) for one in evidence.ledgers if one.genesis is not None}
    for source, text in evidence.heads:
        try:
            head = Checkpoint.parse(Note.parse(text).text)
        except EvidenceError as error:
            yield undecided(source, say("no checkpoint: {got}", got=error.got))
            continue
        if not any(epoch_of(head, one) is not None for one in origins):
            yield undecided(source, say("of {origin}, whose bundle is not here", origin=head.origin))


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
        yield remark(say("vouches for the first {size} entries", size=size), one.name)
    last = max(newest.values(), default=0)
    if last < len(ledger.lines):
        yield left_out(say("entries from {last} on have no cosignature", last=last))


def sightings(ledger: Ledger, evidence: Evidence) -> Iterator[tuple[int, int]]:
    """(number of entries, POSIX seconds) of each good cosignature by a witness of the trust file."""
    witnesses = evidence.trust.of("witness") if evidence.trust else ()
    heads = [*_notes(ledger), *evidence.heads] if witnesses and ledger.genesis else []
    for _, text in heads:
        with suppress(EvidenceError):  # told by check_witnesses and check_heads
            parsed = Note.parse(text)
            head = Checkpoint.parse(parsed.text)
            if ledger.genesis and epoch_of(head, origin(ledger.genesis, 0)) is not None:
                for one in witnesses:
                    yield from ((head.size, seconds) for seconds in parsed.seen_by(one))


def _notes(ledger: Ledger) -> Iterator[tuple[str, str]]:
    """(place, note) of every checkpoint inside a bundle; those that stand twice once."""
    kept = set()
    for epoch, size, text in ledger.checkpoints:
        kept.add(text)
        yield f"checkpoint {epoch}-{size}", text
    for one in ledger.entries():
        if isinstance(one, WitnessEntry) and one.checkpoint not in kept:
            yield f"entry {one.seq}", one.checkpoint


def _booked(ledger: Ledger, genesis: Genesis, keys: Keyring) -> Iterator[Finding]:
    """The checkpoints that the ledger's own witness entries hold."""
    epoch = 0
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
            yield contradiction(place, say("another origin or size"), say("an earlier head of this ledger"))
            continue
        if not parsed.is_cosigned:
            yield contradiction(place, say("no cosignature"), say("one by a witness"))
        if not keys.signed(parsed, head.size):
            yield contradiction(place, say("no signature by the node"), say("one"))
        yield from judge(head, epoch, ledger, place, proof=(one.checkpoint,))


def _held(place: str, text: str, genesis: Genesis, keys: Keyring) -> Held | None:
    """The head in a note; None where it is not this ledger's or none of its node's keys signed."""
    try:
        parsed = Note.parse(text)
        head = Checkpoint.parse(parsed.text)
    except EvidenceError:
        return None
    epoch = epoch_of(head, origin(genesis, 0))
    if epoch is None or not keys.signed(parsed):
        return None
    return Held(place, text, head, epoch)


def _names(text: str, genesis: Genesis) -> bool:
    """Whether a note says that it is this ledger's."""
    try:
        return epoch_of(Checkpoint.parse(Note.parse(text).text), origin(genesis, 0)) is not None
    except EvidenceError:
        return False  # told by check_heads


def _newest(ledger: Ledger) -> tuple[int, int]:
    """(epoch, size) of the last checkpoint of a bundle."""
    return max(((epoch, size) for epoch, size, _ in ledger.checkpoints), default=(0, 0))
