"""What a ledger promises to the gate, the officer and the operator."""

from __future__ import annotations

import datetime
from contextlib import closing

import ledger_kit as kit
import pytest
from ledger_kit import ARRAYS, DATA

from fedfsd import canonical
from fedfsd.errors import BudgetError, ConfigError, FormatError, NotReadyError, PlanError, RefusedError
from fedfsd.ledger import draft, entry
from fedfsd.ledger.digest import key_commitment
from fedfsd.ledger.entry import KeyRotate
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import SigningKey
from fedfsd.ledger.ledger import Booked
from fedfsd.ledger.mirror import Mirror
from fedfsd.ledger.store import Store
from fedfsd.mechanism.renyi import nano_nats

PLAN = kit.plan_of()


def kinds(ledger) -> list[str]:
    return [entry.parse(content).type for content in ledger._store.entries()]


@pytest.fixture
def ledger(tmp_path):
    return kit.ready(tmp_path, PLAN)


def test_a_round_is_booked_once_and_released_once(ledger):
    booked = ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    assert ledger.reserve(PLAN.hash, 1, ARRAYS[1]) == booked
    assert ledger.released(booked) is None
    first = ledger.release(kit.update(booked), booked)
    assert ledger.release(kit.update(booked), booked) == first == ledger.released(booked)
    assert first.entry_hash == ledger.state.tree.leaf(first.entry).hex()
    with pytest.raises(BudgetError, match="second release"):
        ledger.release(b"x" * 20, booked)
    assert kinds(ledger) == ["genesis", "grant", "plan", "reserve", "release"]


def test_an_entry_is_shown_as_it_was_written(ledger):
    assert [ledger.content(seq) for seq in range(3)] == list(ledger._store.entries())
    with pytest.raises(NotReadyError, match="no entry 3"):
        ledger.content(3)


def test_a_ledger_in_which_a_newer_release_wrote_is_left_alone(ledger, tmp_path):
    """It refuses to run with one error, also where it is open already, and loses nothing."""
    newer = canonical.encode({"format": 9, "seq": 3, "type": "something else"})
    with closing(Store(tmp_path / "node", kit.mirror(tmp_path))) as other, other.transaction():
        other.add(3, newer)
    disks = [list(ledger._store.entries()), Mirror(kit.mirror(tmp_path)).lines()]
    assert [one[-1] for one in disks] == [newer, newer]
    words = r"^format: entry 3: got format 9, expected one of 1, 2, 3, 4; fix: upgrade fedfsd on this side$"
    for use in (
        lambda: ledger.state,
        lambda: ledger.reserve(PLAN.hash, 1, ARRAYS[1]),
        lambda: ledger.checkpoint(),
        lambda: kit.reopen(tmp_path),
    ):
        with pytest.raises(FormatError, match=words):
            use()
    assert [list(ledger._store.entries()), Mirror(kit.mirror(tmp_path)).lines()] == disks


def test_other_arrays_are_refused_once_on_paper(ledger):
    ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    for _ in range(3):
        with pytest.raises(BudgetError, match="other arrays"):
            ledger.reserve(PLAN.hash, 1, ARRAYS[2])
    assert kinds(ledger)[-2:] == ["reserve", "refuse"]
    with pytest.raises(BudgetError):
        ledger.release(b"x" * 20, Booked(PLAN.hash, 1, ARRAYS[2]))
    assert ledger.released(Booked(PLAN.hash, 1, ARRAYS[2])) is None


def test_unapproved_plans_and_rounds_outside_are_refused(ledger):
    with pytest.raises(BudgetError, match="not approved"):
        ledger.reserve("f" * 64, 1, ARRAYS[1])
    for round in (0, 4, -1):
        with pytest.raises(BudgetError, match="outside"):
            ledger.reserve(PLAN.hash, round, ARRAYS[1])


def test_rounds_go_forward(ledger):
    kit.run_round(ledger, PLAN, 1)
    kit.run_round(ledger, PLAN, 2)
    with pytest.raises(BudgetError, match="forward"):
        ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    assert len(list((ledger.folder / "outbox").iterdir())) == 1


def test_a_release_has_the_planned_size(ledger):
    booked = ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    with pytest.raises(RefusedError, match="19 bytes"):
        ledger.release(b"x" * 19, booked)


def test_a_changed_outbox_is_not_sent(ledger):
    booked = ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    ledger.release(kit.update(booked), booked)
    next((ledger.folder / "outbox").iterdir()).write_bytes(b"other")
    with pytest.raises(NotReadyError, match="released bytes"):
        ledger.released(booked)


