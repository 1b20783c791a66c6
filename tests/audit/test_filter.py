"""The audit's own sums, to the nano-nat, and against the ledger's on any course."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger.account_kit import SIGNED, grant, plan, recover, reserve, settle

from fedfsd.audit.filter import Sum, Walk, check_filter, sums
from fedfsd.errors import BudgetError
from fedfsd.ledger.budget import SLACK, Account, opened
from fedfsd.mechanism.event import Event
from fedfsd.mechanism.renyi import NANO, epsilon_lifetime

LIVE = "the live grant of a data set"
TWO, THREE = plan(1, rounds=2), plan(2, rounds=3)


def found(*entries: Any) -> list[str]:
    """What the check says of these entries, one text each."""
    return [str(one) for one in check_filter(SimpleNamespace(entries=lambda: entries))]


def stand(*entries: Any) -> Sum:
    """Where the one data set stands after these entries."""
    (one,) = sums(SimpleNamespace(entries=lambda: entries)).values()
    return one


def test_a_new_sum_is_empty():
    one = Sum(grant())
    assert (one.spent, one.held, one.plans, one.rounds) == (0, 0, 0, 0)


def test_an_honest_course_has_no_findings_and_adds_up():
    course = (
        grant(carried_rho=NANO, max_rounds=5, max_plans=2),
        TWO,
        THREE,
        reserve(TWO, 1, spent=2, held=4),
        reserve(THREE, 1, spent=3, held=3),
        settle(THREE, freed=2),
        reserve(TWO, 2, spent=4, held=0),
        settle(TWO, freed=0),
    )
    assert found(*course) == []
    one = stand(*course)
    assert (one.spent, one.held, one.plans, one.rounds) == (4 * NANO, 0, 2, 3)
    assert one.recipients == {"hub": 3 * NANO}
    assert one.events == [Event(1.0, 1.0, 1)] * 3


@pytest.mark.parametrize(
    ("exact", "short", "place"),
    [
        ({"rho_max": 6 * NANO}, {"rho_max": 6 * NANO - 1}, "nano-nats spent and held"),
        ({"max_plans": 2}, {"max_plans": 1}, "plans"),
        ({"max_rounds": 5}, {"max_rounds": 4}, "rounds"),
    ],
)
def test_a_grant_ends_where_it_says(exact, short, place):
    assert found(grant(carried_rho=NANO, **exact), TWO, THREE) == []
    (one,) = found(grant(carried_rho=NANO, **short), TWO, THREE)
    assert one.startswith(f"entry 102 (plan), {place}: got ")
    assert one.endswith("by entry 1")


def test_caps_bind_what_the_officer_has_not_signed():
    capped = grant(plan_cap=2 * NANO, recipient_cap=4 * NANO)
    other, more = plan(2, rounds=2), plan(3)
    assert found(capped, TWO, other) == []
    (one,) = found(capped, TWO, other, more)
    assert f"got {5 * NANO} nano-nats for this recipient unsigned, expected at most {4 * NANO}" in one
    assert found(capped, TWO, other, plan(3, recipient="another")) == []
    assert found(capped, TWO, other, plan(3, signatures=SIGNED)) == []
    (one,) = found(capped, THREE)
    assert f"got {3 * NANO} nano-nats for this plan unsigned" in one
    # What a settled plan did not use counts for no recipient.
    assert found(capped, TWO, other, settle(TWO, freed=2), more) == []


def test_a_settled_plan_gives_its_rounds_back():
    short = grant(max_rounds=4)
    course = (short, THREE, reserve(THREE, 1, spent=1, held=2), settle(THREE, freed=2))
    assert found(*course, plan(3, rounds=3)) == []
    assert any("rounds" in one for one in found(*course, plan(3, rounds=4)))


def test_a_plan_of_no_live_grant():
    (one,) = found(grant(), plan(1, grant=2))
    assert one == f"entry 101 (plan): got grant 2, expected {LIVE}"


@pytest.mark.parametrize(
    ("field", "value"), [("rho", NANO - 1), ("spent", 2 * NANO), ("held", 2 * NANO), ("grant", 3)]
)
def test_a_booking_says_what_it_costs_and_what_stands(field, value):
    booked = reserve(TWO, 1, spent=1, held=1)
    assert found(grant(), TWO, booked) == []
    (one,) = found(grant(), TWO, booked.model_copy(update={field: value}))
    assert one.startswith(f"entry 200 (reserve), {field}: got {value}, expected ")


def test_a_round_too_many_is_spent_and_holds_nothing():
    course = (grant(max_rounds=3), plan(1), reserve(plan(1), 1, spent=1, held=0))
    again = reserve(plan(1), 2, spent=2, held=0)
    assert found(*course, again, settle(plan(1), freed=0)) == []
    assert stand(*course, again).spent == 2 * NANO
    # It was no round of the plan: settling gives back none, and no more than there were.
    assert stand(*course, again, settle(plan(1), freed=0)).rounds == 1
    assert stand(*course[:2], settle(plan(1), freed=1)).rounds == 0


def test_what_settling_frees():
    (one,) = found(grant(), TWO, settle(TWO, freed=1))
    assert one == f"entry 300 (settle), freed: got {NANO}, expected {2 * NANO}"


def test_what_a_successor_may_say():
    first = grant()
    later = {"seq": 5, "predecessor": 1}
    assert found(first, grant(**later)) == []
    assert stand(first, TWO, grant(**later, carried_rho=3 * NANO)).spent == 3 * NANO
    for changes, place in (({"predecessor": 4}, "predecessor"), ({"alpha": 3}, "alpha")):
        (one,) = found(first, grant(**(later | changes)))
        assert one.startswith(f"entry 5 (grant), {place}: got ")
    (one,) = found(grant(predecessor=1))
    assert one.startswith("entry 1 (grant), predecessor: got 1")


def test_other_vehicles_only_when_their_predecessors_plans_are_settled():
    anew = grant(seq=5, predecessor=1, disjoint=True, carried_rho=NANO)
    assert found(grant(), anew) == []
    assert stand(grant(), TWO, settle(TWO, freed=2), anew).plans == 0
    assert found(grant(), TWO, settle(TWO, freed=2), anew) == []
    refused = "entry 5 (grant): got other vehicles while plans are open, expected settled plans first"
    assert refused in found(grant(), TWO, anew)
    # Another data set's plans are none of its business; one open plan of its own is enough.
    elsewhere = grant(seq=2, data_set="other")
    assert found(grant(), elsewhere, plan(1, grant=2), anew) == []
    assert refused in found(grant(), elsewhere, plan(1, grant=2), plan(2), anew)
    (one,) = found(grant(disjoint=True))
    assert "while plans are open" in one


def test_an_epsilon_that_is_less_than_the_grant_allows():
    exact = 0
    for most in range(NANO, 2 * NANO, NANO // 50):
        allowed = epsilon_lifetime(most, alpha=2, delta=1e-4)
        assert found(grant(rho_max=most, epsilon=allowed)) == []
        (one,) = found(grant(rho_max=most, epsilon=allowed - 2 * SLACK))
        assert "entry 1 (grant), epsilon" in one
        for slack in (SLACK, 0.9 * SLACK):
            if epsilon_lifetime(most, alpha=2, delta=1e-4) == (allowed - slack) + SLACK:
                exact += 1
                assert found(grant(rho_max=most, epsilon=allowed - slack)) == []
    assert exact


@pytest.mark.parametrize(
    ("reach", "charged"), [("rounds", 3), ("unknown", 8)], ids=["what was held", "all there was"]
)
def test_a_recovery_charges_the_worst_and_ends_all_plans(reach, charged):
    before = (grant(carried_rho=NANO), plan(1, rounds=4), reserve(plan(1, rounds=4), 1, spent=2, held=3))
    assert found(*before, recover(reach, grant_1=charged)) == []
    one = stand(*before, recover(reach, grant_1=charged))
    assert (one.spent, one.held) == ((2 + charged) * NANO, 0)
    (said,) = found(*before, recover(reach, grant_1=charged - 1))
    assert "the worst case of what was lost" in said
    # Less than the worst is still counted as the worst, more as what was said; a grant left out, too.
    for claimed in ({"grant_1": charged - 1}, {}, {"grant_2": 9}):
        assert stand(*before, recover(reach, **claimed)).spent == (2 + charged) * NANO
    assert stand(*before, recover(reach, grant_1=charged + 1)).spent == (3 + charged) * NANO
    # No plan is left: another round of it is no booking of this walk.
    assert (
        stand(*before, recover(reach, grant_1=charged), reserve(plan(1), 2, spent=0, held=0)).spent
        == (2 + charged) * NANO
    )


def test_an_overspent_grant_has_nothing_left_to_lose():
    one = plan(1, rounds=2)
    before = (grant(rho_max=NANO), one, reserve(one, 1, spent=1, held=1), reserve(one, 2, spent=2, held=0))
    assert not any("charges" in text for text in found(*before, recover("unknown", grant_1=0)))
    assert stand(*before, recover("unknown", grant_1=0)).spent == 2 * NANO


def test_it_goes_on_after_what_it_cannot_compute():
    loss_too_large = {"sample_rate": 0.5, "noise_multiplier": 1e-30}
    odd = plan(9).model_copy(update={"event": plan(9).event.model_copy(update=loss_too_large)})
    (one,) = found(grant(), odd, TWO)
    assert one.startswith("entry 109 (plan)")
    assert stand(grant(), odd, TWO).held == 2 * NANO


@given(st.data())
def test_on_any_course_the_ledgers_sums_are_the_audits(data):
    """What the ledger takes leaves no finding; what it refuses is one, and both stand at the same figures."""
    live = grant(rho_max=8 * NANO, max_plans=4, max_rounds=9, plan_cap=3 * NANO, recipient_cap=5 * NANO)
    account, walk = opened(live), Walk()
    assert list(walk.step(live)) == []
    open_plans: dict[str, list[Any]] = {}
    for number in range(1, data.draw(st.integers(1, 14)) + 1):
        match data.draw(st.sampled_from(["plan", "reserve", "settle", "successor", "other vehicles"])):
            case "plan":
                one = plan(
                    number,
                    grant=account.grant.seq,
                    rounds=data.draw(st.integers(1, 4)),
                    recipient=data.draw(st.sampled_from(["hub", "another"])),
                    **data.draw(st.sampled_from([{}, {"signatures": SIGNED}])),
                )
                try:
                    account.hold(one)
                except BudgetError:
                    assert list(walk.step(one))
                    return
                open_plans[one.plan] = [one, 0]
                assert list(walk.step(one)) == []
            case "reserve" if any(used < one.rounds for one, used in open_plans.values()):
                choice = data.draw(
                    st.sampled_from([p for p, (one, n) in open_plans.items() if n < one.rounds])
                )
                one, used = open_plans[choice]
                account.draw(NANO)
                open_plans[choice][1] += 1
                booked = reserve(one, used + 1, spent=0, held=0)
                stands = {"spent": account.spent, "held": account.held, "grant": account.grant.seq}
                assert list(walk.step(booked.model_copy(update=stands))) == []
            case "settle" if open_plans:
                one, used = open_plans.pop(data.draw(st.sampled_from(sorted(open_plans))))
                left = one.rounds - used
                account.free(rho=left * NANO, rounds=left, recipient=one.recipient)
                assert list(walk.step(settle(one, freed=left))) == []
            case ("successor" | "other vehicles") as kind:
                later = account.grant.model_copy(
                    update={
                        "seq": 1000 + number,
                        "predecessor": account.grant.seq,
                        "disjoint": kind == "other vehicles",
                        "rho_max": data.draw(st.integers(4, 12)) * NANO,
                        "carried_rho": data.draw(st.integers(0, 2)) * NANO,
                        "max_rounds": data.draw(st.integers(3, 12)),
                    }
                )
                try:
                    account = account.succeed(later, open_plans=bool(open_plans))
                except BudgetError:
                    assert list(walk.step(later))
                    return
                assert list(walk.step(later)) == []
        assert_same(account, walk)


def assert_same(account: Account, walk: Walk) -> None:
    (mine,) = walk.sums.values()
    for name in ("spent", "held", "plans", "rounds"):
        assert getattr(mine, name) == getattr(account, name), name
    assert +mine.recipients == +account.recipients
