"""``fedfsd region``: every refusal with its exit code, every answer as JSON, files for their owner alone."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest
from operator_kit import DATA, GRANT, HUB, checkpoint, fill_in, plan, run_rounds, send
from operator_kit import region as ready

from fedfsd import canonical
from fedfsd.config.load import load
from fedfsd.gate.policy import Policy
from fedfsd.ledger.key import SigningKey
from fedfsd.node.node import open_node

pytest_plugins = ["typing_user"]
OFFICER = "fedfsd/EU/officer"
PERMIT = ["--authority", "Office", "--number", "1", "--from", "2020-01-01", "--until", "2999-12-31"]
PERMIT += ["--max-releases", 9, "--max-bytes", 10**6, "--model", "mlp"]
KEY = ["--officer-key", "officer.key"]


@pytest.fixture
def officer(folder) -> SigningKey:
    """The data officer's key, in officer.key and officer.vkey."""
    made = SigningKey.generate(OFFICER)
    made.write(folder / "officer.key")
    (folder / "officer.vkey").write_text(f"# the officer's\nofficer {made.verification}\n", encoding="utf-8")
    return made


@pytest.fixture
def eu(folder, officer) -> Path:
    """A region with a grant of epsilon 10, its folder named eu."""
    return ready(folder)


@pytest.fixture
def region(fedfsd):
    """Call a command for the folder eu."""
    return lambda command, *words: fedfsd("region", command, *words, "--region", "eu")


