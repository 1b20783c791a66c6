"""A ledger against what others hold: keys, receipts, witnesses, other bundles and other ledgers."""

from __future__ import annotations

import copy

import pytest
from forge import (
    COORDINATOR,
    DATA,
    WITNESS,
    Forge,
    check,
    outcomes,
    plan_of,
    receipts,
    texts,
    trust,
)

from fedfsd.audit.evidence import load
from fedfsd.audit.finding import Kind
from fedfsd.audit.receipt import read
from fedfsd.audit.verify import verify
from fedfsd.ledger import draft, entry, note
from fedfsd.ledger.entry import Charge, Close, KeyRotate, Recover, WitnessEntry
from fedfsd.ledger.key import SigningKey


@pytest.fixture
def forge() -> Forge:
    made = Forge()
    made.story()
    return made


# Keys.


def test_without_a_trust_file_nobody_knows_whose_keys_these_are(tmp_path, forge):
    report = verify(load([forge.bundle(tmp_path)], receipts=receipts(tmp_path, forge)))
    assert (report.headline, report.exit_code) == ("cannot decide: identity, coordinator", 11)


def test_without_receipts_the_rest_is_checked(tmp_path, forge):
    report = verify(load([forge.bundle(tmp_path)], trust=trust(tmp_path, forge)))
    assert (report.headline, report.exit_code) == ("holds", 0)
    assert "no --receipts" in texts(report, "receipts")


@pytest.mark.parametrize("seed", ["fresh", "another ledger id"])
def test_a_history_rebuilt_with_fresh_keys(tmp_path, forge, seed):
    rebuilt = Forge(seed=seed)
    rebuilt.story()
    if seed == "fresh":  # under the old ledger's name
        rebuilt.node = SigningKey(forge.node.name, rebuilt.node.private)
        rebuilt.ledger = forge.ledger
        keys = {"ledger": forge.ledger, "node_key": str(rebuilt.node.verification)}
        for seq, one in enumerate(rebuilt.entries):
            if isinstance(one, entry.Signed):
                rebuilt.edit(seq, **(keys if seq == 0 else {"ledger": keys["ledger"]}))
    report = verify(
        load(
            [rebuilt.bundle(tmp_path)],
            receipts=receipts(tmp_path, rebuilt),
            trust=trust(tmp_path, forge),
        )
    )
    assert outcomes(report) == {"identity": "contradicted"}
    assert report.exit_code == 10


def test_a_trust_file_without_this_region(tmp_path, forge):
    report = verify(load([forge.bundle(tmp_path)], trust=trust(tmp_path, Forge("US"))))
    assert (report.headline, report.exit_code) == ("cannot decide: identity", 11)


def rotated(forge: Forge, role: str) -> SigningKey:
    """The key of ``role`` replaced, properly signed; returns the old one."""
    forge.head()
    old: SigningKey = getattr(forge, role)
    new = SigningKey.from_seed(old.name, b"2" * 32)
    rotation = KeyRotate(seq=8, ledger=forge.entries[0].ledger, role=role, key=str(new.verification))
    keys = {"officer": forge.officer, "new": new, **({"old": old} if role == "node" else {})}
    forge.entries.append(entry.sign(rotation, keys))
    setattr(forge, role, new)
    return old


def test_a_rotated_node_key(tmp_path, forge):
    rotated(forge, "node")
    assert outcomes(check(tmp_path, forge)) == {}  # the officer, who is known, signed both


def test_a_rotated_officer_key(tmp_path, forge):
    old = rotated(forge, "officer")
    assert outcomes(check(tmp_path, forge)) == {"identity": "cannot decide"}  # the first one is not known
    path = trust(tmp_path, forge)
    path.write_text(path.read_text() + f"officer {old.verification}\n")
    assert outcomes(verify(load([forge.bundle(tmp_path)], trust=path))) == {}


# Receipts.


