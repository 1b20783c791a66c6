"""What a region that holds its own keys may write into its ledger: each misdeed meets the check it breaks."""

from __future__ import annotations

import pytest
from forge import COORDINATOR, DATA, Forge, check, epsilon_of, outcomes, plan_of, texts, trust

from fedfsd.audit.evidence import load
from fedfsd.audit.text import TWO_FIGURES, text
from fedfsd.audit.verify import verify
from fedfsd.ledger import entry
from fedfsd.ledger.entry import Abort, Close, KeyRotate, Settle
from fedfsd.ledger.key import SigningKey

# The honest story: 0 genesis, 1 grant, 2 plan, 3 reserve, 4 release, 5 reserve, 6 release, 7 settle.


@pytest.fixture
def forge() -> Forge:
    made = Forge()
    made.story()
    return made


def unreserved(forge: Forge) -> None:
    forge.drop(5)


def reserved_after(forge: Forge) -> None:
    forge.entries[5], forge.entries[6] = forge.entries[6], forge.entries[5]
    forge.renumber()


def reserved_elsewhere(forge: Forge) -> None:
    forge.edit(6, reserve=3)


def released_after_the_end(forge: Forge) -> None:
    forge.entries[6], forge.entries[7] = forge.entries[7], forge.entries[6]
    forge.renumber()


def given_up_and_released(forge: Forge) -> None:
    one = forge.entries[5]
    forge.entries.insert(6, Abort(plan=one.plan, round=one.round, reserve=5, code="failed"))
    forge.renumber()


def released_then_given_up(forge: Forge) -> None:
    one = forge.entries[5]
    forge.entries.insert(7, Abort(plan=one.plan, round=one.round, reserve=5, code="failed"))
    forge.renumber()


def never_approved(forge: Forge) -> None:
    forge.drop(2)


def released_twice(forge: Forge) -> None:
    forge.entries.insert(7, forge.entries[6].model_copy(update={"sha256": "0" * 64}))
    forge.renumber()


def reserved_twice(forge: Forge) -> None:
    forge.entries.insert(6, forge.entries[5].model_copy(update={"arrays": "0" * 64}))
    forge.renumber()


def approved_twice(forge: Forge) -> None:
    forge.entries.insert(3, forge.entries[2].model_copy(update={"key_commitment": "0" * 64}))
    forge.renumber()


def key_again(forge: Forge) -> None:
    forge.approve(plan_of(seed=1), key_commitment=forge.entries[2].key_commitment)


def no_key(forge: Forge) -> None:
    forge.edit(2, key_commitment=None)


def overspent(forge: Forge) -> None:
    forge.edit(1, rho_max=forge.entries[2].rho - 1)


def overspent_later(forge: Forge) -> None:
    """The second plan is too much; its entry was booked all the same."""
    plan = plan_of(seed=1)
    forge.approve(plan)
    forge.edit(1, rho_max=forge.entries[2].rho + 10)


def another_balance(forge: Forge) -> None:
    forge.edit(5, spent=forge.entries[5].spent - 1)


