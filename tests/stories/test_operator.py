"""An operator's story as it is typed: from two keys on two machines to a bundle that an auditor accepts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from operator_kit import DATA, DELTA, GRANT, HUB, checkpoint, fill_in, plan, run_rounds, send

from fedfsd.cli.answer import rounded_up
from fedfsd.errors import RefusedError

pytest_plugins = ["cli.typing_user"]


@pytest.fixture
def region(fedfsd, folder):
    """Call ``fedfsd region`` for the folder eu; the call must end with the given code."""

    def call(command: str, *words: object, code: int = 0, json: bool = False):
        said = fedfsd("region", command, *words, "--region", "eu", *(["--json"] if json else []))
        assert said.code == code, said.err or said.out
        return said.document if json else said.out + said.err

    return call


@pytest.fixture
def officer(fedfsd, folder):
    """The data officer's own machine: a folder with the key, where drafts are signed."""
    away = folder / "officer"
    away.mkdir()
    assert fedfsd("keys", "new", "fedfsd/EU/officer", "-o", "officer/officer.key").code == 0
    shutil.copy(away / "officer.vkey", folder)

    def sign(draft: str | Path) -> Path:
        shutil.copy(draft, away / "draft.json")
        said = fedfsd("region", "sign", "officer/draft.json", "--officer-key", "officer/officer.key")
        assert said.code == 0, said.err
        return away / "draft.signed.json"

    return sign


@pytest.mark.slow
def test_from_the_first_key_to_the_bundle(fedfsd, folder, region, officer):
    # A region begins: the officer's private key is never on the node.
    made = fedfsd("region", "init", "EU", "-o", "eu", "--officer-vkey", "officer.vkey", "--json").document
    assert "one disk" in made["warnings"][0]
    assert "no ledger" in region("status", code=4)
    assert [one["entry"] for one in region("add", officer(made["file"]), json=True)["papers"]] == [0]
    fill_in(folder / "eu")

    # The officer grants epsilon 10 for plans like the one at hand, and wants approvals to transfer.
    one = plan(rounds=3, noise=1.0)
    sent = send(folder, one)
    words = [*GRANT, "--for", sent, "--approval-required", "--plan-cap", 5]
    granted = region("grant", *words, json=True)
    assert granted["entry"] is None
    chosen = next(order for order in granted["orders"] if order["alpha"] == granted["content"]["alpha"])
    assert chosen["fitting"] == max(order["fitting"] for order in granted["orders"])
    assert not region("status", json=True)["grants"]
    assert "epsilon 10 at delta 0.0001" in region("add", officer(granted["file"]))

    # The plan is approved; alone 2.38, it is charged more to the grant, which holds for any number of plans.
    said = region("approve", "--yes", sent)
    epsilon = one.region("EU").epsilon
    balance = region("status", json=True)["grants"][0]
    charged = f"charged to the lifetime grant {rounded_up(balance['epsilon_lifetime'])} of 10.00"
    assert f"this plan alone {rounded_up(epsilon)}; {charged}" in said
    assert epsilon < balance["epsilon_lifetime"] < 10
    assert balance["more_like_it"] == chosen["fitting"] - 1
    assert "until an approval covers its transfers" in said
    key = folder / "eu" / "keys" / f"{one.hash}.key"
    assert key.stat().st_mode & 0o777 == 0o600

    # No transfer without a permission; with it a round leaves.
    with pytest.raises(RefusedError):
        run_rounds(folder / "eu", one, 1)
    permit = ["--authority", "Data office", "--number", "2026/1", "--model", "mlp", "--from", "2020-01-01"]
    permit += ["--until", "2999-12-31", "--max-releases", 10, "--max-bytes", 10**6]
    region("add", officer(region("approve-transfer", *permit, json=True)["file"]))
    run_rounds(folder / "eu", one, 1)
    found = region("status", json=True)
    assert found["grants"][0]["epsilon_spent"] > 0
    assert [(line["round"], line["destination"]) for line in found["releases"]] == [(1, HUB)]
    assert found["releases"][0]["approval"] == "2026/1"
    assert [line["code"] for line in found["refusals"]] == ["approval"]
    assert (found["approvals"][0]["releases"], found["approvals"][0]["max_releases"]) == (1, 10)

    # The disk is put back to yesterday's state: noticed by every command, and mended from the mirror.
    shutil.copytree(folder / "eu" / "ledger", folder / "yesterday")
    run_rounds(folder / "eu", one, 2)
    today = region("status", json=True)
    shutil.rmtree(folder / "eu" / "ledger")
    shutil.copytree(folder / "yesterday", folder / "eu" / "ledger")
    for command in (
        ["status"],
        ["approve", "--yes", sent],
        ["bundle", "-o", "eu.zip"],
        ["incident", "other", "text"],
    ):
        assert "fewer entries than its mirror" in region(*command, code=4)
    assert region("recover", json=True)["entries"] == 2
    assert region("status", json=True)["grants"] == today["grants"]
    assert "nothing to bring back" in region("recover")
    run_rounds(folder / "eu", one, 3)
    assert "3 of 3 rounds released" in region("settle", one.hash[:8])
    assert not key.exists()

    # The auditor accepts what comes out, knowing nothing but the officer's public key.
    bundle = region("bundle", "-o", "eu.zip", json=True)
    assert bundle["entries"] == region("status", json=True)["entries"]
    assert fedfsd("audit", "verify", "eu.zip", "--trust", "officer.vkey").code == 0
    assert region("status", json=True)["checkpoint"]["entries_since"] == 0


