"""The guarantee in sentences: the figures again by other arithmetic, and what must never be said."""

from __future__ import annotations

import json
import math
import re

import dp_accounting as dp
import forge
import pytest
from audit_kit import DELTA, Region, audited, plan_of, trust
from dp_accounting import pld

from fedfsd.audit.declaration import Declaration, Exporter, Practice
from fedfsd.audit.evidence import load
from fedfsd.audit.report import report
from fedfsd.audit.report_page import page
from fedfsd.audit.report_page import text as markdown
from fedfsd.audit.statement import statement
from fedfsd.audit.statement_text import text
from fedfsd.audit.verify import verify
from fedfsd.cli import main
from fedfsd.ledger import draft

NEVER = re.compile(r"anonym|de-?identif|complian|complies|comply|exempt|GDPR", re.IGNORECASE)
Q, STEPS = 0.1, 4


def loss(noise: float, steps: int, alpha: int) -> float:
    """Renyi loss in nats, in plain floats: Mironov, Talwar, Zhang 2019, section 3.3."""
    moment = sum(
        math.comb(alpha, k) * (1 - Q) ** (alpha - k) * Q**k * math.exp(k * (k - 1) / (2 * noise**2))
        for k in range(alpha + 1)
    )
    return steps * math.log(moment) / (alpha - 1)


def at_delta(rho: float, alpha: int, delta: float = DELTA) -> float:
    """The epsilon of a Renyi loss: Canonne, Kamath, Steinke 2020, proposition 12."""
    return rho + math.log(1 - 1 / alpha) - math.log(delta * alpha) / (alpha - 1)


def exactly(noise: float, steps: int) -> float:
    """The epsilon of a plan alone, straight from dp-accounting."""
    accountant = pld.PLDAccountant(dp.NeighboringRelation.REPLACE_SPECIAL, value_discretization_interval=1e-4)
    accountant.compose(dp.PoissonSampledDpEvent(Q, dp.GaussianDpEvent(noise)), steps)
    return accountant.get_epsilon(DELTA)


def words(document: dict) -> str:
    return re.sub(r"\s+", " ", text(document))


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """EU ran one plan and has another one half done; CN ran one, under a smaller grant of another order."""
    folder = tmp_path_factory.mktemp("two")
    eu, cn = Region(folder, "EU"), Region(folder, "CN")
    first, second = plan_of("EU", "CN", rounds=3), plan_of("EU", rounds=4, noise=3.0, name="second")
    grants = {"EU": eu.grant(epsilon=8.0), "CN": cn.grant(epsilon=4.0, delta=1e-5)}
    assert grants["EU"].alpha < grants["CN"].alpha
    eu.run(first)
    eu.approve(second)
    eu.round(second, 1)
    cn.run(first)
    return folder, grants, *audited(folder, eu, cn)


def test_figures_are_those_of_other_arithmetic(two):
    _, grants, evidence, found = two
    document = statement(evidence, found)
    cn, eu = document["regions"]
    (data,) = eu["data_sets"]
    alpha = grants["EU"].alpha
    first, booked, whole = loss(2.0, 12, alpha), loss(3.0, 4, alpha), loss(3.0, 16, alpha)
    assert data["epsilon_spent"] == pytest.approx(at_delta(first + booked, alpha), abs=1e-6)
    assert data["epsilon_lifetime"] == pytest.approx(at_delta(first + whole, alpha), abs=1e-6)
    plans = data["plans"]
    assert [one["epsilon"] for one in plans] == pytest.approx([exactly(2.0, 12), exactly(3.0, 16)], abs=1e-6)
    assert plans[1]["epsilon_booked"] == pytest.approx(exactly(3.0, 4), abs=1e-6)
    assert [one["epsilon_lifetime"] for one in plans] == pytest.approx(
        [at_delta(first, alpha), at_delta(first + whole, alpha)], abs=1e-6
    )
    assert [(one["booked"], one["released"], one["rounds"]) for one in plans] == [(3, 3, 3), (1, 1, 4)]
    (other,) = cn["data_sets"]
    order = grants["CN"].alpha
    assert other["epsilon_lifetime"] == pytest.approx(at_delta(loss(2.0, 12, order), order, 1e-5), abs=1e-6)