def cheaper(forge: Forge) -> None:
    """All sums agree with each other, and none with the mechanism."""
    for seq in (3, 5):
        rho = forge.entries[seq].rho // 2
        forge.edit(seq, rho=rho, spent=forge.entries[seq].spent // 2, held=forge.entries[seq].held // 2)
    forge.edit(2, rho_round=forge.entries[2].rho_round // 2, rho=forge.entries[2].rho // 2)


def freed_too_much(forge: Forge) -> None:
    forge.edit(7, freed=1)


def promised_less_than_allowed(forge: Forge) -> None:
    forge.edit(1, epsilon=7.9)


def more_plans_than_granted(forge: Forge) -> None:
    forge.edit(1, max_plans=0)


def more_rounds_than_granted(forge: Forge) -> None:
    forge.edit(1, max_rounds=1)


def above_the_cap(forge: Forge) -> None:
    forge.edit(1, plan_cap=forge.entries[2].rho - 1)


def above_the_recipients_cap(forge: Forge) -> None:
    forge.edit(1, recipient_cap=forge.entries[2].rho - 1)


def grant_replaced(forge: Forge) -> None:
    """A second grant on the same data that does not know of the first."""
    forge.add(forge.entries[1].model_copy(update={"predecessor": None}))


def no_permission(forge: Forge) -> None:
    forge.edit(1, approval_required=True)


def another_document(forge: Forge) -> None:
    document = {**forge.entries[2].document, "name": "other"}
    forge.edit(2, document=document)


def less_noise_than_planned(forge: Forge) -> None:
    forge.edit(2, event=forge.entries[2].event.model_copy(update={"noise_multiplier": 2.5}))


def less_noise_in_a_round(forge: Forge) -> None:
    forge.edit(3, event=forge.entries[3].event.model_copy(update={"noise_multiplier": 1.9}))


def more_steps_in_a_round(forge: Forge) -> None:
    forge.edit(3, event=forge.entries[3].event.model_copy(update={"steps": 6}))


def other_clip(forge: Forge) -> None:
    forge.edit(3, event=forge.entries[3].event.model_copy(update={"max_grad_norm": 2.0}))


def round_beyond_the_plan(forge: Forge) -> None:
    forge.edit(5, round=3)
    forge.edit(6, round=3)


def larger_release(forge: Forge) -> None:
    forge.edit(4, bytes=24)


def sent_elsewhere(forge: Forge) -> None:
    forge.edit(4, destination="somebody else")


def other_arrays(forge: Forge) -> None:
    forge.edit(4, schema_="0" * 64)


def unsigned_grant(forge: Forge) -> None:
    forge.entries[1] = entry.sign(forge.entries[1], {"officer": forge.node})


def unsigned_genesis(forge: Forge) -> None:
    forge.entries[0] = entry.sign(forge.entries[0], {"node": forge.officer})


def officers_key_taken(forge: Forge) -> None:
    """A rotation that only the new key signed, and a larger grant under it."""
    new = SigningKey.from_seed(forge.officer.name, b"x" * 32)
    ledger = forge.entries[0].ledger
    rotation = KeyRotate(seq=8, ledger=ledger, role="officer", key=str(new.verification))
    forge.entries.append(entry.sign(rotation, {"officer": new, "new": new}))
    larger = forge.entries[1].model_copy(update={"seq": 9, "predecessor": 1, "rho_max": 2 * 10**9})
    forge.entries.append(entry.sign(larger, {"officer": new}))


def another_ledgers_grant(forge: Forge) -> None:
    forge.edit(1, ledger="0" * 32)


def nothing_first(forge: Forge) -> None:
    forge.drop(0)


def went_on_after_the_close(forge: Forge) -> None:
    forge.entries.insert(1, Close(ledger=forge.entries[0].ledger, reason="moved"))
    forge.renumber()


def numbered_wrongly(forge: Forge) -> None:
    forge.edit(7, seq=9)


def understated(forge: Forge) -> None:
    forge.approve(plan_of(seed=2, epsilon=0.5))


MISDEEDS = {
    "reservations": (
        unreserved,
        reserved_after,
        reserved_elsewhere,
        released_after_the_end,
        given_up_and_released,
        released_then_given_up,
        never_approved,
    ),
    "once": (released_twice, reserved_twice, approved_twice, key_again, no_key),
    "filter": (
        overspent,
        overspent_later,
        another_balance,
        cheaper,
        freed_too_much,
        promised_less_than_allowed,
        more_plans_than_granted,
        more_rounds_than_granted,
        above_the_cap,
        above_the_recipients_cap,
        grant_replaced,
    ),
    "approvals": (no_permission,),
    "plans": (another_document, less_noise_than_planned),
    "rounds": (
        less_noise_in_a_round,
        more_steps_in_a_round,
        other_clip,
        round_beyond_the_plan,
        larger_release,
        sent_elsewhere,
        other_arrays,
    ),
    "signatures": (unsigned_grant, unsigned_genesis, officers_key_taken, another_ledgers_grant),
    "entries": (nothing_first, went_on_after_the_close, numbered_wrongly),
    "epsilon": (understated,),
}


def test_an_honest_ledger_holds(tmp_path, forge):
    report = check(tmp_path, forge)
    assert outcomes(report) == {}
    assert (report.headline, report.exit_code) == ("holds", 0)


@pytest.mark.parametrize(
    ("name", "misdeed"),
    [(name, misdeed) for name, misdeeds in MISDEEDS.items() for misdeed in misdeeds],
    ids=lambda one: getattr(one, "__name__", one),
)
def test_a_misdeed_meets_its_check(tmp_path, forge, name, misdeed):
    misdeed(forge)
    report = check(tmp_path, forge)
    found = outcomes(report)
    assert found.get(name) == "contradicted"
    # The ledger's own program must not accept what a check refuses; an epsilon is not its business.
    assert name == "epsilon" or found.get("rules") == "contradicted"
    assert report.exit_code == 10
    assert name in report.headline


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"recipient": "fedfsd/coordinator/other"},
        {"purpose": "marketing"},
        {"models": ("cnn",)},
        {"data_set": "other"},
        {"valid_until": "2026-11-21"},
        {"valid_from": "2026-11-23"},
        {"max_releases": 1},
        {"max_bytes": 39},
    ],
    ids=str,
)
def test_permission_covers_what_it_says(tmp_path, change):
    forge, plan = Forge(), plan_of()
    forge.grant(approval_required=True)
    permit = forge.permit()
    forge.approve(plan)
    for number in (1, 2):
        forge.round(plan, number, approval=permit)
    forge.edit(permit, **change)
    found = outcomes(check(tmp_path, forge))
    assert found == ({"approvals": "contradicted", "rules": "contradicted"} if change else {})