def test_a_ledger_rolled_back(tmp_path, forge):
    path = receipts(tmp_path, forge)
    held = tmp_path / "held.note"
    held.write_text(forge.head())
    del forge.entries[5:]
    forge.heads.clear()
    report = verify(load([forge.bundle(tmp_path), held], receipts=path, trust=trust(tmp_path, forge)))
    assert outcomes(report) == {"receipts": "contradicted", "witnesses": "contradicted"}
    assert "round 2" in texts(report, "receipts")
    (proof,) = [one for _, one in report.found(Kind.CONTRADICTED) if one.place == "held.note"]
    assert proof.proof == (held.read_text(), forge.heads[0, 5])


def test_other_bytes_arrived(tmp_path, forge):
    path = receipts(tmp_path, forge)
    forge.edit(4, sha256="0" * 64)
    report = verify(load([forge.bundle(tmp_path)], receipts=path, trust=trust(tmp_path, forge)))
    assert outcomes(report) == {"receipts": "contradicted"}


def test_a_release_that_never_arrived_is_spent(tmp_path, forge):
    early = copy.deepcopy(forge)
    del early.entries[5:]
    report = verify(
        load([forge.bundle(tmp_path)], receipts=receipts(tmp_path, early), trust=trust(tmp_path, forge))
    )
    assert outcomes(report) == {}
    assert "undelivered" in texts(report, "receipts")
    assert "round 2" in texts(report, "receipts")


def test_receipts_of_another_run_say_nothing(tmp_path, forge):
    other = Forge()
    other.story(plan_of(seed=9))
    report = verify(
        load([forge.bundle(tmp_path)], receipts=receipts(tmp_path, other), trust=trust(tmp_path, forge))
    )
    assert "contradicted" in outcomes(report).values()  # a receipt for this region that it never released
    report = verify(
        load(
            [forge.bundle(tmp_path)],
            receipts=receipts(tmp_path, receipts=(), plans=("0" * 64,)),
            trust=trust(tmp_path, forge),
        )
    )
    assert outcomes(report) == {}
    assert "cover no plan" in texts(report, "receipts")


@pytest.mark.parametrize("forged", ["signature", "key"])
def test_receipts_that_somebody_else_wrote(tmp_path, forge, forged):
    path = receipts(tmp_path, forge)
    stranger = SigningKey.generate(COORDINATOR.name)
    if forged == "key":
        path = receipts(tmp_path, forge, coordinator=str(stranger.verification))
    else:
        path.write_bytes(path.read_bytes().replace(b'"run":"test"', b'"run":"best"'))
    report = verify(load([forge.bundle(tmp_path)], receipts=path, trust=trust(tmp_path, forge)))
    assert outcomes(report) == {"coordinator": "contradicted"}


# Other histories.


def test_a_fork_shown_by_two_bundles(tmp_path, forge):
    fork = copy.deepcopy(forge)
    fork.edit(6, sha256="0" * 64)
    report = check(tmp_path, forge, fork)
    assert outcomes(report)["witnesses"] == "contradicted"
    proofs = [one.proof for _, one in report.found(Kind.CONTRADICTED) if one.proof]
    assert (forge.heads[0, 8], fork.heads[0, 8]) in proofs


def test_a_longer_bundle_of_the_same_ledger(tmp_path, forge):
    older = copy.deepcopy(forge)
    forge.approve(plan_of(seed=1))
    report = check(tmp_path, older, forge)
    assert outcomes(report) == {}
    assert [part.title for part in report.parts[:2]] == ["EU (EU-0.zip)", "EU (EU-1.zip)"]


def test_a_checkpoint_of_a_ledger_that_is_missing(tmp_path, forge):
    other = Forge("US")
    other.story()
    held = tmp_path / "us.note"
    held.write_text(other.head())
    assert outcomes(check(tmp_path, forge, extra=(held,))) == {"heads": "cannot decide"}


