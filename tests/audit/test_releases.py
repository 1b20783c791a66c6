"""Released updates against the noise of their plan, from bytes and ledger alone; and at a region's gate."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from audit_kit import HUB, Region, audited, receipts
from plan.sample import PLANNED, REGION, by_round, noise_alone, planned

from fedfsd import canonical
from fedfsd.audit import receipt
from fedfsd.audit.receipt import ReceivedIncident
from fedfsd.audit.release import Planned
from fedfsd.audit.verdict import Outcome
from fedfsd.errors import BudgetError, NotReadyError, RefusedError, UnusualNoiseError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.gate import Gate, witness_std
from fedfsd.gate.policy import Policy
from fedfsd.gate.watch import Watcher, sight
from fedfsd.ledger import strict
from fedfsd.ledger.ledger import Booked
from fedfsd.plan.plan import Plan

ROUNDS = 6


def two_regions(**changes) -> Plan:
    """A plan of CN and EU."""
    regions = {REGION: dict(PLANNED), "EU": {**PLANNED, "roster": 40}}
    return planned(num_rounds=ROUNDS, mode="rehearsal", regions=regions, **changes)


def released(folder: Path, plan: Plan, name: str, update) -> Region:
    """A region that released ``update(round)``, bytes, in every round; files in ``folder``/releases."""
    region = Region(folder, name)
    region.grant(epsilon=1000.0)
    region.approve(plan)
    (folder / "releases").mkdir(exist_ok=True)
    for number in range(1, plan.num_rounds + 1):
        booked = region.ledger.reserve(plan.hash, number, canonical.sha256(b"%d" % number))
        made = region.ledger.release(update(number), booked)
        region.released.append((plan, number, made))
        (folder / "releases" / f"{name}.{number}").write_bytes(made.content)
    return region


def right(plan: Plan, name: str, **options):
    return lambda number: noise_alone(plan, name, number, **options)


def findings(folder: Path, *regions: Region, **options):
    """(outcome, texts) of the check of releases, and the report."""
    _, report = audited(folder, *regions, releases=folder / "releases", **options)
    found = [one for part in report.parts for one in part.answers if one.name == "releases"]
    texts = [str(finding) for one in found for finding in one.findings]
    outcomes = {one.outcome for one in found}
    return outcomes, texts, report


def test_right_releases_hold_and_their_power_is_stated(tmp_path):
    plan = two_regions()
    regions = [released(tmp_path, plan, name, right(plan, name)) for name in plan.regions]
    outcomes, texts, _ = findings(tmp_path, *regions)
    assert outcomes == {Outcome.HOLDS}
    assert all("6 updates" in text and "in the witness block of 4096 entries 9" in text for text in texts)


@pytest.mark.parametrize("scale", [0.95, 1.06])
def test_noise_of_another_scale_contradicts_with_the_rounds_number(tmp_path, scale):
    plan = two_regions()
    regions = [
        released(tmp_path, plan, REGION, right(plan, REGION, scale=scale)),
        released(tmp_path, plan, "EU", right(plan, "EU")),
    ]
    outcomes, texts, report = findings(tmp_path, *regions)
    assert Outcome.CONTRADICTED in outcomes
    assert report.exit_code == 10
    (named,) = [text for text in texts if "noise-scale" in text]
    assert named.startswith(f"plan {plan.hash[:8]}, round ")
    assert int(named.split("round ")[1].split(":")[0]) <= 3


def test_one_key_in_two_regions_contradicts(tmp_path):
    plan = two_regions()

    def shared(name):
        def update(number):
            arrays = gate_arrays.view(noise_alone(plan, REGION, number), plan.model.arrays)
            ratio = np.float32(witness_std(plan, name, number) / witness_std(plan, REGION, number))
            scaled = {key: ratio * array for key, array in arrays.items()}
            return gate_arrays.to_bytes(scaled, plan.model.arrays)

        return update

    regions = [released(tmp_path, plan, name, shared(name)) for name in plan.regions]
    outcomes, texts, _ = findings(tmp_path, *regions)
    assert Outcome.CONTRADICTED in outcomes
    assert any("round 1: got noise-overlap: noise used before, in other regions" in text for text in texts)


def test_what_is_missing_leaves_the_rest_decided(tmp_path):
    plan = two_regions()
    regions = [released(tmp_path, plan, name, right(plan, name)) for name in plan.regions]
    (tmp_path / "releases" / "CN.3").unlink()
    (tmp_path / "releases" / "CN.5").write_bytes(b"of another plan")
    outcomes, texts, report = findings(tmp_path, *regions)
    assert Outcome.UNDECIDED in outcomes
    assert report.exit_code == 11
    assert any(
        "2 of 6 rounds are not here (rounds 3, 5); the statistics are of the other 4" in one for one in texts
    )
    for path in (tmp_path / "releases").iterdir():
        path.unlink()
    outcomes, texts, _ = findings(tmp_path, *regions)
    assert outcomes == {Outcome.UNDECIDED}
    with pytest.raises(NotReadyError, match="no folder"):
        audited(tmp_path, *regions, releases=tmp_path / "nowhere")


@pytest.mark.parametrize("plan", [two_regions(), by_round((1.0, 2.0, 4.0)), planned(local_steps=1)], ids=str)
def test_both_gates_and_the_auditor_see_the_same_update_alike(tmp_path, plan):
    """The planned noise is worked out twice, with and without the mechanism's formula."""
    for number in range(1, plan.num_rounds + 1):
        path = tmp_path / str(number)
        path.write_bytes(noise_alone(plan, REGION, number))
        mine = plan.region(REGION)
        theirs = sight(
            gate_arrays.view(path.read_bytes(), plan.model.arrays),
            mine.noise,
            number,
            rate=plan.learning_rate(number),
            momentum=plan.optimizer.momentum,
            divisor=mine.divisor,
        )
        ours = Planned.of(plan.as_written(), REGION).sight(path, number)
        np.testing.assert_allclose(ours.witness, theirs.witness, rtol=1e-12)
        assert [name for name, _ in ours.groups] == [name for name, _ in theirs.groups]
        assert (ours.lattice is None) == (theirs.lattice is None) == (mine.local_steps > 1)
        assert ours.lattice is None or ours.lattice == pytest.approx(theirs.lattice, rel=1e-12)