def test_the_joint_claim_is_the_largest(two):
    document = statement(two[2], two[3])
    joint = document["joint"]
    lifetimes = [one["data_sets"][0]["epsilon_lifetime"] for one in document["regions"]]
    assert joint["epsilon_grant"] == 8.0
    assert joint["epsilon_lifetime"] == max(lifetimes)
    assert joint["delta"] == DELTA
    assert "provided that each vehicle is in one data set of one region only" in words(document)


def test_losses_of_vehicles_that_cross_add_up_at_the_smaller_order(two):
    _, grants, evidence, found = two
    joint = statement(evidence, found, vehicles_cross=True)["joint"]
    alpha = grants["EU"].alpha
    charged = loss(2.0, 12, alpha) + loss(3.0, 16, alpha) + loss(2.0, 12, alpha)
    granted = (grants["EU"].rho_max + grants["CN"].rho_max) / 1e9
    assert joint["epsilon_lifetime"] == pytest.approx(at_delta(charged, alpha), abs=1e-6)
    assert joint["epsilon_grant"] == pytest.approx(at_delta(granted, alpha), abs=1e-6)
    assert joint["epsilon_grant"] > 8.0
    assert "added up" in joint["sentences"][0]


def test_a_lawyer_can_quote_it(two):
    said = words(statement(two[2], two[3]))
    for part in (
        "For each vehicle on the roster (1,000 vehicles), all that region EU releases under the grant",
        "with epsilon at most 8.00 at delta 1 in 10,000, also where plans are chosen after looking",
        f"this plan alone epsilon {math.ceil(exactly(2.0, 12) * 100) / 100:.2f} at delta 1 in 10,000",
        "charged to the lifetime grant",
        "At most 1,000 plans and 100,000 rounds, with no end date; 2 plans with 7 rounds",
        "Identity, as declared: A vehicle key stands for one real vehicle",
        "Unit: One vehicle",
        "Adjacency: Zero-out",
        "Trust model: Each region adds its own noise",
        "Covered: Every release that the ledger records",
        "Not covered: What does not pass through the ledger",
        "Not shown by any ledger",
    ):
        assert part in said, part


def test_figures_are_never_shown_smaller_than_they_are(two):
    document = statement(two[2], two[3])
    data = document["regions"][1]["data_sets"][0]
    shown = re.search(
        r"epsilon_lifetime ([0-9.]+) is charged", " ".join(s["text"] for s in data["sentences"])
    )
    assert 0 <= float(shown[1]) - data["epsilon_lifetime"] < 0.01


def test_one_plan_run_to_its_end_is_a_guarantee_of_its_own(tmp_path):
    eu = Region(tmp_path)
    eu.grant()
    plan = plan_of()
    eu.run(plan)
    assert "this figure is itself a guarantee." in words(statement(*audited(tmp_path, eu)))
    eu.approve(plan_of(name="chosen later"))
    assert "where nobody chose a plan" in words(statement(*audited(tmp_path, eu)))


def test_a_plan_that_ended_early_says_so(tmp_path):
    eu = Region(tmp_path)
    eu.grant()
    plan = plan_of(rounds=5)
    eu.approve(plan)
    eu.round(plan, 1)
    eu.ledger.settle(plan.hash)
    document = statement(*audited(tmp_path, eu))
    (data,) = document["regions"][0]["data_sets"]
    assert f"ended early, 1 round booked: {math.ceil(exactly(2.0, 4) * 100) / 100:.2f}" in words(document)
    assert data["epsilon_lifetime"] == data["epsilon_spent"]
    assert "where nobody chose a plan, or ended one" in words(document)


