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
from fedfsd.audit.verify import verify
from fedfsd.ledger import entry, note
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
