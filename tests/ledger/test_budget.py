"""The budget to the nano-nat: what may be held, under which caps, and what a successor grant takes over."""

from __future__ import annotations

from dataclasses import replace

import pytest
from account_kit import SIGNED, grant, plan

from fedfsd.errors import BudgetError
from fedfsd.ledger.budget import SLACK, Account, check_epsilon, losses, nats, opened
from fedfsd.ledger.entry import Charge
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.terms import Terms
from fedfsd.mechanism.kind import Gaussian, GaussianByRound
from fedfsd.mechanism.renyi import NANO, epsilon_lifetime, rho_max


def refused(account: Account, one, match: str | None = None) -> BudgetError:
    """``one`` cannot be held, and trying changes nothing."""
    before = account.balance
    with pytest.raises(BudgetError, match=match) as caught:
        account.hold(one)
    assert account.balance == before
    return caught.value


def test_a_new_account_is_empty():
    balance = Account(grant()).balance
    assert (balance.spent, balance.held, balance.plans, balance.rounds) == (0, 0, 0, 0)
    assert balance.left == 10 * NANO


def test_a_plan_may_hold_all_that_is_left_and_not_a_nano_nat_more():
    account = opened(grant(rho_max=5 * NANO))
    account.hold(plan(1, rounds=2))
    account.draw(NANO)
    account.hold(plan(2, rounds=3))
    assert account.balance.left == 0
    account = opened(grant(rho_max=5 * NANO - 1))
    account.hold(plan(1, rounds=2))
    account.draw(NANO)
    error = refused(account, plan(2, rounds=3), match="a plan that costs 3 nats")
    assert "at most 3 nats, what is left of 5 nats" in str(error)
    assert "2 of its 3 rounds would fit" in str(error)


@pytest.mark.parametrize(("limit", "most"), [("max_plans", 3), ("max_rounds", 6)])
def test_a_grant_ends_at_its_last_plan_and_at_its_last_round(limit, most):
    account = opened(grant(**{limit: most}))
    for number in (1, 2, 3):
        account.hold(plan(number, rounds=2))
    assert (account.plans, account.rounds) == (3, 6)
    refused(account, plan(4), match="plan 4 with 7 rounds in all")


def test_caps_are_by_plan_and_by_recipient_unless_the_officer_signs():
    account = opened(grant(plan_cap=2 * NANO, recipient_cap=4 * NANO))
    refused(account, plan(1, rounds=3), match="3 nats, 3 nats for this recipient")
    account.hold(plan(1, rounds=2))
    account.hold(plan(2, rounds=2))
    refused(account, plan(3), match="1 nats, 5 nats for this recipient")
    account.hold(plan(3, recipient="another"))
    account.hold(plan(4, signatures=SIGNED))
    account.hold(plan(5, rounds=3, recipient="a third", signatures=SIGNED))
    assert account.recipients == {"hub": 5 * NANO, "another": NANO, "a third": 3 * NANO}


def test_rounds_are_drawn_from_the_hold_and_the_rest_is_freed():
    account = opened(grant(max_rounds=3, recipient_cap=3 * NANO))
    account.hold(plan(1, rounds=3))
    account.draw(NANO)
    assert (account.spent, account.held) == (NANO, 2 * NANO)
    refused(account, plan(2))
    account.free(rho=2 * NANO, rounds=2, recipient="hub")
    assert (account.spent, account.held, account.rounds) == (NANO, 0, 1)
    account.hold(plan(2, rounds=2))  # for the same recipient, within the same horizon
    assert account.recipients == {"hub": 3 * NANO}


def test_a_recovery_charges_what_may_have_been_lost():
    account = opened(grant(carried_rho=NANO))
    account.hold(plan(1, rounds=4))
    account.draw(NANO)
    assert account.worst("rounds") == Charge(grant=1, rho=3 * NANO)
    assert account.worst("unknown") == Charge(grant=1, rho=8 * NANO)


