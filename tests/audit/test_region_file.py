"""Ledgers that the region's own program wrote, and the example of the format, as an auditor sees them."""

from __future__ import annotations

import base64
import datetime
import json
import pkgutil
from importlib import import_module
from pathlib import Path

import pytest
from forge import COORDINATOR, DATA, PURPOSE, WITNESS, Forge, outcomes, plan_of, texts, trust

import fedfsd.ledger
from fedfsd import audit, canonical
from fedfsd.audit.evidence import load
from fedfsd.audit.explained import CHECKS
from fedfsd.audit.receipt import Receipt, Receipts, sign
from fedfsd.audit.verify import claims, verify
from fedfsd.errors import BudgetError
from fedfsd.ledger import draft, entry, note, strict
from fedfsd.ledger.ledger import Ledger
from fedfsd.plan.plan import Plan


@pytest.fixture
def forge() -> Forge:
    """Only its keys are used here."""
    return Forge()


@pytest.fixture
def ledger(tmp_path, forge) -> Ledger:
    genesis = draft.genesis(node=forge.node.verification, officer=forge.officer.verification)
    genesis = entry.sign(genesis, {"officer": forge.officer, "node": forge.node})
    folder, mirror = tmp_path / "node", tmp_path / "mirror.jsonl"
    Ledger.create(folder, mirror=mirror, genesis=genesis, node=forge.node).close()
    made = Ledger(folder, mirror=mirror, today=lambda: datetime.date(2026, 11, 22))
    grant = draft.grant(made.state, data_set=DATA, data_commitment="d" * 64, delta=1e-4, epsilon=5.0)
    made.add(entry.sign(grant, {"officer": forge.officer}))
    return made


def approve(ledger: Ledger, plan: Plan) -> None:
    secret = canonical.sha256(plan.hash.encode())
    ledger.approve_plan(plan, recipient=COORDINATOR.name, purpose=PURPOSE, key_commitment=secret)


def test_what_a_region_wrote_holds(tmp_path, forge, ledger):
    plan, rows = plan_of(rounds=4), []
    approve(ledger, plan)
    for number in (1, 2, 3):
        booked = ledger.reserve(plan.hash, number, canonical.sha256(b"%d" % number))
        if number == 2:
            ledger.abort(booked, "failed")
            continue
        released = ledger.release(b"update %08d....." % number, booked)
        rows.append(
            Receipt(
                region="EU",
                plan=plan.hash,
                round=number,
                entry=released.entry_hash,
                sha256=released.sha256,
                bytes=20,
            )
        )
        ledger.witness(note.cosign(ledger.checkpoint(), WITNESS, seconds=number), [WITNESS.cosigner])
    with pytest.raises(BudgetError):
        ledger.reserve(plan.hash, 3, "0" * 64)
    ledger.settle(plan.hash)
    with pytest.raises(BudgetError):
        approve(ledger, plan_of(rounds=900, seed=1))
    ledger.bundle(tmp_path / "EU.zip")
    made = Receipts(
        run="test", coordinator=str(COORDINATOR.verification), plans=(plan.hash,), receipts=tuple(rows)
    )
    (tmp_path / "receipts.json").write_bytes(strict.encode(sign(made, COORDINATOR)))
    report = verify(
        load(
            [tmp_path / "EU.zip"],
            receipts=tmp_path / "receipts.json",
            trust=trust(tmp_path, forge),
        )
    )
    assert outcomes(report) == {}
    facts = report.parts[0].facts
    (grant,) = facts["grants"]
    assert (facts["releases"], facts["plans"], facts["refusals"]) == (2, 1, 2)
    assert grant["epsilon_spent"] == grant["epsilon_lifetime"]
    # By a formula of the audit's own: equal but for the last digit.
    assert grant["epsilon_spent"] == pytest.approx(ledger.balances()[0].epsilon_spent, rel=1e-12)


def test_the_example_of_the_format_holds(tmp_path):
    folder = Path(fedfsd.ledger.__file__).parent
    example = json.loads((folder / "vectors" / "ledger.json").read_text(encoding="utf-8"))
    files = {"EU.zip": base64.b64decode(example["bundle_base64"])}
    files |= {
        name: example[key].encode() for name, key in (("receipts.json", "receipts"), ("trust.keys", "trust"))
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    report = verify(
        load([tmp_path / "EU.zip"], receipts=tmp_path / "receipts.json", trust=tmp_path / "trust.keys")
    )
    assert outcomes(report) == {}, texts(report, "epsilon")


def written() -> set[str]:
    """The names of all checks that the audit's modules define."""
    modules = [import_module(f"fedfsd.audit.{one.name}") for one in pkgutil.iter_modules(audit.__path__)]
    found = {name for module in modules for name in vars(module) if name.startswith("check_")}
    return {name.removeprefix("check_") for name in found}


def test_every_check_says_what_it_checks(tmp_path, forge, ledger):
    ledger.bundle(tmp_path / "EU.zip")
    report = verify(load([tmp_path / "EU.zip"]))
    answers = [one for part in report.parts for one in part.answers]
    assert sorted(one.name for one in answers) == sorted(written()) == sorted(CHECKS)
    assert list(claims()) == list(CHECKS)
    for one in answers:
        assert one.claim.endswith(".")
        assert len(one.claim) <= 110
