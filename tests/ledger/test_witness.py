"""Witnesses: they cosign what extends, notice forks and second ledgers, and follow keys and recoveries."""

from __future__ import annotations

import dataclasses
import shutil

import ledger_kit as kit
import pytest
from ledger_kit import ARRAYS

from fedfsd.errors import RefusedError
from fedfsd.ledger import draft, entry, note
from fedfsd.ledger.entry import KeyRotate
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.ledger import Ledger
from fedfsd.ledger.witness import Witness, show

PLAN = kit.plan_of(rounds=3)
KEY = SigningKey.from_seed("witness/one", b"w" * 32)


@pytest.fixture
def witness(tmp_path):
    return Witness(tmp_path / "witness", KEY)


@pytest.fixture
def ledger(tmp_path):
    return kit.ready(tmp_path / "region", PLAN)


def present(ledger, witness, close=None):
    genesis = ledger.state.genesis
    epoch, size = witness.position(genesis.region, genesis.ledger)
    return show(ledger.state, ledger.checkpoint(), epoch=epoch, size=size, close=close)


def cosigned(ledger, witness, close=None) -> str:
    return witness.accept(present(ledger, witness, close), seconds=1_800_000_000)


def second(tmp_path, **options) -> tuple[Ledger, SigningKey]:
    """Another ledger of the same region, by the same officer."""
    node = draft.node_key(kit.REGION)
    made = draft.genesis(node=node.verification, officer=kit.OFFICER.verification, **options)
    made = entry.sign(made, {"officer": kit.OFFICER, "node": node})
    folder = tmp_path / node.name[-6:]
    folder.mkdir()
    return Ledger.create(folder, mirror=folder / "mirror.jsonl", genesis=made, node=node), node


def test_growing_ledgers_are_cosigned_and_booked(ledger, witness):
    for round in (1, 2, 3):
        kit.run_round(ledger, PLAN, round)
        text = cosigned(ledger, witness)
        ledger.witness(text, [KEY.cosigner])
    assert witness.position("EU", "0" * 32) == (0, 11)
    assert kit.reopen(ledger.folder.parent, heads=[text])
    with pytest.raises(EvidenceError, match="no cosignature"):
        ledger.witness(ledger.checkpoint(), [KEY.cosigner])


def test_a_fork_is_not_cosigned(tmp_path, ledger, witness):
    shutil.copytree(tmp_path / "region", tmp_path / "fork")
    ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    cosigned(ledger, witness)
    fork = kit.reopen(tmp_path / "fork")
    with pytest.raises(EvidenceError, match="extend"):
        cosigned(fork, witness)
    fork.reserve(PLAN.hash, 1, ARRAYS[2])
    fork.reserve(PLAN.hash, 2, ARRAYS[2])
    with pytest.raises(EvidenceError, match="extend"):
        cosigned(fork, witness)
    assert witness.position("EU", "0" * 32) == (0, 4)


def test_an_older_head_is_not_cosigned_again(ledger, witness):
    shown = present(ledger, witness)
    witness.accept(shown, seconds=0)
    ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    cosigned(ledger, witness)
    with pytest.raises(EvidenceError):
        witness.accept(shown, seconds=0)


def test_strangers_and_changed_proofs_are_refused(ledger, witness):
    shown = present(ledger, witness)
    other = SigningKey.generate(kit.NODE.name)
    text = note.sign(note.Note.parse(shown.checkpoint).text, [other])
    first, *rest = shown.statements
    for wrong in (
        dataclasses.replace(shown, checkpoint=text),
        dataclasses.replace(shown, statements=()),
        dataclasses.replace(shown, statements=(*rest,)),
        dataclasses.replace(shown, statements=(dataclasses.replace(first, proof=()), *rest)),
        dataclasses.replace(shown, statements=(dataclasses.replace(first, content=b"{}"), *rest)),
    ):
        with pytest.raises(EvidenceError):
            witness.accept(wrong, seconds=0)
    assert witness.position("EU", "0" * 32) == (0, 0)
    witness.accept(shown, seconds=0)