def test_running_totals_of_a_permission(tmp_path):
    forge, plan = Forge(), plan_of()
    forge.grant(approval_required=True)
    permit = forge.permit()
    forge.approve(plan)
    forge.round(plan, 1, approval=permit)
    forge.edit(len(forge.entries) - 1, approval_releases=2)
    assert "approvals" in outcomes(check(tmp_path, forge))


def test_a_settled_plan_frees_what_it_never_reserved(tmp_path):
    forge = Forge()
    plan, later = plan_of(rounds=4), plan_of(rounds=4, seed=1)
    forge.grant()
    cost = forge.entries[forge.approve(plan)].rho
    forge.edit(1, rho_max=cost * 5 // 4)
    forge.round(plan, 1)
    forge.add(Settle(plan=plan.hash, reserved=1, released=1, freed=cost * 3 // 4))
    forge.approve(later)
    assert outcomes(check(tmp_path, forge)) == {}


def test_a_successor_carries_the_spent_on(tmp_path, forge):
    forge.grant(epsilon=9.0)
    forge.approve(plan_of(seed=1))
    assert outcomes(check(tmp_path, forge)) == {}
    forge.edit(8, rho_max=forge.entries[2].rho)
    assert "filter" in outcomes(check(tmp_path, forge))


def test_a_rehearsal_is_never_more_than_that(tmp_path):
    forge = Forge()
    forge.story(plan_of(mode="rehearsal"), key_commitment=None)
    report = check(tmp_path, forge)
    assert (report.headline, report.exit_code) == ("cannot decide: rehearsal", 11)
    assert report.heading == "rehearsal, no guarantee"


def test_a_rehearsal_that_states_an_epsilon(tmp_path):
    forge = Forge()
    forge.story(plan_of(mode="rehearsal", epsilon=0.63), key_commitment=None)
    report = check(tmp_path, forge)
    assert (report.headline, report.exit_code) == ("contradicted: epsilon", 10)


def test_an_epsilon_stated_above_what_the_plan_costs_promises_less(tmp_path, forge):
    forge.approve(plan_of(seed=2, epsilon=0.7))
    report = check(tmp_path, forge)
    assert outcomes(report) == {}
    assert "0.7 is stated where the plan costs 0.6271" in texts(report, "epsilon")


@pytest.mark.parametrize(("below", "outcome"), [(0.009, {}), (0.011, {"epsilon": "contradicted"})])
def test_an_epsilon_may_be_as_far_below_as_accountants_differ(tmp_path, forge, below, outcome):
    forge.approve(plan_of(seed=2, epsilon=epsilon_of(2.0, 10) - below))
    assert outcomes(check(tmp_path, forge)) == outcome


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"noise_multiplier": 1e300}, "not between 0.01 and 1e+06"),
        ({"noise_multiplier": 1e160, "sample_rate": 1.0}, "not between 0.01 and 1e+06"),
        ({"noise_multiplier": 0.009}, "not between 0.01 and 1e+06"),
        ({"noise_multiplier": 0.3, "local_steps": 100}, "above 100 nats"),
        ({"target_delta": 1e-10}, "below 1e-09"),
        ({"target_delta": 0.001}, "not below 1/1000"),
    ],
    ids=str,
)
def test_an_epsilon_that_nobody_must_compute(tmp_path, changes, why):
    """The ledger books such a plan; a number stated for it is neither confirmed nor contradicted."""
    forge = Forge()
    forge.grant(epsilon=8e6, alpha=2)
    plan = plan_of(**{"epsilon": 1.0, **changes})
    forge.approve(plan)
    forge.round(plan, 1)
    report = check(tmp_path, forge)
    assert outcomes(report) == {"epsilon": "cannot decide"}
    assert why in texts(report, "epsilon")