def busy() -> Account:
    """Two nats spent, three held by two plans of five rounds."""
    account = opened(grant())
    account.hold(plan(1, rounds=2))
    account.hold(plan(2, rounds=3))
    account.draw(2 * NANO)
    return account


def test_a_successor_takes_over_all_sums():
    found = busy().succeed(grant(seq=7, carried_rho=NANO), open_plans=True)
    assert found.balance == replace(busy().balance, grant=7, spent=3 * NANO)
    assert found.recipients == busy().recipients


@pytest.mark.parametrize(
    ("exact", "short"),
    [
        ({"rho_max": 6 * NANO, "carried_rho": NANO}, {"rho_max": 6 * NANO - 1, "carried_rho": NANO}),
        ({"max_plans": 2}, {"max_plans": 1}),
        ({"max_rounds": 5}, {"max_rounds": 4}),
        ({"alpha": 2}, {"alpha": 3}),
    ],
)
def test_a_successor_has_room_for_all_that_is_booked(exact, short):
    assert busy().succeed(grant(seq=7, **exact), open_plans=True).grant.seq == 7
    with pytest.raises(BudgetError):
        busy().succeed(grant(seq=7, **short), open_plans=True)


def test_a_successor_that_is_too_small_is_told_what_is_booked():
    with pytest.raises(BudgetError, match="got 4 nats in all, expected at least 5 nats, spent or held"):
        busy().succeed(grant(seq=7, rho_max=4 * NANO), open_plans=True)


def test_other_vehicles_begin_anew_once_all_plans_are_settled():
    found = busy().succeed(grant(seq=7, disjoint=True, carried_rho=NANO), open_plans=False)
    assert (found.spent, found.held, found.plans, found.rounds) == (NANO, 0, 0, 0)
    with pytest.raises(BudgetError, match="settled plans first"):
        busy().succeed(grant(seq=7, disjoint=True), open_plans=True)


def test_no_grant_begins_with_more_than_it_has():
    assert opened(grant(carried_rho=10 * NANO)).balance.left == 0
    with pytest.raises(BudgetError, match="more carried than granted"):
        opened(grant(carried_rho=10 * NANO + 1))


def test_a_grant_allows_no_more_than_the_epsilon_it_promises():
    for epsilon in (4.5, 8.0, 31.25):
        check_epsilon(grant(epsilon=epsilon, alpha=8, rho_max=rho_max(epsilon=epsilon, delta=1e-4, alpha=8)))
    slack_reached = 0
    for most in range(NANO, 2 * NANO, NANO // 50):
        allowed = epsilon_lifetime(most, alpha=2, delta=1e-4)
        check_epsilon(grant(rho_max=most, epsilon=allowed))
        with pytest.raises(EvidenceError, match="epsilon"):
            check_epsilon(grant(rho_max=most, epsilon=allowed - 1.5 * SLACK))
        with pytest.raises(EvidenceError, match="epsilon"):
            check_epsilon(grant(rho_max=most, epsilon=allowed - 1.5e-9))
        if (allowed - SLACK) + SLACK == allowed:
            slack_reached += 1
            check_epsilon(grant(rho_max=most, epsilon=allowed - SLACK))
    assert slack_reached


@pytest.mark.parametrize("rounds", [1, 3])
def test_what_an_entry_says_of_its_rounds(rounds):
    step = {"sample_rate": 1.0, "max_grad_norm": 1.0, "local_steps": 1}
    for mechanism, expected in (
        (Gaussian(**step, sigma=1.0), NANO),
        (GaussianByRound(**step, sigmas=(1.0,) * rounds), (NANO,) * rounds),
    ):
        terms = Terms("private", "forecasting", "mlp", rounds, mechanism, mechanism.text(rounds), "5" * 64, 4)
        assert losses(terms, 2) == (expected, rounds * NANO)


def test_nano_nats_for_people():
    assert nats(1_500_000_000) == "1.5 nats"


def test_nothing_spent_reads_zero():
    """Although the conversion gives a bound above 0 for no loss."""
    balance = opened(grant()).balance
    assert (balance.epsilon_spent, balance.epsilon_lifetime) == (0.0, 0.0)