def files(folder: Path) -> dict[str, bytes]:
    """Every file of the region but the lock files of SQLite."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.endswith(("-wal", "-shm", ".sqlite"))
    }


def refused(said, code: str, exit_code: int) -> str:
    """One line that says what is wrong and how to mend it, and nothing else."""
    assert said.code == exit_code, said.err or said.out
    assert not said.out
    assert said.err.startswith(f"{code}: ")
    assert said.err.count("\n") == 1
    return said.err


# Beginning.


def test_init_makes_files_for_their_owner_alone(fedfsd, folder, officer):
    mask = os.umask(0o022)
    assert fedfsd("region", "init", "EU", "-o", "eu", *KEY).code == 0
    fill_in(folder / "eu")
    (folder / "table.parquet").write_bytes(b"some table")
    words = [*GRANT, "--data", "table.parquet", *KEY, "--region", "eu"]
    assert fedfsd("region", "grant", *words).code == 0
    send(folder, plan())
    assert fedfsd("region", "approve", "--yes", "plan.json", "--region", "eu").code == 0
    assert fedfsd("region", "rotate", "--region", "eu").code == 0
    kinds = {path.relative_to(folder / "eu").parts[0] for path in (folder / "eu").rglob("*")}
    assert {"ledger", "mirror", "keys", "salts", "drafts", "heads", "region.toml", "policy.toml"} <= kinds
    for path in (folder / "eu", *(folder / "eu").rglob("*")):
        assert path.stat().st_mode & 0o077 == 0, path
    assert os.umask(mask) == 0o022  # as it was


def test_the_policy_it_writes_is_the_default_one_in_words(fedfsd, folder, officer):
    fedfsd("region", "init", "EU", "-o", "eu", *KEY)
    written = load(Policy, folder / "eu" / "policy.toml")
    assert written == Policy(round_seconds=10.0)  # a new region hides how long its training takes
    named = set(tomllib.loads((folder / "eu" / "policy.toml").read_text(encoding="utf-8")))
    assert named == set(Policy.model_fields) - {"roster", "identity", "format"}
    assert fedfsd("config", "check", "eu/policy.toml", "--kind", "policy").code == 0


def test_a_mirror_on_a_disk_of_its_own(fedfsd, folder, officer):
    (folder / "second").mkdir()
    made = fedfsd("region", "init", "EU", "-o", "eu", "--mirror", "second", *KEY, "--json").document
    assert Path(made["mirror"]).parent == folder / "second"
    assert Path(made["mirror"]).read_bytes().count(b"\n") == 1


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (["EU"], "usage", 2),
        (["EU", "-o", "eu"], "usage", 2),
        (["EU", "-o", "eu", *KEY, "--officer-vkey", "officer.vkey"], "usage", 2),
        (["no name", "-o", "eu", *KEY], "usage", 2),
        (["coordinator", "-o", "eu", *KEY], "usage", 2),
        (["US", "-o", "eu", *KEY], "usage", 2),  # another region's officer
        (["EU", "-o", "eu", "--officer-vkey", "officer.key"], "usage", 2),  # the private part
        (["EU", "-o", "eu", "--officer-vkey", "nonsense"], "usage", 2),
        (["EU", "-o", "eu", "--officer-key", "none.key"], "not_ready", 4),
        (["EU", "-o", "full", *KEY], "not_ready", 4),
        (["EU", "-o", ".", *KEY], "not_ready", 4),
        (["EU", "-o", "..", *KEY], "not_ready", 4),
        (["EU", "-o", "eu", "--mirror", "none", *KEY], "not_ready", 4),
        (["EU", "-o", "eu", "--previous", "x", *KEY], "config", 3),
    ],
)
def test_a_beginning_that_is_refused_leaves_nothing(fedfsd, folder, officer, words, code, exit_code):
    (folder / "full").mkdir()
    (folder / "full" / "something").touch()
    before = sorted(folder.rglob("*"))
    said = fedfsd("region", "init", *words)
    refused(said, code, exit_code)
    assert "PRIVATE" not in said.err
    assert sorted(folder.rglob("*")) == before
    as_json = fedfsd("region", "init", *words, "--json")
    assert (as_json.code, as_json.error["code"]) == (exit_code, code)


# Papers.


def test_a_draft_can_be_read_without_the_key_and_signed_by_the_right_one(fedfsd, folder, officer, region):
    made = fedfsd("region", "init", "EU", "-o", "eu", "--officer-vkey", "officer.vkey", "--json").document
    draft = made["file"]
    said = fedfsd("region", "sign", draft)
    assert said.code == 0
    assert "not signed" in said.out
    assert "sign only if" in said.out
    SigningKey.generate(OFFICER).write(folder / "other.key")
    SigningKey.generate("fedfsd/coordinator/hub").write(folder / "hub.key")
    for key in ("other.key", "hub.key"):
        refused(fedfsd("region", "sign", draft, "--officer-key", key), "usage", 2)
    assert "fedfsd region sign" in refused(region("add", draft), "evidence", 10)
    assert not (folder / "eu" / "ledger" / "ledger.sqlite").exists()
    (signed,) = fedfsd("region", "sign", draft, *KEY, "--json").document["papers"]
    assert signed["content"]["signatures"]["officer"] != made["papers"][0]["content"]["signatures"]["officer"]
    assert region("add", signed["file"]).code == 0
    before = files(folder / "eu")
    assert region("add", signed["file"], "--json").document["papers"][0]["entry"] == 0  # it is there already
    assert files(folder / "eu") == before


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"no json", b'{"type":"refuse"}', b"\xff\xfe", b"[" * 100_000, b"x" * 5_000_000]
)
def test_a_paper_that_is_none(fedfsd, folder, eu, region, content):
    (folder / "bad.json").write_bytes(content)
    refused(fedfsd("region", "sign", "bad.json", *KEY), "config", 3)
    refused(region("add", "bad.json"), "config", 3)
    refused(region("add", "none.json"), "not_ready", 4)


def test_a_paper_that_was_changed_after_signing(fedfsd, folder, eu, region):
    draft = fedfsd("region", "grant", *GRANT, "--region", "eu", "--json").document["file"]
    signed = Path(fedfsd("region", "sign", draft, *KEY, "--json").document["papers"][0]["file"])
    text = signed.read_text(encoding="utf-8")
    signed.write_text(text.replace('"delta":0.0001', '"delta":0.00001'), encoding="utf-8")
    before = files(eu)
    refused(region("add", signed), "evidence", 10)
    assert files(eu) == before


def test_an_entry_that_needs_no_officer_is_no_paper(fedfsd, folder, eu, region):
    region("incident", "other", "something")
    line = next((eu / "mirror").iterdir()).read_bytes().splitlines()[-1]
    (folder / "incident.json").write_bytes(line)
    assert "type incident" in refused(region("add", "incident.json"), "config", 3)


# Grants.


def test_the_order_of_a_grant_is_chosen_for_the_plans_it_pays_for(fedfsd, folder, officer):
    fedfsd("region", "init", "EU", "-o", "eu", *KEY)
    send(folder, plan(noise=0.8))
    words = ["grant", *GRANT, "--for", "plan.json", "--region", "eu"]
    found = fedfsd("region", *words, "--json").document
    orders = {order["alpha"]: order["fitting"] for order in found["orders"]}
    assert orders[found["content"]["alpha"]] == max(orders.values()) > min(orders.values())
    assert "such plans that fit" in fedfsd("region", *words).out
    assert found["content"]["epsilon"] == 10
    assert found["content"]["data_commitment"] != "0" * 64


def test_a_commitment_is_opened_by_what_stays_here(fedfsd, folder, eu):
    import hashlib

    (folder / "a.parquet").write_bytes(b"some table")
    words = [*GRANT, "--data", "a.parquet", "--region", "eu", "--json"]
    found = fedfsd("region", "grant", *words).document["content"]["data_commitment"]
    again = fedfsd("region", "grant", *words).document["content"]["data_commitment"]
    assert found != again  # salted
    opening = (eu / "salts" / f"{found[:16]}.json").read_bytes()
    assert hashlib.sha256(b"fedfsd/data-set/v1\n" + opening).hexdigest() == found
    content = json.loads(opening)
    assert content["files"] == {"a.parquet": canonical.sha256(b"some table")}
    assert len(content["salt"]) == 64


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (["--epsilon", 10, "--delta", 1e-4], "usage", 2),
        (["--epsilon", 0, "--delta", 1e-4, "--data-set", "new"], "plan", 3),
        (["--epsilon", "nan", "--delta", 1e-4, "--data-set", "new"], "plan", 3),
        (["--epsilon", "inf", "--delta", 1e-4, "--data-set", "new"], "plan", 3),
        (["--epsilon", 10, "--delta", 2, "--data-set", "new"], "plan", 3),
        (["--epsilon", 10, "--delta", 0.01, "--data-set", "new"], "plan", 3),  # above 1 / roster
        (["--epsilon", 10, "--delta", 1e-3, "--data-set", "new"], "plan", 3),  # one over the roster
        (["--epsilon", 10, "--delta", 1e-4, "--data-set", "new", "--alpha", 65], "plan", 3),
        (["--epsilon", 10, "--delta", 1e-4, "--data-set", "a\nb"], "config", 3),
        (["--epsilon", 10, "--delta", 1e-4, "--data-set", "new", "--data", "none"], "data", 4),
        (["--epsilon", 10, "--delta", 1e-4, "--data-set", "new", "--plan-cap", 0.1], "plan", 3),
        (["--epsilon", 1, "--delta", 1e-4, "--data-set", "new", "--for", "plan.json"], "budget", 12),
        (["--epsilon", 1, "--delta", 1e-4, "--data-set", "new", "--for", "none.json"], "not_ready", 4),
        (["--epsilon", 1, "--delta", 1e-4, "--data-set", "new", "--for", "officer.key"], "plan", 3),
    ],
)
def test_a_grant_that_is_refused(folder, eu, region, words, code, exit_code):
    send(folder, plan(noise=0.5))
    before = files(eu)
    refused(region("grant", *words), code, exit_code)
    assert files(eu) == before


def test_a_successor_keeps_what_is_spent(fedfsd, folder, eu, region):
    send(folder, plan())
    region("approve", "--yes", "plan.json")
    first = fedfsd("region", "status", "--region", "eu", "--json").document["grants"][0]
    small = ["--epsilon", first["epsilon_lifetime"] - 0.01, "--delta", 1e-4, "--data-set", DATA]
    refused(region("grant", *small, *KEY), "budget", 12)
    refused(region("grant", *GRANT, "--disjoint", *KEY), "budget", 12)  # while a plan is open
    assert region("grant", "--epsilon", 12, "--delta", 1e-4, "--data-set", DATA, *KEY).code == 0
    second = fedfsd("region", "status", "--region", "eu", "--json").document["grants"][0]
    assert (second["alpha"], second["held"], second["epsilon"]) == (first["alpha"], first["held"], 12)


# Plans.


def test_a_plan_above_the_cap_goes_to_the_officer(fedfsd, folder, officer, region):
    eu = ready(folder, plan_cap=4.0)
    send(folder, plan(noise=0.8))
    said = fedfsd("region", "approve", "--yes", "plan.json", "--region", "eu", "--json")
    assert said.code == 12
    assert said.document["approved"] is False
    assert said.document["entry"] is None
    assert "not approved yet" in region("approve", "--yes", "plan.json").out
    refused(region("add", said.document["file"]), "budget", 12)  # without the signature
    signed = fedfsd("region", "sign", said.document["file"], *KEY, "--json").document["papers"][0]["file"]
    assert region("add", signed).code == 0
    assert fedfsd("region", "approve", "--yes", "plan.json", "--region", "eu", "--json").document["approved"]
    run_rounds(eu, plan(noise=0.8), 1, 2, 3)


def test_a_plan_that_does_not_fit_says_what_would(fedfsd, folder, eu, region):
    send(folder, plan(rounds=400, noise=0.8))
    words = ["approve", "--yes", "plan.json", "--set", "transfer.purpose=tests"]
    (eu / "policy.toml").write_text(
        (eu / "policy.toml").read_text(encoding="utf-8").replace("max_epsilon = 10.0", "max_epsilon = 100.0"),
        encoding="utf-8",
    )
    text = refused(region(*words), "budget", 12)
    assert "rounds would fit, or all with noise_multiplier" in text
    assert not list((eu / "keys").iterdir())
    (line,) = fedfsd("region", "status", "--region", "eu", "--json").document["refusals"]
    assert line["code"] == "budget"


def test_a_plan_that_is_signed_too_late(fedfsd, folder, officer, region):
    eu = ready(folder, plan_cap=4.0)
    last = plan(rounds=20, noise=1.0)
    drafts = []
    for seed in (1, 2, 3):
        send(folder, plan(rounds=20, noise=1.0, seed=seed))
        drafts.append(fedfsd("region", "approve", "--yes", "plan.json", "--region", "eu", "--json"))
    signed = [
        fedfsd("region", "sign", said.document["file"], *KEY, "--json").document["papers"][0]["file"]
        for said in drafts
    ]
    codes = [region("add", path).code for path in signed]
    assert codes[0] == 0
    assert codes[-1] == 12
    assert fedfsd("region", "status", "--region", "eu", "--json").document["refusals"]
    run_rounds(eu, last, 1)


@pytest.mark.parametrize(
    ("changes", "code", "exit_code"),
    [
        ({"roster": 999}, "refused", 13),
        ({"mode": "rehearsal"}, "refused", 13),
        ({"noise": 0.4}, "refused", 13),
        ({"region": "US"}, "plan", 3),
    ],
)
def test_a_plan_outside_the_policy(fedfsd, folder, eu, region, changes, code, exit_code):
    send(folder, plan(**changes))
    refused(region("approve", "--yes", "plan.json"), code, exit_code)
    assert not list((eu / "keys").iterdir())
    found = fedfsd("region", "status", "--region", "eu", "--json").document
    assert [line["code"] for line in found["refusals"]] == (["policy"] if exit_code == 13 else [])
    assert not found["plans"]


def test_a_region_that_declares_too_little_approves_nothing(fedfsd, folder, officer, region):
    fedfsd("region", "init", "EU", "-o", "eu", *KEY)
    send(folder, plan())
    assert "roster" in refused(region("approve", "--yes", "plan.json"), "config", 3)
    fill_in(folder / "eu")
    assert "fedfsd region grant" in refused(region("approve", "--yes", "plan.json"), "budget", 12)
    region("grant", *GRANT, *KEY)
    said = region("approve", "--yes", "plan.json", "--set", 'transfer.recipient=""')
    assert "transfer.recipient" in refused(said, "config", 3)
    (folder / "eu" / "policy.toml").write_text('roster = 1000\nidentity = "physical"\nmodes = ["none"]\n')
    assert "modes" in refused(region("approve", "--yes", "plan.json"), "config", 3)


def test_a_plan_is_approved_once_and_runs_once(fedfsd, folder, eu, region):
    send(folder, plan())
    first = fedfsd("region", "approve", "--yes", "plan.json", "--region", "eu", "--json").document
    assert fedfsd("region", "approve", "--yes", "plan.json", "--region", "eu", "--json").document == first
    assert region("settle", "plan.json").code == 0
    refused(region("approve", "--yes", "plan.json"), "budget", 12)
    balance = fedfsd("region", "status", "--region", "eu", "--json").document["grants"][0]
    assert (balance["spent"], balance["held"]) == (0, 0)
    refused(region("settle", "0" * 8), "budget", 12)
    refused(region("settle", "zzz"), "budget", 12)


def test_a_transfer_without_a_grant_or_with_nonsense(fedfsd, folder, officer, region):
    fedfsd("region", "init", "EU", "-o", "eu", *KEY)
    fill_in(folder / "eu")
    refused(region("approve-transfer", *PERMIT, *KEY), "budget", 12)
    region("grant", *GRANT, *KEY)
    refused(region("approve-transfer", *PERMIT, "--from", "2026-02-30", *KEY), "config", 3)
    refused(region("approve-transfer", *PERMIT, "--data-set", "other", *KEY), "budget", 12)
    refused(region("approve-transfer", *PERMIT, "--until", "2019-01-01", *KEY), "evidence", 10)
    assert region("approve-transfer", *PERMIT, *KEY).code == 0
    refused(region("approve-transfer", *PERMIT, *KEY), "evidence", 10)  # a number used before
    (found,) = fedfsd("region", "status", "--region", "eu", "--json").document["approvals"]
    assert (found["recipient"], found["number"], found["void"]) == (HUB, "1", False)


# After a loss.


def test_a_damaged_ledger_is_refused_and_comes_back_from_the_mirror(fedfsd, folder, eu, region):
    send(folder, plan())
    region("approve", "--yes", "plan.json")
    before = fedfsd("region", "status", "--region", "eu", "--json").document["grants"]
    database = eu / "ledger" / "ledger.sqlite"
    for damage in (b"not a database at all" * 100, database.read_bytes()[:5000] + bytes(20_000), b""):
        for name in ("-wal", "-shm"):
            database.with_name(database.name + name).unlink(missing_ok=True)
        database.write_bytes(damage)
        assert "recover" in refused(region("status"), "not_ready", 4)
        assert region("recover").code == 0
        assert fedfsd("region", "status", "--region", "eu", "--json").document["grants"] == before
    shutil.rmtree(eu / "ledger")
    refused(region("status"), "not_ready", 4)
    assert region("recover").code == 0  # the ledger is back; the node's key is not
    assert "rotate" in refused(region("status"), "not_ready", 4)
    assert region("rotate", *KEY).code == 0
    assert fedfsd("region", "status", "--region", "eu", "--json").document["grants"] == before


def test_only_the_mirror_is_left(fedfsd, folder, eu, region):
    mirror = next((eu / "mirror").iterdir())
    shutil.copy(mirror, folder / "mirror.jsonl")
    shutil.rmtree(eu)
    assert region("recover", "--mirror", "mirror.jsonl").code == 0
    assert region("rotate", *KEY).code == 0
    found = fedfsd("region", "status", "--region", "eu", "--json").document
    assert found["grants"][0]["data_set"] == DATA
    assert any("roster" in warning for warning in found["warnings"])
    refused(region("recover", "--mirror", "mirror.jsonl"), "not_ready", 4)


def test_a_lost_mirror_begins_again_only_where_nobody_knows_more(fedfsd, folder, eu, region):
    old = folder / "old"
    shutil.copytree(eu / "ledger", old)
    send(folder, plan())
    region("approve", "--yes", "plan.json")
    seen = checkpoint(eu)
    next((eu / "mirror").iterdir()).unlink()
    said = refused(region("recover"), "not_ready", 4)
    assert "--new-mirror" in said
    assert "--from-backup" in said
    refused(region("recover", "--new-mirror", "--from-backup"), "usage", 2)
    shutil.copytree(eu, folder / "kept")
    assert region("recover", "--new-mirror").code == 0
    assert region("status").code == 0
    refused(region("recover", "--new-mirror"), "not_ready", 4)  # there is one now
    # The same with a ledger that was put back, and a witness that knows it.
    shutil.rmtree(eu)
    shutil.copytree(folder / "kept", eu)
    shutil.rmtree(eu / "ledger")
    shutil.copytree(old, eu / "ledger")
    (eu / "heads" / "w.note").write_text(seen, encoding="utf-8")
    assert "--from-backup" in refused(region("recover", "--new-mirror"), "not_ready", 4)
    assert region("recover", "--from-backup", *KEY).code == 0
    (grant,) = fedfsd("region", "status", "--region", "eu", "--json").document["grants"]
    assert grant["left"] == 0  # nobody said how far the loss reaches


def test_a_backup_is_not_charged_where_the_mirror_has_it_all(fedfsd, folder, eu, region):
    shutil.copytree(eu / "ledger", folder / "old")
    region("incident", "other", "one more entry")
    shutil.rmtree(eu / "ledger")
    shutil.copytree(folder / "old", eu / "ledger")
    refused(region("recover", "--from-backup", *KEY), "not_ready", 4)
    assert region("recover").code == 0


def test_two_histories_are_never_mended(fedfsd, folder, eu, region):
    shutil.copytree(eu, folder / "twin")
    region("incident", "other", "a single history")
    assert fedfsd("region", "incident", "other", "another", "--region", "twin").code == 0
    shutil.rmtree(eu / "ledger")
    shutil.copytree(folder / "twin" / "ledger", eu / "ledger")
    before = files(eu)
    assert "another history" in refused(region("status"), "not_ready", 4)
    assert "a history that differs" in refused(region("recover"), "not_ready", 4)
    assert files(eu) == before


@pytest.mark.parametrize("text", ["", "nonsense\n", "\udcff", "a\n1\nb\n\n— c d\n" * 9000])
def test_a_head_that_is_none_is_never_passed_over(fedfsd, folder, eu, region, text):
    (eu / "heads" / "w.note").write_bytes(text.encode(errors="surrogateescape"))
    assert "w.note" in refused(region("status"), "not_ready", 4)


def test_the_head_of_another_ledger(fedfsd, folder, eu, region):
    (folder / "b").mkdir()
    other = ready(folder / "b")
    (eu / "heads" / "w.note").write_text(checkpoint(other), encoding="utf-8")
    refused(region("status"), "evidence", 10)


def test_a_backup_without_the_key(fedfsd, folder, eu, region):
    (eu / "ledger" / "node.key").unlink()
    next((eu / "mirror").iterdir()).unlink()
    assert region("recover", "--from-backup", "--reach", "rounds", *KEY).code == 0
    assert "not the current one" in region("status").out
    refused(region("bundle", "-o", "eu.zip"), "not_ready", 4)
    assert region("rotate", *KEY).code == 0
    assert region("bundle", "-o", "eu.zip").code == 0


# Keys, the end, the rest.


def test_keys_are_rotated_with_the_officers_signature(fedfsd, folder, eu, region, officer):
    first = fedfsd("region", "status", "--region", "eu", "--json").document
    draft = fedfsd("region", "rotate", "--region", "eu", "--json").document["file"]
    assert fedfsd("region", "status", "--region", "eu", "--json").document["node_key"] == first["node_key"]
    refused(region("add", draft), "evidence", 10)
    signed = fedfsd("region", "sign", draft, *KEY, "--json").document["papers"][0]["file"]
    assert region("add", signed).code == 0
    assert region("add", signed).code == 0  # nothing new
    fedfsd("keys", "new", OFFICER, "-o", "new.key")
    words = ["rotate", "--officer-vkey", "new.vkey"]
    refused(region(*words, *KEY), "usage", 2)
    assert region(*words, *KEY, "--new-key", "new.key").code == 0
    found = fedfsd("region", "status", "--region", "eu", "--json").document
    assert found["node_key"] != first["node_key"]
    assert found["officer_key"] != str(officer.verification)
    refused(region("close", "over", *KEY), "evidence", 10)  # the old officer
    assert region("close", "over", "--officer-key", "new.key").code == 0
    assert "CLOSED" in region("status").out
    refused(region("incident", "other", "too late"), "evidence", 10)
    assert region("bundle", "-o", "eu.zip").code == 0


def test_what_is_written_down_must_be_plain(fedfsd, eu, region):
    for text in ("", "x" * 2001, "\x1b[2J", "a\u2028b"):
        refused(region("incident", "other", text), "config", 3)
    refused(region("incident", "weather", "rain"), "usage", 2)
    refused(region("incident", "other", "about a plan", "--plan", "00000000"), "budget", 12)
    assert region("incident", "other", "x" * 2000).code == 0


@pytest.mark.parametrize(
    ("words", "code", "exit_code"),
    [
        (["status", "--region", "none"], "not_ready", 4),
        (["status", "--region", "officer.key"], "not_ready", 4),
        (["bundle", "--region", "eu", "-o", "eu.tar"], "not_ready", 4),
        (["bundle", "--region", "eu", "-o", "none/eu.zip"], "not_ready", 4),
        (["approve", "none.json", "--yes", "--region", "eu"], "not_ready", 4),
        (["approve", "officer.key", "--yes", "--region", "eu"], "plan", 3),
        (["approve", "--yes", "eu/ledger/ledger.sqlite", "--region", "eu"], "plan", 3),
        (["approve", "--yes", "plan.json", "--region", "eu", "--set", "transfer.recipeint=x"], "config", 3),
    ],
)
def test_calls_that_cannot_be(fedfsd, folder, eu, words, code, exit_code):
    send(folder, plan())
    before = files(eu)
    refused(fedfsd("region", *words), code, exit_code)
    as_json = fedfsd("region", *words, "--json")
    assert (as_json.code, as_json.error["code"]) == (exit_code, code)
    assert files(eu) == before


def test_every_command_answers_with_one_document(fedfsd, folder, eu):
    sent = send(folder, plan())
    calls = {
        "grant": [*GRANT, "--for", sent],
        "plans": [],
        "plan": [sent],
        "approve": [sent, "--yes"],
        "approve-transfer": PERMIT,
        "status": [],
        "incident": ["other", "text"],
        "bundle": ["-o", "eu.zip"],
        "recover": [],
        "settle": [sent],
        "rotate": [],
        "close": ["over"],
    }
    paper = {"type", "entry", "file", "facts", "content"}
    keys = {"grant": paper | {"orders"}, "approve-transfer": paper, "rotate": paper, "close": paper}
    for command, words in calls.items():
        said = fedfsd("region", command, *words, "--region", "eu", "--json")
        assert said.code == 0, said.err
        assert keys.get(command, set()) <= set(said.document), command
        assert not said.err
    assert {"approved", "epsilon", "epsilon_lifetime", "epsilon_granted"} <= set(
        fedfsd("region", "approve", "--yes", send(folder, plan(seed=9)), "--region", "eu", "--json").document
    )


def test_foreign_text_reaches_the_terminal_without_its_controls(fedfsd, folder, eu, region):
    one = plan().model_copy(update={"name": "a\x1b[2J\u202eb"})
    (folder / "plan.json").write_text(one.document(), encoding="utf-8")
    said = region("approve", "--yes", "plan.json")
    assert said.code == 0
    status = region("status")
    assert "\x1b" not in said.out + status.out
    assert "\u202e" not in said.out + status.out


def test_it_runs_where_torch_and_flwr_are_not_installed(folder, eu):
    send(folder, plan())
    code = """
import sys

class Missing:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "flwr", "opacus", "highway_env", "matplotlib"):
            raise ModuleNotFoundError(name=name)

sys.meta_path.insert(0, Missing)
from fedfsd.cli.main import run
run(sys.argv[1:])
"""
    for words in (["approve", "--yes", "plan.json"], ["status"], ["bundle", "-o", "eu.zip"]):
        done = subprocess.run(
            [sys.executable, "-c", code, "region", *words, "--region", "eu", "--json"],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        json.loads(done.stdout)


def test_a_run_key_that_is_lost_is_told(fedfsd, folder, eu, region):
    send(folder, plan())
    region("approve", "--yes", "plan.json")
    next((eu / "keys").iterdir()).unlink()
    assert "its run key is lost" in region("status").out
    with closing(open_node(eu).open_ledger()) as ledger:
        assert ledger.state.runs[plan().hash].settled is False