def test_a_second_ledger_needs_a_close(tmp_path, ledger, witness):
    cosigned(ledger, witness)
    other, _ = second(tmp_path)
    with pytest.raises(RefusedError, match="second ledger"):
        cosigned(other, witness)
    close = kit.sign(entry.Close(ledger="0" * 32, reason="new machine"))
    forged = entry.sign(close, {"officer": SigningKey.generate(kit.OFFICER.name)})
    after, _ = second(tmp_path, previous="0" * 32)
    with pytest.raises(RefusedError):
        cosigned(after, witness, close=entry.encode(forged))
    with pytest.raises(RefusedError):
        cosigned(other, witness, close=entry.encode(close))  # names no previous ledger
    cosigned(after, witness, close=entry.encode(close))
    with pytest.raises(RefusedError):
        cosigned(ledger, witness)


def test_a_close_that_was_seen_is_remembered(tmp_path, ledger, witness):
    ledger.add(kit.sign(entry.Close(ledger="0" * 32, reason="new machine")))
    cosigned(ledger, witness)
    after, _ = second(tmp_path, previous="0" * 32)
    cosigned(after, witness)


def test_a_data_set_has_one_region(tmp_path, ledger, witness):
    cosigned(ledger, witness)
    node, officer = draft.node_key("EU2"), draft.officer_key("EU2")
    made = draft.genesis(node=node.verification, officer=officer.verification)
    made = entry.sign(made, {"officer": officer, "node": node})
    (tmp_path / "other").mkdir()
    other = Ledger.create(
        tmp_path / "other", mirror=tmp_path / "other" / "mirror.jsonl", genesis=made, node=node
    )
    same = {"data_commitment": "d" * 64, "delta": 1e-4, "epsilon": 8.0}
    grant = draft.grant(other.state, data_set=kit.DATA, **same)
    other.add(entry.sign(grant, {"officer": officer}))
    with pytest.raises(RefusedError, match=kit.DATA):
        cosigned(other, witness)


def test_keys_are_followed(ledger, witness):
    cosigned(ledger, witness)
    new, officer = SigningKey.generate(kit.NODE.name), SigningKey.generate(kit.OFFICER.name)
    turned = KeyRotate(ledger="0" * 32, role="officer", key=str(officer.verification))
    ledger.add(entry.sign(turned, {"officer": kit.OFFICER, "new": officer}))
    turned = KeyRotate(ledger="0" * 32, role="node", key=str(new.verification))
    ledger.rotate(entry.sign(turned, {"officer": officer, "new": new, "old": kit.NODE}), new)
    text = cosigned(ledger, witness)
    assert note.cosigners(note.Note.parse(text), [KEY.cosigner])


def test_a_recovery_is_followed_when_it_owns_up(tmp_path, ledger, witness):
    shutil.copytree(tmp_path / "region", tmp_path / "backup")
    kit.run_round(ledger, PLAN, 1)
    cosigned(ledger, witness)
    backup = kit.reopen(tmp_path / "backup")
    made = draft.recover(backup.state, lost_size=4, lost_root=None, reach="unknown")
    shutil.copytree(tmp_path / "backup", tmp_path / "modest")
    backup.add(kit.sign(made))
    with pytest.raises(EvidenceError, match="forgets"):
        cosigned(backup, witness)
    shutil.copytree(tmp_path / "modest", tmp_path / "another")
    other = kit.reopen(tmp_path / "another")
    other.add(kit.sign(made.model_copy(update={"lost_size": 5, "lost_root": "0" * 64})))
    with pytest.raises(EvidenceError, match="another history"):
        cosigned(other, witness)
    honest = kit.reopen(tmp_path / "modest")
    honest.add(kit.sign(made.model_copy(update={"lost_size": 5})))
    assert cosigned(honest, witness).startswith(kit.NODE.name + "/1\n")
    assert witness.position("EU", "0" * 32) == (1, 4)
    honest.incident("software", "restored from the backup")
    cosigned(honest, witness)
    with pytest.raises(EvidenceError):  # the lost branch is over
        cosigned(ledger, witness)