def test_gradients_that_take_back_what_earlier_noise_moved_are_no_alarm(tmp_path):
    plan = planned(num_rounds=40, local_steps=3)
    mine, random, seen = plan.region(REGION), np.random.default_rng(1), []
    for number in range(1, plan.num_rounds + 1):
        rate = plan.learning_rate(number)
        last = rate * mine.noise.std(number) / mine.divisor
        arrays = gate_arrays.view(noise_alone(plan, REGION, number), plan.model.arrays)
        left = {
            name: array if name == "noise_witness" else random.normal(0, last, array.shape).astype(np.float32)
            for name, array in arrays.items()
        }
        Watcher(tmp_path).look(left, plan, REGION, number)
        (tmp_path / "update").write_bytes(gate_arrays.to_bytes(left, plan.model.arrays))
        ours = Planned.of(plan.as_written(), REGION).sight(tmp_path / "update", number)
        seen += [values for _, values in ours.groups]
    assert np.concatenate(seen).std() == pytest.approx(1, abs=0.1)


# The region's own gate.


def gated(folder: Path, plan: Plan) -> tuple[Region, Gate]:
    region = Region(folder, REGION)
    region.grant(epsilon=1000.0)
    region.approve(plan)
    gate = Gate(REGION, Policy(modes=("rehearsal",)), region.folder)
    gate.__dict__["ledger"] = region.ledger
    return region, gate