def test_the_books_add_up(ledger):
    (before,) = ledger.balances()
    cost = nano_nats(PLAN.events("EU"), before.alpha)
    assert (before.spent, before.held, before.left) == (0, cost, before.rho_max - cost)
    kit.run_round(ledger, PLAN, 1)
    (during,) = ledger.balances()
    assert (during.spent, during.held) == (cost // 3, cost - cost // 3)
    assert during.epsilon_lifetime == before.epsilon_lifetime < before.epsilon
    ledger.settle(PLAN.hash)
    ledger.settle(PLAN.hash)
    (after,) = ledger.balances()
    assert (after.spent, after.held, after.rounds) == (cost // 3, 0, 1)
    with pytest.raises(BudgetError, match="settled"):
        ledger.reserve(PLAN.hash, 2, ARRAYS[2])
    assert kinds(ledger).count("settle") == 1


def test_what_was_released_may_be_sent_again_after_settling(ledger):
    booked = ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    sent = ledger.release(kit.update(booked), booked)
    ledger.settle(PLAN.hash)
    assert ledger.reserve(PLAN.hash, 1, ARRAYS[1]) == booked
    assert ledger.released(booked) == sent
    with pytest.raises(BudgetError, match="settled"):
        ledger.reserve(PLAN.hash, 1, ARRAYS[2])


def test_an_aborted_round_stays_charged_and_shut(ledger):
    booked = ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    (before,) = ledger.balances()
    ledger.abort(booked, "failed")
    ledger.abort(booked, "failed")
    assert ledger.balances() == (before,)
    with pytest.raises(BudgetError):
        ledger.release(kit.update(booked), booked)
    with pytest.raises(BudgetError, match="given up"):
        ledger.reserve(PLAN.hash, 1, ARRAYS[1])


def test_a_released_round_cannot_be_aborted(ledger):
    booked = ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    ledger.release(kit.update(booked), booked)
    with pytest.raises(BudgetError):
        ledger.abort(booked, "operator")


def test_plans_are_refused_beyond_the_grant_with_what_would_fit(ledger):
    big = kit.plan_of(rounds=5000, seed=1)
    with pytest.raises(BudgetError) as caught:
        kit.approve(ledger, big)
    assert caught.value.exit_code == 12
    assert "of its 5000 rounds would fit, or all with noise_multiplier" in str(caught.value)
    noise = float(str(caught.value).rsplit(" ", 1)[1])
    kit.approve(ledger, kit.plan_of(rounds=5000, noise=noise, seed=2))
    assert kinds(ledger)[-2:] == ["refuse", "plan"]


def test_two_approved_plans_cannot_strand_each_other(tmp_path):
    ledger = kit.create(tmp_path)
    (event,) = PLAN.events("EU")
    kit.grant(ledger, epsilon=None, events=[event, event])
    second = kit.plan_of(seed=1)
    kit.approve(ledger, PLAN)
    kit.approve(ledger, second)
    with pytest.raises(BudgetError, match="0 nats, what is left"):
        kit.approve(ledger, kit.plan_of(seed=2))
    for plan in (PLAN, second):
        for round in (1, 2, 3):
            kit.run_round(ledger, plan, round)
    (balance,) = ledger.balances()
    assert balance.spent == balance.rho_max
    assert balance.epsilon_spent == pytest.approx(balance.epsilon)


def test_approving_again_changes_nothing(ledger):
    seq = kit.approve(ledger, PLAN)
    assert seq == 2
    assert kinds(ledger).count("plan") == 1


def test_caps_need_the_officer(tmp_path):
    ledger = kit.create(tmp_path)
    cost = nano_nats(PLAN.events("EU"), 4)
    kit.grant(ledger, alpha=4, plan_cap=cost - 1)
    with pytest.raises(BudgetError, match="sign"):
        kit.approve(ledger, PLAN)
    kit.approve(ledger, PLAN, officer=kit.OFFICER)
    kit.grant(ledger, recipient_cap=2 * cost)
    kit.approve(ledger, kit.plan_of(seed=1))
    with pytest.raises(BudgetError, match="recipient"):
        kit.approve(ledger, kit.plan_of(seed=2))
    kit.approve(ledger, kit.plan_of(seed=3), recipient="another")
    stranger = SigningKey.generate("fedfsd/EU/officer")
    with pytest.raises(EvidenceError, match="signature"):
        kit.approve(ledger, kit.plan_of(seed=2), officer=stranger)


def test_the_horizon_is_in_plans_and_rounds(tmp_path):
    ledger = kit.create(tmp_path)
    kit.grant(ledger, max_plans=1, max_rounds=3)
    kit.approve(ledger, PLAN)
    with pytest.raises(BudgetError, match="at most 1 plans"):
        kit.approve(ledger, kit.plan_of(seed=1))


def test_a_successor_carries_what_was_spent(ledger):
    kit.run_round(ledger, PLAN, 1)
    (before,) = ledger.balances()
    kit.grant(ledger, epsilon=12.0)
    (after,) = ledger.balances()
    assert (after.spent, after.held, after.alpha) == (before.spent, before.held, before.alpha)
    assert after.rho_max > before.rho_max
    kit.run_round(ledger, PLAN, 2)  # the plan's hold lives on
    with pytest.raises(BudgetError, match="spent or held already"):
        kit.grant(ledger, epsilon=3.66)
    with pytest.raises(BudgetError, match="approved already"):
        kit.grant(ledger, epsilon=12.0, max_rounds=2)
    other = draft.grant(
        ledger.state, data_set=DATA, data_commitment="d" * 64, delta=1e-4, epsilon=12.0
    ).model_copy(update={"alpha": before.alpha + 1, "rho_max": 2 * 10**9})
    with pytest.raises(BudgetError, match="order"):
        ledger.add(kit.sign(other))


def test_one_grant_is_live_and_disjoint_ones_begin_anew(ledger):
    stale = draft.grant(ledger.state, data_set=DATA, data_commitment="d" * 64, delta=1e-4, epsilon=9.0)
    with pytest.raises(EvidenceError, match="predecessor"):
        ledger.add(kit.sign(stale.model_copy(update={"predecessor": None})))
    with pytest.raises(BudgetError, match="open"):
        kit.grant(ledger, disjoint=True)
    kit.run_round(ledger, PLAN, 1)
    ledger.settle(PLAN.hash)
    kit.grant(ledger, disjoint=True, carried_rho=5)
    (balance,) = ledger.balances()
    assert balance.spent == 5
    with pytest.raises(EvidenceError, match="predecessor"):
        ledger.add(kit.sign(stale))  # signed long ago, for another place


def test_a_grant_may_not_allow_more_than_it_says(tmp_path):
    ledger = kit.create(tmp_path)
    made = draft.grant(ledger.state, data_set=DATA, data_commitment="d" * 64, delta=1e-4, epsilon=8.0)
    with pytest.raises(EvidenceError, match="epsilon"):
        ledger.add(kit.sign(made.model_copy(update={"epsilon": 7.9})))
    with pytest.raises(EvidenceError, match="signature"):
        ledger.add(made)
    with pytest.raises(PlanError):
        kit.grant(ledger, epsilon=0.01)
    with pytest.raises(ConfigError, match="data_set"):
        kit.grant(ledger, data_set="")


def test_plans_need_a_grant_to_draw_on(tmp_path):
    ledger = kit.create(tmp_path)
    with pytest.raises(BudgetError, match="no grant"):
        kit.approve(ledger, PLAN)
    kit.grant(ledger)
    kit.grant(ledger, data_set="other")
    with pytest.raises(BudgetError, match="several"):
        kit.approve(ledger, PLAN)
    kit.approve(ledger, PLAN, data_set="other")
    assert [balance.held > 0 for balance in ledger.balances()] == [False, True]


def test_unprotected_plans_and_used_keys_are_refused(ledger):
    with pytest.raises(PlanError, match="private"):
        kit.approve(ledger, kit.plan_of(mode="none", noise=0.0))
    with pytest.raises(EvidenceError, match="key"):
        kit.approve(ledger, kit.plan_of(seed=1), key_commitment=key_commitment(PLAN.hash.encode()))
    with pytest.raises(EvidenceError, match="commitment"):
        kit.approve(ledger, kit.plan_of(seed=1), key_commitment=None)
    kit.approve(ledger, kit.plan_of(seed=1, mode="rehearsal"), key_commitment=None)


def test_transfers_need_an_approval_where_the_grant_says_so(tmp_path):
    ledger = kit.create(tmp_path)
    kit.grant(ledger, approval_required=True)
    kit.approve(ledger, PLAN)
    with pytest.raises(RefusedError, match="no approval") as caught:
        ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    assert caught.value.exit_code == 13
    for number, wrong in enumerate(
        (
            {"recipient": "other"},
            {"purpose": "other"},
            {"models": ("gru",)},
            {"data_set": "other"},
            {"valid_from": "2026-12-01"},
            {"valid_until": "2026-11-21"},
            {"max_releases": 0},
            {"max_bytes": 19},
        )
    ):
        kit.approval(ledger, number=f"wrong {number}", **wrong)
        with pytest.raises(RefusedError):
            ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    seq = kit.approval(ledger, models=("*",), max_releases=2)
    kit.run_round(ledger, PLAN, 1)
    kit.run_round(ledger, PLAN, 2)
    with pytest.raises(RefusedError, match="used up in 2026"):
        ledger.reserve(PLAN.hash, 3, ARRAYS[3])
    released = [one for one in map(entry.parse, ledger._store.entries()) if one.type == "release"]
    assert [(one.approval, one.year, one.approval_releases, one.approval_bytes) for one in released] == [
        (seq, 2026, 1, 20),
        (seq, 2026, 2, 40),
    ]


def test_a_date_can_only_refuse(tmp_path):
    day = [datetime.date(2026, 12, 31)]
    ledger = kit.create(tmp_path, today=lambda: day[0])
    kit.grant(ledger, approval_required=True)
    kit.approval(ledger)
    kit.approve(ledger, PLAN)
    booked = ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    day[0] = datetime.date(2027, 1, 1)
    with pytest.raises(RefusedError, match="not valid on 2027-01-01"):
        ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    with pytest.raises(RefusedError):
        ledger.release(kit.update(booked), booked)
    day[0] = datetime.date(1990, 1, 1)
    with pytest.raises(RefusedError):
        ledger.release(kit.update(booked), booked)
    day[0] = datetime.date(2026, 6, 1)  # back in time: nothing is gained, the round is booked already
    ledger.release(kit.update(booked), booked)
    assert ledger.balances()[0].spent > 0


@pytest.mark.parametrize("year", [1980, 2026, 2200])
def test_the_budget_does_not_look_at_the_clock(tmp_path, year):
    ledger = kit.create(tmp_path, today=lambda: datetime.date(year, 1, 1))
    kit.grant(ledger, epsilon=None, events=PLAN.events("EU"))
    kit.approve(ledger, PLAN)
    for round in (1, 2, 3):
        kit.run_round(ledger, PLAN, round)
    with pytest.raises(BudgetError):
        kit.approve(ledger, kit.plan_of(seed=1))


def test_keys_rotate_with_the_officers_word(ledger):
    first = ledger.checkpoint()
    new = SigningKey.generate(kit.NODE.name)
    rotation = KeyRotate(ledger="0" * 32, role="node", key=str(new.verification))
    with pytest.raises(EvidenceError, match="officer"):
        ledger.add(entry.sign(rotation, {"new": new, "old": kit.NODE}))
    with pytest.raises(EvidenceError, match="new"):
        ledger.add(entry.sign(rotation, {"officer": kit.OFFICER, "old": kit.NODE}))
    with pytest.raises(EvidenceError, match="old"):
        ledger.add(entry.sign(rotation, {"officer": kit.OFFICER, "new": new, "old": new}))
    ledger.rotate(entry.sign(rotation, {"officer": kit.OFFICER, "new": new, "old": kit.NODE}), new)
    assert ledger.state.open_checkpoint(ledger.checkpoint())[0].size == 4
    assert ledger.state.open_checkpoint(first)[0].size == 3
    again = kit.reopen(ledger.folder.parent)
    assert again.checkpoint() == ledger.checkpoint()


def test_the_officers_key_rotates_too(ledger):
    new = SigningKey.generate(kit.OFFICER.name)
    rotation = KeyRotate(ledger="0" * 32, role="officer", key=str(new.verification))
    ledger.add(entry.sign(rotation, {"officer": kit.OFFICER, "new": new}))
    with pytest.raises(EvidenceError, match="signature"):
        kit.grant(ledger, epsilon=11.0)
    made = draft.grant(ledger.state, data_set=DATA, data_commitment="d" * 64, delta=1e-4, epsilon=11.0)
    ledger.add(entry.sign(made, {"officer": new}))


def test_nothing_follows_a_close(ledger):
    ledger.add(kit.sign(entry.Close(ledger="0" * 32, reason="end of the project")))
    with pytest.raises(EvidenceError, match="close"):
        ledger.settle(PLAN.hash)


def test_refusals_cannot_fill_the_disk(ledger, monkeypatch):
    monkeypatch.setattr("fedfsd.ledger.ledger.MAX_STRANGE_REFUSALS", 20)
    for number in range(30):
        ledger.refuse(f"{number:064x}", 1, "policy")
    assert kinds(ledger).count("refuse") == 20
    ledger.refuse(PLAN.hash, 1, "policy")
    assert kinds(ledger).count("refuse") == 21


def test_incidents_are_told(ledger):
    ledger.incident("key", "The run key was copied by mistake.", plan_hash=PLAN.hash)
    assert kinds(ledger)[-1] == "incident"
    for code, text in (("nonsense", "text"), ("key", "two\nlines"), ("key", "x" * 2001)):
        with pytest.raises(ConfigError, match="incident"):
            ledger.incident(code, text)
