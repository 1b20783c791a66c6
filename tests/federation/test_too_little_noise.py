"""One region of a federation adds too little noise: its part ends, and every record names the round."""

from __future__ import annotations

import pytest
from conftest import experiment_of
from federation import Federation

from fedfsd.audit.evidence import load
from fedfsd.audit.verdict import Outcome
from fedfsd.audit.verify import verify
from fedfsd.engine import local
from fedfsd.engine.noise import of_step
from fedfsd.gate.gate import Gate
from fedfsd.gate.watch import Watcher
from fedfsd.ledger.entry import Incident
from fedfsd.report.run_folder import Folder
from fedfsd.runner.region import Region
from fedfsd.simulation import books

FAULTY, SHARE = "EU", 0.85


class Quiet:
    """A stream with less noise than it is asked for."""

    def __init__(self, stream):
        self._stream = stream

    def whole(self, count, scale, /):
        return (self._stream.whole(count, scale) * SHARE).round()


@pytest.fixture
def federation(tmp_path, drives_path, monkeypatch):
    """No single update of the region is far off, and no replay looked at its program before."""

    def quiet(key, step, device):
        stream = of_step(key, step, device)
        return Quiet(stream) if key.region == FAULTY else stream

    monkeypatch.setattr(local.noises, "of_step", quiet)
    monkeypatch.setattr(Region, "replay", lambda *_: None)
    return Federation(tmp_path, experiment_of(drives_path, rounds=4))


def evidence_in(folder):
    """What an auditor is given of a run."""
    receipts = folder / "receipts.json"
    return load(
        sorted((folder / "bundles").glob("*.zip")),
        trust=folder / "trust.keys",
        receipts=receipts if receipts.exists() else None,
    )


def finished(federation, folder):
    """All rounds; the outcomes of the faulty region, and what an auditor makes of the evidence."""
    where = Folder(folder)

    def keep(done):
        found = {
            name: {
                "outcome": one.code,
                "sha256": one.sha256,
                "bytes": one.bytes,
                "entry": one.entry,
                "finding": one.finding,
            }
            for name, one in done.outcomes.items()
        }
        where.append_round({"round": done.number, "regions": found})

    rounds = federation.rounds(federation.strategy(Watcher(folder / "watch")), on_round=keep)
    folders = {name: folder / "regions" / name for name in federation.plan.regions}
    books.Evidence(federation.prepared, where, folders).finish()
    evidence = evidence_in(folder)
    report = verify(evidence)
    wrong = [
        str(finding)
        for part in report.parts
        for answer in part.answers
        if answer.outcome == Outcome.CONTRADICTED
        for finding in answer.findings
    ]
    return [one.outcomes[FAULTY] for one in rounds], evidence, report, wrong


def test_its_own_gate_ends_it(federation, tmp_path):
    outcomes, evidence, report, wrong = finished(federation, tmp_path)
    codes = [one.code for one in outcomes]
    last = codes.index("unusual_noise")
    assert codes == ["released"] * last + ["unusual_noise"] * (4 - last)
    # What its own gate found stands in the region's ledger and in the coordinator's receipts.
    mine = next(one for one in evidence.ledgers if one.region == FAULTY)
    (found,) = [one for one in mine.entries() if isinstance(one, Incident)]
    assert (found.round, found.finding) == (last + 1, "noise-scale")
    assert all(one.finding == "noise-scale" for one in outcomes[last:])
    assert [(one.region, one.round, one.finding) for one in evidence.receipts.incidents] == [
        (FAULTY, last + 1, "noise-scale")
    ]
    assert report.exit_code == 10
    assert any(f"round {last + 1}: got noise-scale" in one for one in wrong)
    assert any(f"round {last + 1}: got an update unlike the plan's: noise-scale" in one for one in wrong)
    # Either alone shows it.
    (tmp_path / "receipts.json").unlink()
    assert verify(evidence_in(tmp_path)).exit_code == 10


def test_without_its_gate_the_coordinators_does(federation, tmp_path, monkeypatch):
    usual = Gate._demand_usual
    monkeypatch.setattr(
        Gate, "_demand_usual", lambda gate, *given: None if gate.region == FAULTY else usual(gate, *given)
    )
    outcomes, evidence, report, wrong = finished(federation, tmp_path)
    codes = [one.code for one in outcomes]
    last = codes.index("unusual_noise")
    assert outcomes[last].finding == "noise-scale"
    assert codes == ["released"] * last + ["unusual_noise"] * (4 - last)
    assert [(one.region, one.round, one.finding) for one in evidence.receipts.incidents] == [
        (FAULTY, last + 1, "noise-scale")
    ]
    assert report.exit_code == 10
    assert any(f"round {last + 1}" in one and "noise-scale" in one for one in wrong)