def test_a_checkpoint_that_nobody_signed(tmp_path, forge):
    held = tmp_path / "held.note"
    head = note.Checkpoint(forge.node.name, 8, forge.tree.root())
    held.write_text(note.sign(head.text, [SigningKey.generate("stranger")]))
    assert outcomes(check(tmp_path, forge, extra=(held,))) == {"witnesses": "cannot decide"}


def test_truncated_behind_its_own_checkpoint(tmp_path, forge):
    forge.head()
    del forge.entries[7:]
    found = outcomes(check(tmp_path, forge))
    assert found == {"history": "contradicted"}


def test_a_rewritten_entry_under_old_checkpoints(tmp_path, forge):
    forge.head(6)
    forge.edit(4, sha256="0" * 64)
    assert outcomes(check(tmp_path, forge)) == {"history": "contradicted"}


def test_no_checkpoint_over_the_last_entries(tmp_path, forge):
    forge.head(6)
    forge.heads[0, 8] = forge.heads[0, 6]
    found = outcomes(check(tmp_path, forge))
    assert found["history"] == "contradicted"


def test_cosigned_checkpoints(tmp_path, forge):
    text = forge.head(6, cosigned=True)
    forge.add(WitnessEntry(size=6, checkpoint=text))
    report = check(tmp_path, forge)
    assert outcomes(report) == {}
    assert f"{WITNESS.name}: vouches for the first 6 entries" in texts(report, "witnesses")
    assert "from 6 on" in texts(report, "witnesses")


def test_a_bad_cosignature(tmp_path, forge):
    text = forge.head(6)
    liar = SigningKey(WITNESS.name, WITNESS.private)
    good = note.cosign(text, liar, seconds=1)
    forge.heads[0, 6] = good.replace(text.splitlines()[2], text.splitlines()[2], 1)[:-8] + "AAAAA==\n"
    found = outcomes(check(tmp_path, forge))
    assert found.get("witnesses") == "contradicted"


@pytest.mark.parametrize("change", [{"size": 5}, {"root": b"0" * 32}, {"origin": "fedfsd/EU/other"}], ids=str)
def test_a_witness_entry_that_holds_another_history(tmp_path, forge, change):
    head = {"origin": forge.node.name, "size": 6, "root": forge.tree.root(6), **change}
    text = note.sign(note.Checkpoint(**head).text, [forge.node])
    forge.add(WitnessEntry(size=6, checkpoint=note.cosign(text, WITNESS, seconds=1)))
    found = outcomes(check(tmp_path, forge))
    assert found["witnesses"] == found["rules"] == "contradicted"


# Recovery.


def recovered(forge: Forge, **changes: object) -> Forge:
    """Back to the state after round 1; entries 5 to 7 are lost."""
    forge.head()
    del forge.entries[5:]
    state = forge.state
    account = state.accounts[DATA]
    values = {
        "ledger": state.genesis.ledger,
        "epoch": 1,
        "lost_size": 8,
        "lost_root": None,
        "reach": "rounds",
        "charges": (Charge(grant=1, rho=account.held),),
    }
    forge.add(Recover(**{**values, **changes}))
    forge.epoch = 1
    return forge


def test_a_recovery_charges_what_was_lost(tmp_path, forge):
    path = receipts(tmp_path, forge)
    root = forge.tree.root(8).hex()
    recovered(forge, lost_root=root)
    report = verify(load([forge.bundle(tmp_path)], receipts=path, trust=trust(tmp_path, forge)))
    assert outcomes(report) == {"receipts": "cannot decide"}
    assert "recovery" in texts(report, "receipts")


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"lost_size": 6}, "history"),
        ({"lost_root": "0" * 64}, "history"),
        ({"charges": (Charge(grant=1, rho=1),)}, "filter"),
        ({"charges": ()}, "filter"),
    ],
    ids=str,
)
def test_a_recovery_that_says_too_little(tmp_path, forge, change, name):
    assert outcomes(check(tmp_path, recovered(forge, **change)))[name] == "contradicted"


