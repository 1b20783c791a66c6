"""Who signed: every signature by the key in force at its place, and the first keys by the trust file."""

from __future__ import annotations

from collections.abc import Iterator

from fedfsd.audit.evidence import Evidence, Ledger
from fedfsd.audit.finding import Finding, Kind, contradiction, refusal, remark, skipped, undecided
from fedfsd.audit.keyring import NO_GENESIS, Keyring, keyring
from fedfsd.audit.trust import Trust
from fedfsd.language import say
from fedfsd.ledger import entry, key, note
from fedfsd.ledger.entry import Genesis, KeyRotate, PlanEntry, Signed
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import VerificationKey


def check_signatures(ledger: Ledger) -> Iterator[Finding]:
    """Grants, approvals, keys and checkpoints are signed by the keys in force at their place."""
    keys, genesis = keyring(ledger), ledger.genesis
    if keys is None or genesis is None:
        yield contradiction("entry 0", NO_GENESIS, say("a genesis"))
        return
    yield from _names(genesis, keys)
    for one in ledger.signed:
        place = f"entry {one.seq} ({one.type})"
        for role, by in _demanded(one, keys):
            if not entry.is_signed(one, role, by):
                yield contradiction(
                    place, say("no good signature for {role}", role=role), say("one by {name}", name=by.name)
                )
        if one.ledger != genesis.ledger:
            yield contradiction(place, say("the id of another ledger"), say("this one's"))
    for epoch, size, text in ledger.checkpoints:
        place = f"checkpoint {epoch}-{size}"
        lost = ledger.lost(epoch, size)
        signers = tuple(one for _, one in keys.nodes) if lost else (keys.node_at(size),)
        try:
            parsed = note.Note.parse(text)
            if parsed.signed_by_one_of(signers):
                continue
        except EvidenceError as error:
            yield refusal(place, error)
            continue
        if lost or size > ledger.known:
            yield undecided(place, say("no key that this ledger names signed it"))
        else:
            yield contradiction(
                place, say("no signature by the node"), say("one by {name}", name=signers[0].name)
            )


def check_identity(ledger: Ledger, evidence: Evidence) -> Iterator[Finding]:
    """The first keys of officer and node are those of the trust file."""
    keys, genesis, trust = keyring(ledger), ledger.genesis, evidence.trust
    if trust is None:
        yield undecided(ledger.region, say("no --trust: nothing shows whose keys these are"))
    elif keys is None or genesis is None:
        yield undecided(ledger.region, NO_GENESIS)
    else:
        for finding in (*_officer(ledger.region, trust, keys), *_node(ledger.region, trust, keys)):
            if finding.kind == Kind.CONTRADICTED and ledger.newer is not None:
                yield undecided(
                    finding.place, say("no key of the trust file, up to what a newer release wrote")
                )
            else:
                yield finding
    if genesis is not None and genesis.simulated:
        yield remark(say("simulated: all keys were made by a simulation and no person stands behind them"))


def check_coordinator(evidence: Evidence) -> Iterator[Finding]:
    """The receipts are signed by a coordinator of the trust file."""
    receipts, trust = evidence.receipts, evidence.trust
    if evidence.refused_receipts is not None:
        yield evidence.refused_receipts
        return
    if receipts is None:
        yield skipped(say("no --receipts: nothing shows what reached the coordinator"))
        return
    name = receipts.signer.name
    if not receipts.is_signed:
        yield contradiction("receipts", say("no good signature by {name}", name=name), say("one"))
    known = trust.of("coordinator", name) if trust else ()
    if not known:
        yield undecided("receipts", say("the trust file has no key of {name}, who signed them", name=name))
    elif receipts.signer not in known:
        yield contradiction(
            "receipts", say("another key for {name}", name=name), say("one of the trust file")
        )


def _names(genesis: Genesis, keys: Keyring) -> Iterator[Finding]:
    """Keys are called as the format wants, and a new one is neither of the two in force before it."""
    rows = sorted(
        [(start, "node", one) for start, one in keys.nodes]
        + [(start, "officer", one) for start, one in keys.officers],
        key=lambda row: row[0],
    )
    names = {
        "node": f"fedfsd/{genesis.region}/{genesis.ledger}",
        "officer": f"fedfsd/{genesis.region}/officer",
    }
    in_force: dict[str, VerificationKey] = {}
    for start, role, one in rows:
        place = f"{role} key from {start}"
        if one.name != names[role]:
            yield contradiction(place, say("the name {name}", name=one.name), names[role])
        if one.public in [other.public for other in in_force.values()]:
            yield contradiction(place, say("a key in force already"), say("a new key"))
        in_force[role] = one


def _demanded(one: Signed, keys: Keyring) -> Iterator[tuple[str, VerificationKey]]:
    """(role, key) of every signature that an entry must bear."""
    if isinstance(one, Genesis):
        yield "node", key.parse(one.node_key)
        yield "officer", key.parse(one.officer_key)
        return
    if not isinstance(one, PlanEntry) or one.signatures.officer is not None:
        yield "officer", keys.officer_at(one.seq)
    if isinstance(one, KeyRotate):
        yield "new", key.parse(one.key)
        if one.signatures.old is not None:
            yield "old", keys.node_at(one.seq)


def _officer(region: str, trust: Trust, keys: Keyring) -> Iterator[Finding]:
    """The first key must be listed: a later one vouches for what follows it, not for what it replaced."""
    known, used = trust.of("officer", f"fedfsd/{region}/officer"), [one for _, one in keys.officers]
    if not known:
        yield undecided(f"{region} officer", say("the trust file has no key of this officer"))
    elif used[0] not in known:
        if set(used) & set(known):
            yield undecided(f"{region} officer", say("the trust file has a later key, not the first one"))
        else:
            yield contradiction(f"{region} officer", say("another key"), say("the one of the trust file"))


def _node(region: str, trust: Trust, keys: Keyring) -> Iterator[Finding]:
    """A node's key is believed when it is listed, or when a believed officer signed the genesis."""
    used = [one for _, one in keys.nodes]
    known = trust.of("node", used[0].name)
    if set(used) & set(known):
        return
    if known:
        yield contradiction(f"{region} node", say("another key"), say("the one of the trust file"))
    elif keys.officers[0][1] in trust.of("officer"):
        yield remark(say("its key is not in the trust file; the officer vouches for it"), f"{region} node")
    else:
        yield undecided(f"{region} node", say("the trust file has no key of this node"))