@pytest.mark.slow
def test_both_copies_lost_and_a_backup_that_is_charged_for_it(fedfsd, folder, region, officer):
    made = fedfsd("region", "init", "EU", "-o", "eu", "--officer-vkey", "officer.vkey", "--json").document
    region("add", officer(made["file"]))
    fill_in(folder / "eu")
    region("add", officer(region("grant", *GRANT, json=True)["file"]))
    one = plan(rounds=3)
    region("approve", "--yes", send(folder, one))
    run_rounds(folder / "eu", one, 1)
    backup = folder / "backup"
    shutil.copytree(folder / "eu", backup)
    run_rounds(folder / "eu", one, 2)
    witnessed = checkpoint(folder / "eu")
    lost = region("status", json=True)

    # Ledger and mirror come from one backup: they agree, and only the witness knows more.
    shutil.rmtree(folder / "eu")
    shutil.copytree(backup, folder / "eu")
    assert region("status", json=True)["entries"] == lost["entries"] - 2
    (folder / "eu" / "heads" / "hub.note").write_text(witnessed, encoding="utf-8")
    assert f"where a witness has seen {lost['entries']}" in region("status", code=4)
    assert "--from-backup" in region("recover", code=4)
    draft = region("recover", "--from-backup", "--reach", "rounds", json=True)
    assert draft["content"]["lost_size"] == lost["entries"]
    assert draft["content"]["lost_root"] is not None
    region("status", code=4)  # a draft changes nothing
    region("add", officer(draft["file"]))

    found = region("status", json=True)
    (grant,) = found["grants"]
    assert (found["epoch"], grant["held"]) == (1, 0)
    assert grant["spent"] == lost["grants"][0]["spent"] + lost["grants"][0]["held"]
    assert found["plans"][0]["settled"]
    assert not (folder / "eu" / "keys" / f"{one.hash}.key").exists()
    assert "a plan that has ended" in region("approve", "--yes", "plan.json", code=12)
    region("approve", "--yes", send(folder, plan(seed=2)))
    region("bundle", "-o", "eu.zip")
    (folder / "hub.note").write_text(witnessed, encoding="utf-8")
    assert fedfsd("audit", "verify", "eu.zip", "--trust", "officer.vkey").code == 0
    assert DATA in region("status")
    assert grant["delta"] == DELTA