# Another ledger of the same region.


def closed(forge: Forge) -> Forge:
    forge.add(Close(ledger=forge.entries[0].ledger, reason="moved"))
    return forge


def successor(forge: Forge, **options: object) -> Forge:
    made = Forge(seed="2", previous=forge.entries[0].ledger)
    made.officer = forge.officer
    made.edit(0, officer_key=str(forge.officer.verification))
    made.grant(**options)
    return made


def test_a_second_ledger_after_a_close(tmp_path, forge):
    later = successor(forge, carried_rho=closed(forge).state.accounts[DATA].spent, alpha=3)
    assert outcomes(check(tmp_path, forge, later)) == {}


def test_a_second_ledger_that_forgets(tmp_path, forge):
    later = successor(forge, carried_rho=closed(forge).state.accounts[DATA].spent - 1, alpha=3)
    assert outcomes(check(tmp_path, forge, later)) == {"succession": "contradicted"}


def test_a_second_ledger_of_which_the_first_is_missing(tmp_path, forge):
    later = successor(closed(forge), alpha=3)
    assert outcomes(check(tmp_path, later)) == {"succession": "cannot decide"}


def test_a_second_ledger_beside_an_open_one(tmp_path, forge):
    later = successor(forge, carried_rho=forge.state.accounts[DATA].spent, alpha=3)
    assert outcomes(check(tmp_path, forge, later)) == {"succession": "contradicted"}


def test_a_second_genesis(tmp_path, forge):
    second = Forge(seed="2")
    second.story()
    assert outcomes(check(tmp_path, forge, second))["succession"] == "contradicted"


def test_an_older_bundle_beside_the_newest(tmp_path, forge):
    older = copy.deepcopy(forge)
    del older.entries[5:]
    assert outcomes(check(tmp_path, older, forge)) == {}


# What a forged recovery, head, witness entry or receipt would hide.


def held(folder, name: str, text: str):
    path = folder / f"{name}.note"
    path.write_text(text)
    return path


def head(forge: Forge, size: int, *, epoch: int = 0, root: bytes | None = None, cosigned: bool = True) -> str:
    """A signed head of the forge's making, right only where its root is."""
    origin = forge.node.name + (f"/{epoch}" if epoch else "")
    root = forge.tree.root(size) if root is None else root
    text = note.sign(note.Checkpoint(origin, size, root).text, [forge.node])
    return note.cosign(text, WITNESS, seconds=1) if cosigned else text


OTHER = b"\x01" * 32


@pytest.mark.parametrize("places", ["two notes", "bundle and note", "older bundle", "older witness entry"])
def test_two_heads_of_what_was_lost(tmp_path, forge, places):
    """Entries 5 to 7 are lost; two signed heads over 7 entries cannot both have been."""
    older = copy.deepcopy(forge)
    lost = forge.head(7)
    extra = []
    if places == "older bundle":
        older.head(7)
        extra.append(older.bundle(tmp_path, "older.zip"))
    elif places == "older witness entry":
        older.add(WitnessEntry(size=7, checkpoint=head(older, 7)))
        extra.append(older.bundle(tmp_path, "older.zip"))
    recovered(forge, lost_size=9)
    if places == "two notes":
        extra.append(held(tmp_path, "first", lost))
    if places in ("two notes", "older bundle", "older witness entry"):
        del forge.heads[0, 7]
    extra.append(held(tmp_path, "other", head(forge, 7, root=OTHER)))
    assert outcomes(check(tmp_path, forge, extra=tuple(extra[:-1]))) == {}
    report = check(tmp_path, forge, extra=tuple(extra))
    assert outcomes(report) == {"witnesses": "contradicted"}
    assert "another root over 7 entries" in texts(report, "witnesses")