def test_a_successor_includes_what_came_before_and_disjoint_vehicles_begin_anew(tmp_path):
    eu = Region(tmp_path)
    eu.grant(epsilon=6.0)
    eu.run(plan_of())
    eu.grant(epsilon=9.0, carried_rho=10**8)
    alpha = eu.ledger.state.accounts["fleet-2026"].grant.alpha
    document = statement(*audited(tmp_path, eu))
    (data,) = document["regions"][0]["data_sets"]
    assert data["epsilon_grant"] == 9.0
    assert data["epsilon_spent"] == pytest.approx(at_delta(loss(2.0, 12, alpha) + 0.1, alpha), abs=1e-6)
    assert "charged under earlier grants (entries 1)" in words(document)
    assert "0.1 nats suffered outside this ledger" in words(document)

    eu.grant(epsilon=5.0, disjoint=True)
    document = statement(*audited(tmp_path, eu))
    old, new = document["regions"][0]["data_sets"]
    assert (old["epsilon_grant"], new["epsilon_grant"]) == (9.0, 5.0)
    assert (old["epsilon_spent"] > 0, new["epsilon_spent"]) == (True, 0.0)
    assert "nothing more is charged here" in words(document)
    assert "declares that no vehicle of the grant before it is in these data" in words(document)
    assert document["joint"]["epsilon_grant"] == 9.0


def test_a_recovery_is_charged_at_its_worst(tmp_path):
    eu = Region(tmp_path)
    eu.grant()
    plan = plan_of(rounds=4)
    eu.approve(plan)
    eu.round(plan, 1)
    size = eu.ledger.state.size
    eu.signed(draft.recover(eu.ledger.state, lost_size=size + 2, lost_root=None, reach="rounds"))
    alpha = eu.ledger.state.accounts["fleet-2026"].grant.alpha
    evidence, found = audited(tmp_path, eu)
    (data,) = statement(evidence, found)["regions"][0]["data_sets"]
    whole = at_delta(loss(2.0, 16, alpha), alpha)
    assert data["epsilon_spent"] == data["epsilon_lifetime"] == pytest.approx(whole, abs=1e-6)
    crossing = statement(evidence, found, vehicles_cross=True)["joint"]
    assert crossing["epsilon_lifetime"] == pytest.approx(whole, abs=1e-6)


def test_nothing_charged_and_nothing_granted(tmp_path):
    eu, us = Region(tmp_path), Region(tmp_path, "US")
    eu.grant()
    document = statement(*audited(tmp_path, eu, us))
    assert "Nothing is charged to this grant yet" in words(document)
    assert "No guarantee is stated: there is no grant." in words(document)
    assert document["regions"][0]["data_sets"][0]["epsilon_lifetime"] == 0.0


def test_contradicted_evidence_states_no_guarantee(tmp_path):
    spender, honest = forge.Forge("US"), forge.Forge("EU")
    for one in (spender, honest):
        one.story()
    spender.edit(1, rho_max=1)
    evidence = load(
        [honest.bundle(tmp_path), spender.bundle(tmp_path)], trust=forge.trust(tmp_path, honest, spender)
    )
    document = statement(evidence, verify(evidence))
    eu, us = document["regions"]
    assert (eu["guarantee"], us["guarantee"], document["joint"]["guarantee"]) == (True, False, False)
    assert us["data_sets"] == []
    assert any("nano-nats spent and held" in one for one in us["contradictions"])
    own = text(document).split("Region US")[1].split("All regions")[0]
    assert "No guarantee is stated: the evidence contradicts itself." in own
    assert "epsilon" not in own


def test_a_file_that_is_no_bundle_states_nothing(tmp_path):
    path = tmp_path / "EU.zip"
    path.write_bytes(b"PK nothing of the kind")
    evidence = load([path])
    document = statement(evidence, verify(evidence))
    assert document["regions"] == []
    assert not document["joint"]["guarantee"]
    assert "archive" in document["contradictions"][0]


