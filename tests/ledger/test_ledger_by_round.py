"""A plan whose rounds cost differently: held, booked, freed and recovered to the nano-nat."""

from __future__ import annotations

import random

import ledger_kit as kit
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from setting import examples

from fedfsd.errors import BudgetError, FedfsdError
from fedfsd.ledger import entry
from fedfsd.ledger.error import EvidenceError
from fedfsd.mechanism.renyi import nano_nats

NOISE = (2.5, 2.5, 3.75, 6.0)
PLAN = kit.plan_of(rounds=4, noise=NOISE)


def losses(alpha: int) -> list[int]:
    mechanism = PLAN.mechanism(kit.REGION)
    return [nano_nats(mechanism.round_text(number).events(), alpha) for number in (1, 2, 3, 4)]


@settings(deadline=None, max_examples=examples(25))
@given(order=st.permutations([1, 2, 3, 4]), count=st.integers(0, 4), seed=st.integers(0, 1000))
def test_settling_early_frees_exactly_what_was_not_booked(tmp_path_factory, order, count, seed):
    folder = tmp_path_factory.mktemp("ledger")
    ledger = kit.ready(folder, PLAN)
    (before,) = ledger.balances()
    each = losses(before.alpha)
    assert (before.held, before.spent) == (sum(each), 0)
    chosen = sorted(order[:count])
    rng = random.Random(seed)
    for number in chosen:
        kit.run_round(ledger, PLAN, number)
        if rng.random() < 0.5:  # a crash: the ledger is read again from disk
            ledger.close()
            ledger = kit.reopen(folder)
    (during,) = ledger.balances()
    assert during.spent == sum(each[number - 1] for number in chosen)
    assert during.spent + during.held == sum(each)
    ledger.settle(PLAN.hash)
    (after,) = ledger.balances()
    assert (after.spent, after.held) == (during.spent, 0)
    ledger.close()


def test_the_entry_says_its_format_and_reads_back(tmp_path):
    ledger = kit.ready(tmp_path, PLAN)
    (one,) = [run.entry for run in ledger.state.runs.values()]
    content = entry.encode(one)
    assert b'"format":2' in content
    assert entry.parse(content) == one
    flat = kit.ready(tmp_path / "flat", kit.plan_of())
    (other,) = [run.entry for run in flat.state.runs.values()]
    written = entry.encode(other)
    assert b'"format"' not in written.split(b'"document"')[0]
    assert b'"format":1' in written  # its plan's
    assert b'"kind"' not in written
    for changes in ({"format": 2}, {"rho_round": (other.rho_round,) * other.rounds}):
        with pytest.raises(EvidenceError):
            entry.parse(entry.encode(other.model_copy(update=changes)))
    with pytest.raises(EvidenceError):
        entry.parse(content.replace(b'"format":2,', b""))


@pytest.mark.parametrize("what", ["a louder entry", "one round for less", "the sum"])
def test_an_entry_that_its_document_does_not_make_is_refused(tmp_path, what):
    from fedfsd.ledger import draft

    ledger = kit.create(tmp_path)
    kit.grant(ledger)
    options = {"recipient": kit.RECIPIENT, "purpose": kit.PURPOSE, "key_commitment": "ab" * 32}
    made = draft.plan(ledger.state, PLAN, **options)
    changed = {
        "a louder entry": {"event": made.event.model_copy(update={"noise_multipliers": (6.0,) * 4})},
        "one round for less": {"rho_round": (*made.rho_round[:3], made.rho_round[3] - 1)},
        "the sum": {"rho": made.rho - 1},
    }[what]
    with pytest.raises(FedfsdError):
        ledger.add(made.model_copy(update=changed))
    ledger.add(made)


def test_what_would_fit_counts_rounds_in_their_order(tmp_path):
    ledger = kit.create(tmp_path)
    kit.grant(ledger, epsilon=1.9, alpha=10)
    big = kit.plan_of(rounds=40, noise=(0.9,) * 20 + (3.0,) * 20)
    with pytest.raises(
        BudgetError, match=r"of its 40 rounds would fit, or all with noise_multiplier .+ proportion"
    ):
        kit.approve(ledger, big)