@pytest.mark.parametrize(("root", "outcome"), [(None, {}), ("right", {}), ("other", "contradicted")])
def test_a_recovery_of_nothing_names_its_own_root(tmp_path, forge, root, outcome):
    size = 5
    named = {"right": forge.tree.root(size).hex(), "other": OTHER.hex(), None: None}[root]
    forge = recovered(forge, lost_size=size, lost_root=named)
    forge.heads.clear()
    found = outcomes(check(tmp_path, forge))
    assert found == (outcome or {}) if root != "other" else found == {"history": outcome, "rules": outcome}


@pytest.mark.parametrize("place", ["bundle", "note"])
@pytest.mark.parametrize("root", [b"", OTHER], ids=["empty", "other"])
def test_a_head_over_nothing(tmp_path, forge, place, root):
    text = head(forge, 0, root=root or forge.tree.root(0))
    if place == "bundle":
        forge.heads[0, 0] = text
    extra = (held(tmp_path, "nothing", text),) if place == "note" else ()
    name = "history" if place == "bundle" else "witnesses"
    assert outcomes(check(tmp_path, forge, extra=extra)) == {name: "contradicted"}


@pytest.mark.parametrize("place", ["bundle", "note", "witness entry"])
@pytest.mark.parametrize(("size", "holds"), [(3, False), (5, False), (6, True)])
def test_a_head_of_an_epoch_begins_with_its_recovery(tmp_path, forge, place, size, holds):
    """Entry 5 is the recovery: no head of the new epoch can be without it."""
    forge = recovered(forge)
    text = head(forge, size, epoch=1)
    extra = ()
    if place == "bundle":
        forge.heads[1, size] = text
    elif place == "note":
        extra = (held(tmp_path, "new", text),)
    else:
        forge.add(WitnessEntry(size=size, checkpoint=text))
    found = outcomes(check(tmp_path, forge, extra=extra))
    names = {"bundle": ["history"], "note": ["witnesses"], "witness entry": ["witnesses", "rules"]}[place]
    assert found == ({} if holds else dict.fromkeys(names, "contradicted"))


def test_a_witness_entry_without_a_witness(tmp_path, forge):
    forge.add(WitnessEntry(size=6, checkpoint=head(forge, 6, cosigned=False)))
    found = outcomes(check(tmp_path, forge))
    assert found == {"witnesses": "contradicted", "rules": "contradicted"}


def test_a_head_of_the_lost_part_by_a_key_that_is_not_known(tmp_path, forge):
    """A rotation may be among what was lost; a later one may name the key again."""
    old = forge.node
    forge.node = SigningKey.from_seed(old.name, b"l" * 32)
    forge.head(7)
    forge.node = old
    recovered(forge)
    assert outcomes(check(tmp_path, forge)) == {"signatures": "cannot decide"}
    rotation = KeyRotate(
        seq=6,
        ledger=forge.ledger,
        role="node",
        key=str(SigningKey.from_seed(old.name, b"l" * 32).verification),
    )
    new = SigningKey.from_seed(old.name, b"l" * 32)
    forge.entries.append(entry.sign(rotation, {"officer": forge.officer, "new": new, "old": old}))
    forge.node = new
    assert outcomes(check(tmp_path, forge)) == {}


def test_a_head_above_an_older_bundle_is_the_newer_bundles(tmp_path, forge):
    older = copy.deepcopy(forge)
    del older.entries[5:]
    note_of_today = held(tmp_path, "today", head(forge, 8))
    assert outcomes(check(tmp_path, older, forge, extra=(note_of_today,))) == {}
    assert outcomes(check(tmp_path, older, extra=(note_of_today,)))["witnesses"] == "contradicted"