def test_a_rehearsal_promises_nothing(tmp_path):
    eu = Region(tmp_path)
    eu.grant()
    eu.run(plan_of())
    eu.run(plan_of(mode="rehearsal"))
    evidence, found = audited(tmp_path, eu)
    document = statement(evidence, found)
    (data,) = document["regions"][0]["data_sets"]
    assert document["heading"] == "rehearsal, no guarantee"
    assert text(document).startswith("STATEMENT OF PRIVACY GUARANTEE: REHEARSAL, NO GUARANTEE")
    assert not data["guarantee"]
    assert [data[name] for name in ("epsilon_grant", "epsilon_lifetime", "epsilon_spent")] == [None] * 3
    assert not document["joint"]["guarantee"]
    assert not re.search(r"epsilon (at most )?[0-9]", words(document))
    assert found.exit_code == 11


def test_a_simulation_is_headed_so(tmp_path):
    eu = Region(tmp_path, simulated=True)
    plan = plan_of()
    eu.grant(epsilon=None, events=plan.events("EU"))
    eu.run(plan)
    document = statement(*audited(tmp_path, eu))
    assert document["heading"] == "simulated"
    assert "no person stands behind them" in words(document)


def test_without_keys_it_is_conditional(tmp_path):
    eu = Region(tmp_path)
    eu.grant()
    eu.run(plan_of())
    evidence = load([eu.bundle()])
    document = statement(evidence, verify(evidence))
    assert "What follows holds if what could not be decided, listed at the end, holds." in words(document)
    assert "nothing shows whose keys these are" in words(document)


def test_two_bundles_of_one_ledger_are_one_region(tmp_path):
    eu = Region(tmp_path)
    eu.grant()
    plan = plan_of()
    eu.approve(plan)
    early = eu.bundle().rename(tmp_path / "early.zip")
    eu.round(plan, 1)
    evidence = load([early, eu.bundle()], trust=trust(tmp_path, eu))
    document = statement(evidence, verify(evidence))
    assert [one["source"] for one in document["regions"]] == ["EU.zip"]
    assert document["outcome"] == "holds"


def test_words_of_a_legal_status_never_appear(tmp_path):
    """Neither ours nor a region's: a label must not turn a guarantee into another one."""
    eu = Region(tmp_path)
    label = "anonymised, GDPR-compliant fleet (De-Identified)"
    eu.grant(data_set=label)
    eu.approve(plan_of(), purpose="full compliance", data_set=label)
    eu.ledger.incident("other", "we comply; all is Anonymous")
    said = Practice(vehicles_in_other_regions="anonymous", utility="it complies")
    declared = {
        "EU": Declaration(region="EU", exporter=Exporter(legal_entity="Compliance Ltd"), practice=said)
    }
    evidence, found = audited(tmp_path, eu)
    stated, full = statement(evidence, found, declared), report(evidence, found, declared)
    for output in (text(stated), json.dumps(stated), page(full), markdown(full), json.dumps(full)):
        assert not NEVER.search(output), NEVER.search(output)[0]
    assert "[…]" in text(stated)


@pytest.mark.parametrize(("extra", "code"), [(["--trust", "trust.keys"], 0), ([], 11)])
def test_the_command(two, extra, code, monkeypatch, capsys):
    monkeypatch.chdir(two[0])
    with pytest.raises(SystemExit) as end:
        main.run(["audit", "statement", "EU.zip", "CN.zip", *extra, "--vehicles-cross"])
    out = capsys.readouterr().out
    assert end.value.code == code
    assert out.startswith("STATEMENT OF PRIVACY GUARANTEE\n")
    assert not NEVER.search(out)
    with pytest.raises(SystemExit):
        main.run(["audit", "statement", "EU.zip", *extra, "-o", "statement.json"])
    assert json.loads((two[0] / "statement.json").read_text())["kind"] == "fedfsd-statement"
