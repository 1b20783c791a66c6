"""One history: the archive, its entries in order, and the roots that follow from them."""

from __future__ import annotations

from collections.abc import Iterator

from fedfsd.audit.evidence import Ledger
from fedfsd.audit.finding import Finding, contradiction, refusal, remark, undecided
from fedfsd.audit.keyring import NO_GENESIS, keyring
from fedfsd.language import say
from fedfsd.ledger.entry import Close, Genesis
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.note import Checkpoint, Note


def check_archive(ledger: Ledger) -> Iterator[Finding]:
    """Every byte of the bundle is where the format wants it, and it is the ledger it says it is."""
    manifest, genesis = ledger.manifest, ledger.genesis
    if manifest.size != len(ledger.lines):
        yield contradiction(
            "bundle.json",
            say("size {size}", size=manifest.size),
            say("{number} entries", number=len(ledger.lines)),
        )
    if genesis is not None and (genesis.region, genesis.ledger) != (manifest.region, manifest.ledger):
        yield contradiction("bundle.json", say("another region or ledger"), say("the genesis'"))


def check_entries(ledger: Ledger) -> Iterator[Finding]:
    """Every entry has its one canonical form and its number; one genesis, first; nothing after a close."""
    yield from ledger.malformed.values()
    if ledger.newer is not None:
        yield ledger.newer
    position, closed = -1, False
    for position, one in ledger.numbered():
        place = f"entry {position} ({one.type})"
        if one.seq != position:
            yield contradiction(place, say("number {seq}", seq=one.seq), position)
        if isinstance(one, Genesis) != (position == 0):
            yield contradiction(place, say("another place"), say("one genesis, first"))
        if closed:
            yield contradiction(place, say("an entry after the close"), say("none"))
        closed = closed or isinstance(one, Close)
    if position < 0:
        yield contradiction("ledger", say("no entry"), say("a genesis"))


def check_history(ledger: Ledger) -> Iterator[Finding]:
    """The root of every checkpoint follows from the entries, and the last checkpoint covers them all."""
    genesis, keys = ledger.genesis, keyring(ledger)
    if genesis is None:
        yield undecided("checkpoints", NO_GENESIS)
        return
    newest = 0
    for epoch, size, text in ledger.checkpoints:
        place = f"checkpoint {epoch}-{size}"
        try:
            parsed = Note.parse(text)
            head = Checkpoint.parse(parsed.text)
        except EvidenceError as error:
            yield refusal(place, error)
            continue
        if (head.origin, head.size) != (origin(genesis, epoch), size):
            yield contradiction(
                place,
                say("origin {origin}, size {size}", origin=head.origin, size=head.size),
                say("as its name says"),
            )
        else:
            if not ledger.lost(epoch, size) or (keys and keys.signed(parsed)):
                yield from judge(head, epoch, ledger, place, proof=(text,))
            newest = size if epoch == len(ledger.recoveries) or ledger.newer else newest
    if newest != len(ledger.lines):
        yield contradiction(
            "checkpoints",
            say("none over all {number} entries", number=len(ledger.lines)),
            say("a signed head"),
        )
    for number, one in enumerate(ledger.recoveries, 1):
        place = f"entry {one.seq} (recover)"
        if one.epoch != number or one.lost_size < one.seq:
            got = f"epoch {one.epoch}, lost size {one.lost_size}"
            yield contradiction(place, got, say("{number}, at least {seq}", number=number, seq=one.seq))
        elif one.lost_size == one.seq <= len(ledger.lines):
            kept = ledger.tree.root(one.seq).hex()
            if one.lost_root not in (None, kept):
                yield contradiction(
                    f"{place}, lost_root", one.lost_root, say("{kept}: nothing is lost", kept=kept)
                )
        yield remark(
            say("up to {value} entries are lost, all charged at their worst", value=one.lost_size - one.seq),
            place,
        )


def origin(genesis: Genesis, epoch: int) -> str:
    """The first line of an epoch's checkpoints."""
    name = f"fedfsd/{genesis.region}/{genesis.ledger}"
    return f"{name}/{epoch}" if epoch else name


def judge(
    head: Checkpoint, epoch: int, ledger: Ledger, place: str, *, proof: tuple[str, ...]
) -> Iterator[Finding]:
    """Whether a signed head is one of this history, or of what a recovery says was lost."""
    if head.size and ledger.newer is not None and head.size > ledger.known:
        if head.size > len(ledger.lines) or head.root != ledger.tree.root(head.size):
            yield undecided(
                place,
                say(
                    "a head over {size} entries, of which {known} can be read",
                    size=head.size,
                    known=ledger.known,
                ),
            )
        return
    begun = [0, *(one.seq for one in ledger.recoveries)]
    kept = limit = len(ledger.lines)
    lost_root = None
    if epoch < len(ledger.recoveries):
        after = ledger.recoveries[epoch]
        kept, limit, lost_root = min(after.seq, kept), after.lost_size, after.lost_root
    got = f"a signed head over {head.size} entries"
    if epoch > len(ledger.recoveries) or head.size > limit:
        yield contradiction(place, got, say("at most {limit}", limit=limit), proof=proof)
    elif head.size <= begun[epoch]:
        yield contradiction(
            place, got, say("more than {value} in this epoch", value=begun[epoch]), proof=proof
        )
    elif head.size <= kept:
        if head.root != ledger.tree.root(head.size):
            yield contradiction(
                place,
                say("another root over {size} entries", size=head.size),
                say("this history's"),
                proof=proof,
            )
    elif head.size == limit and lost_root not in (None, head.root.hex()):
        yield contradiction(place, say("another root of what was lost"), say("the recovery's"), proof=proof)