def test_receipts_of_a_region_without_a_bundle(tmp_path, forge):
    """Also where somebody moved a receipt there: nothing can show that it was released."""
    other = Forge("US")
    other.story()
    path = receipts(tmp_path, forge, other)
    given = load([forge.bundle(tmp_path)], receipts=path, trust=trust(tmp_path, forge, other))
    assert outcomes(verify(given)) == {"regions": "cannot decide"}
    rows = read(receipts(tmp_path, forge)).receipts
    moved = (rows[0], rows[1].model_copy(update={"region": "US"}))
    given = load(
        [forge.bundle(tmp_path)],
        receipts=receipts(tmp_path, forge, receipts=moved),
        trust=trust(tmp_path, forge),
    )
    report = verify(given)
    assert outcomes(report) == {"regions": "cannot decide"}
    assert "1 of region US, whose bundle is not here" in texts(report, "regions")


def test_receipts_by_a_coordinator_that_the_trust_file_does_not_name(tmp_path, forge):
    path = trust(tmp_path, forge)
    stranger = SigningKey.generate("fedfsd/coordinator/other")
    row = f"coordinator {COORDINATOR.verification}"
    path.write_text(path.read_text().replace(row, f"coordinator {stranger.verification}"))
    report = verify(load([forge.bundle(tmp_path)], receipts=receipts(tmp_path, forge), trust=path))
    assert outcomes(report) == {"coordinator": "cannot decide"}


def test_only_the_release_was_lost(tmp_path, forge):
    """The backup has the reservation of round 2; its release and the settlement are gone."""
    path = receipts(tmp_path, forge)
    del forge.entries[6:]
    forge.heads.clear()
    forge.add(draft.recover(forge.state, lost_size=7, lost_root=None, reach="rounds"))
    forge.epoch = 1
    given = load([forge.bundle(tmp_path)], receipts=path, trust=trust(tmp_path, forge))
    assert outcomes(verify(given)) == {"receipts": "cannot decide"}


@pytest.mark.parametrize("reach", ["rounds", "unknown"])
def test_what_a_recovery_may_have_lost(tmp_path, forge, reach):
    """A plan that was settled before it can have lost rounds only where the reach is unknown."""
    path = receipts(tmp_path, forge)
    forge.drop(6)
    forge.edit(6, released=1)
    forge.heads.clear()
    forge.add(draft.recover(forge.state, lost_size=9, lost_root=None, reach=reach))
    forge.epoch = 1
    given = load([forge.bundle(tmp_path)], receipts=path, trust=trust(tmp_path, forge))
    assert outcomes(verify(given)) == {"receipts": "contradicted" if reach == "rounds" else "cannot decide"}


@pytest.mark.parametrize("given", ["earlier", "later"])
def test_a_release_may_be_in_the_ledger_that_is_not_here(tmp_path, forge, given):
    later = successor(forge, carried_rho=closed(forge).state.accounts[DATA].spent, alpha=3)
    plan = plan_of(seed=5)
    later.approve(plan)
    later.round(plan, 1)
    path = receipts(tmp_path, forge, later)
    both = load(
        [forge.bundle(tmp_path, "a.zip"), later.bundle(tmp_path, "b.zip")],
        receipts=path,
        trust=trust(tmp_path, forge, later),
    )
    assert outcomes(verify(both)) == {}
    one = forge if given == "earlier" else later
    alone = load([one.bundle(tmp_path)], receipts=path, trust=trust(tmp_path, forge, later))
    found = {"receipts": "cannot decide"} | ({"succession": "cannot decide"} if given == "later" else {})
    assert outcomes(verify(alone)) == found


def test_ledgers_that_go_on_from_each_other(tmp_path, forge):
    first, second = closed(Forge()), Forge(seed="2")
    for one, other in ((first, second), (second, first)):
        one.officer = first.officer
        one.edit(0, officer_key=str(first.officer.verification), previous=other.ledger)
    closed(second)
    for seq in (1,):
        first.edit(seq)
        second.edit(seq)
    assert outcomes(check(tmp_path, first, second)) == {"succession": "contradicted"}
    alone = closed(Forge(seed="3"))
    alone.edit(0, previous=alone.ledger)
    found = outcomes(check(tmp_path, alone))
    assert found == {"succession": "contradicted", "rules": "contradicted"}