def test_unusual_noise_ends_the_plan_at_the_gate_and_contradicts_the_ledger(tmp_path):
    plan = planned(num_rounds=ROUNDS)
    region, gate = gated(tmp_path, plan)
    refused = 0
    for number in range(1, ROUNDS + 1):
        try:
            booked = region.ledger.reserve(plan.hash, number, canonical.sha256(b"%d" % number))
            gate.release_bytes(noise_alone(plan, REGION, number, scale=0.94), booked, plan)
        except UnusualNoiseError as error:
            refused, finding = number, error.finding
            break
    assert 1 <= refused <= 3
    assert finding == "noise-scale"
    with pytest.raises(RefusedError, match=f"ended here with an incident in round {refused}"):
        region.ledger.reserve(plan.hash, refused + 1, canonical.sha256(b"next"))
    with pytest.raises(RefusedError, match="ended"):  # nor the same round once more
        region.ledger.reserve(plan.hash, refused, canonical.sha256(b"%d" % refused))
    region.ledger.settle(plan.hash)
    _, report = audited(tmp_path, region)
    answers = {one.name: one for part in report.parts for one in part.answers}
    assert answers["rules"].outcome == Outcome.HOLDS
    (finding,) = answers["incidents"].findings
    assert str(finding).startswith(f"plan {plan.hash[:8]}, round {refused}: got noise-scale: noise of 0.9")
    assert report.headline == "contradicted: incidents"


def test_a_round_that_is_judged_again_counts_once_and_a_restart_loses_nothing(tmp_path):
    """As after a crash between the statistics and the ledger."""
    plan = planned(num_rounds=ROUNDS)
    seen = []
    for again in (1, 3):
        folder = tmp_path / str(again)
        for number in range(1, ROUNDS + 1):
            arrays = gate_arrays.view(noise_alone(plan, REGION, number, scale=0.985), plan.model.arrays)
            for _ in range(again):
                Watcher(folder).look(arrays, plan, REGION, number)
        files = sorted(path.name for path in (folder / plan.hash).iterdir())
        assert files == [f"{REGION}.{ROUNDS - 1}.npz", f"{REGION}.{ROUNDS}.npz"]
        seen.append((folder / plan.hash / files[-1]).read_bytes())
    assert seen[0] == seen[1]


def test_a_damaged_state_is_begun_anew(tmp_path):
    plan = planned(num_rounds=ROUNDS)
    arrays = gate_arrays.view(noise_alone(plan, REGION, 1), plan.model.arrays)
    Watcher(tmp_path).look(arrays, plan, REGION, 1)
    (tmp_path / plan.hash / f"{REGION}.1.npz").write_bytes(b"half a fi")
    arrays = gate_arrays.view(noise_alone(plan, REGION, 2), plan.model.arrays)
    Watcher(tmp_path).look(arrays, plan, REGION, 2)


def test_an_incident_is_of_a_booked_round_and_once_a_plan(tmp_path):
    plan = planned(num_rounds=ROUNDS)
    region, _ = gated(tmp_path, plan)
    booked = region.ledger.reserve(plan.hash, 1, canonical.sha256(b"1"))
    region.ledger.end(booked, finding="noise-scale", text="noise of 0.5 times what is planned")
    size = region.ledger.state.size
    region.ledger.end(booked, finding="noise-scale", text="once more")
    assert region.ledger.state.size == size
    unknown = Booked("0" * 64, 1, booked.arrays_sha256)
    with pytest.raises(BudgetError):
        region.ledger.end(unknown, finding="noise-scale", text="of no plan")


# The coordinator's record.


def test_what_the_coordinator_refused_contradicts_the_region(tmp_path):
    plan = two_regions()
    regions = [released(tmp_path, plan, name, right(plan, name)) for name in plan.regions]
    path = receipts(tmp_path, *regions)
    found = receipt.read(path)
    assert found.format == 1
    incident = ReceivedIncident(region="EU", plan=plan.hash, round=4, finding="noise-overlap")
    made = found.model_copy(update={"format": 2, "incidents": (incident,)})
    path.write_bytes(strict.encode(receipt.sign(made, HUB)))
    assert receipt.read(path).incidents == (incident,)
    _, report = audited(tmp_path, *regions, receipts=path)
    assert report.headline == "contradicted: receipts"
    texts = [
        str(one) for part in report.parts for a in part.answers if a.name == "receipts" for one in a.findings
    ]
    assert any(
        f"plan {plan.hash[:8]}, round 4: got an update unlike the plan's, by the coordinator's word alone"
        in one
        for one in texts
    )
