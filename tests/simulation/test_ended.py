"""What a simulation's coordinator found in updates goes into its receipts, once a region."""

from __future__ import annotations

import numpy as np
from plan.sample import planned

from fedfsd.audit import receipt
from fedfsd.ledger.key import SigningKey
from fedfsd.report.run_folder import RELEASES, Folder
from fedfsd.simulation import books

PLAN = planned()
KEY = SigningKey.from_seed("fedfsd/coordinator/simulation", b"c" * 32)


def line(round: int, **outcomes: dict) -> dict:
    usual = {"outcome": "released", "sha256": None, "bytes": 0, "entry": None}
    return {"round": round, "regions": {name: usual | given for name, given in outcomes.items()}}


def test_the_first_round_that_was_not_the_plans_is_on_record(tmp_path):
    where = Folder(tmp_path)
    found = {"outcome": "unusual_noise", "finding": "noise-scale"}
    for one in (line(1, CN={}, EU={}), line(2, CN=found, EU={}), line(3, CN=found, EU={})):
        where.append_round(one)
    books.write_receipts(where, PLAN, [], KEY, incidents=books._incidents(where, PLAN))
    read = receipt.read(tmp_path / "receipts.json")
    assert read.is_signed
    assert (read.format, [(one.region, one.round, one.finding) for one in read.incidents]) == (
        2,
        [("CN", 2, "noise-scale")],
    )


def test_receipts_without_incidents_are_of_the_first_format(tmp_path):
    books.write_receipts(Folder(tmp_path), PLAN, [], KEY)
    content = (tmp_path / "receipts.json").read_bytes()
    assert b"incidents" not in content
    assert receipt.read(tmp_path / "receipts.json").format == 1


def test_releases_are_kept_where_they_fit_and_the_plan_promises_something(tmp_path, monkeypatch):
    where = Folder(tmp_path)
    update = {one.name: np.ones(one.shape, "<f4") for one in PLAN.model.arrays}
    where.keep_release(PLAN, "CN", 2, update)
    (path,) = (tmp_path / RELEASES).iterdir()
    assert (path.name, path.stat().st_size) == ("CN.2", 4 * PLAN.model.size)
    monkeypatch.setattr("fedfsd.report.run_folder.MOST_KEPT", 100)
    where.keep_release(PLAN, "CN", 3, update)
    assert [one.name for one in (tmp_path / RELEASES).iterdir()] == ["CN.2"]