@pytest.mark.parametrize("delta", [1e-3, 0.01])
def test_a_delta_that_promises_nothing(tmp_path, forge, delta):
    """Never contradicted: an earlier release accepted one over the roster, and what it states may be true."""
    forge.approve(plan_of(seed=1, target_delta=delta))
    report = check(tmp_path, forge)
    assert report.headline == "cannot decide: epsilon"
    assert "not below 1/1000" in texts(report, "epsilon")


@pytest.mark.parametrize(("delta", "told"), [(1e-4, False), (1.01e-4, True), (9.9e-4, True)])
def test_a_large_delta_is_told(tmp_path, forge, delta, told):
    forge.approve(plan_of(seed=1, target_delta=delta))
    report = check(tmp_path, forge)
    assert report.headline == "holds"
    assert ("above 1/10000" in texts(report, "epsilon")) == told


def test_the_clipping_norm_and_a_tiny_rate_are_no_matter(tmp_path):
    forge = Forge()
    forge.grant()
    forge.approve(plan_of(max_grad_norm=1e20, epsilon=1.0))
    forge.approve(plan_of(sample_rate=1e-300, epsilon=0.0, seed=1))
    assert b"100000000000000000000" in forge.contents[2]  # as RFC 8785 spells it
    assert outcomes(check(tmp_path, forge)) == {}


def test_more_steps_on_a_grant_than_one_plan_may_have(tmp_path):
    forge = Forge()
    forge.grant(epsilon=100.0, alpha=2)
    for seed in range(2):
        plan = plan_of(seed=seed, noise=50.0, rounds=1, local_steps=600_000, epsilon=None)
        forge.approve(plan)
        forge.round(plan, 1)
    report = check(tmp_path, forge)
    assert outcomes(report) == {}
    assert "spent (delta 0.0001, order 2)" in texts(report, "lifetime")


def test_simulated_keys_are_told(tmp_path, forge):
    forge.edit(0, simulated=True)
    report = check(tmp_path, forge)
    assert outcomes(report) == {}
    assert report.heading == "a simulation"
    assert "no person stands behind" in texts(report, "identity")


def test_data_set_and_recipient_of_the_sample():
    """The forge builds what it says it builds."""
    forge = Forge()
    forge.story()
    assert [one.type for one in forge.entries[:4]] == ["genesis", "grant", "plan", "reserve"]
    assert (forge.entries[1].data_set, forge.entries[2].recipient) == (DATA, COORDINATOR.name)
    assert forge.state.size == 8


def test_a_grant_on_which_nothing_is_spent_reads_0(tmp_path):
    forge = Forge()
    forge.grant()
    report = check(tmp_path, forge)
    (grant,) = report.parts[0].facts["grants"]
    assert (grant["epsilon_spent"], grant["epsilon_lifetime"]) == (0.0, 0.0)
    assert "epsilon 0.00 spent" in text(report)
    assert TWO_FIGURES.split(".")[1].strip()[:40] in " ".join(text(report).split())
    (balance,) = (account.balance for account in forge.state.accounts.values())
    assert (balance.epsilon_spent, balance.epsilon_lifetime) == (0.0, 0.0)


def test_who_waits_for_many_plans_is_told(tmp_path):
    forge = Forge()
    forge.grant(epsilon=50.0)
    for number in range(12):
        forge.approve(plan_of(seed=number, noise=2.0 + number, epsilon=0.7))
    told: list[str] = []
    verify(load([forge.bundle(tmp_path)], trust=trust(tmp_path, forge)), told.append)
    assert told == ["EU: epsilon of 10 of 12 plans computed"]
