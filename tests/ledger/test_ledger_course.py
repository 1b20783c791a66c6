"""Whatever is asked of a ledger, in whatever order and with whatever damage: the second verifier agrees."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
import threading
from pathlib import Path

import ledger_kit as kit
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from ledger_kit import ARRAYS
from setting import LONG, examples
from test_vectors import verify

from fedfsd.errors import BudgetError, NotReadyError
from fedfsd.ledger.store import DATABASE
from fedfsd.mechanism.renyi import nano_nats

PLANS = [
    kit.plan_of(rounds=rounds, seed=rounds, noise=noise) for rounds, noise in ((2, 1.0), (3, 0.8), (5, 1.5))
]
ROOM = 6  # rounds of the first plan that the grant pays for


class Course(RuleBasedStateMachine):
    """Plans, rounds, aborts, settlements and restarts in any order."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=kit.MEMORY))
        self.ledger = kit.create(self.folder)
        events = kit.plan_of(rounds=ROOM).events("EU")
        kit.grant(self.ledger, epsilon=None, events=events, alpha=4, max_plans=3)
        self.sent: dict[tuple[str, int], bytes] = {}
        self.booked: set[tuple[str, int]] = set()

    @rule(plan=st.sampled_from(PLANS))
    def approve(self, plan) -> None:
        state = self.ledger.state
        account, run = state.accounts[kit.DATA], state.runs.get(plan.hash)
        cost = nano_nats(plan.events("EU"), account.grant.alpha)
        fits = cost <= account.balance.left and account.plans < account.grant.max_plans
        if (fits and run is None) or (run is not None and not run.settled):
            kit.approve(self.ledger, plan)
        else:
            with pytest.raises(BudgetError):
                kit.approve(self.ledger, plan)

    @rule(plan=st.sampled_from(PLANS), round=st.integers(1, 5), arrays=st.integers(0, 1))
    def reserve(self, plan, round, arrays) -> None:
        try:
            self.ledger.reserve(plan.hash, round, ARRAYS[arrays])
        except BudgetError:
            return
        self.booked.add((plan.hash, round))

    @rule(plan=st.sampled_from(PLANS), round=st.integers(1, 5), arrays=st.integers(0, 1))
    def run(self, plan, round, arrays) -> None:
        try:
            booked = self.ledger.reserve(plan.hash, round, ARRAYS[arrays])
            content = (
                self.ledger.released(booked) or self.ledger.release(kit.update(booked), booked)
            ).content
        except BudgetError:
            return
        assert self.sent.setdefault((plan.hash, round), content) == content
        self.booked.add((plan.hash, round))

    @rule(plan=st.sampled_from(PLANS), round=st.integers(1, 5))
    def abort(self, plan, round) -> None:
        run = self.ledger.state.runs.get(plan.hash)
        booking = run.bookings.get(round) if run else None
        if booking is not None:
            try:
                self.ledger.abort(kit.Booked(plan.hash, round, booking.entry.arrays), "operator")
            except BudgetError:
                assert booking.release is not None or run.settled

    @rule(plan=st.sampled_from(PLANS))
    def settle(self, plan) -> None:
        try:
            self.ledger.settle(plan.hash)
        except BudgetError:
            assert plan.hash not in self.ledger.state.runs

    @rule()
    def restart(self) -> None:
        self.ledger.close()
        self.ledger = kit.reopen(self.folder)

    @rule()
    def lose_the_mirrors_end(self) -> None:
        self.ledger.close()
        content = kit.mirror(self.folder).read_bytes()
        kit.mirror(self.folder).write_bytes(content[: len(content) * 2 // 3])
        self.ledger = kit.reopen(self.folder)

    @invariant()
    def nothing_is_overspent(self) -> None:
        entries = [json.loads(content) for content in self.ledger._store.entries()]
        ((spent, held),) = verify(entries).values()
        (balance,) = self.ledger.balances()
        assert (balance.spent, balance.held) == (spent, held)
        reserved = {(one["plan"], one["round"]) for one in entries if one["type"] == "reserve"}
        released = {(one["plan"], one["round"]) for one in entries if one["type"] == "release"}
        assert self.booked <= reserved
        assert set(self.sent) == released <= reserved

    def teardown(self) -> None:
        if hasattr(self, "ledger"):
            self.ledger.close()
            shutil.rmtree(self.folder)


Course.TestCase.settings = settings(
    max_examples=60 if LONG else 30,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
test_any_course = Course.TestCase


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("healthy")
    ledger = kit.ready(folder, PLANS[0])
    kit.run_round(ledger, PLANS[0], 1)
    ledger.close()
    return folder


@settings(max_examples=examples(150), deadline=None)
@given(st.data())
def test_damaged_files_are_noticed_or_harmless(healthy, data):
    with tempfile.TemporaryDirectory(dir=kit.MEMORY) as name:
        folder = Path(shutil.copytree(healthy, Path(name) / "copy"))
        path = data.draw(st.sampled_from([folder / "node" / DATABASE, kit.mirror(folder)]))
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 5))):
            where = data.draw(st.integers(0, len(content) - 1))
            content[where] = data.draw(st.integers(0, 255))
        path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
        try:
            ledger = kit.reopen(folder)
        except NotReadyError:
            return
        before = kit.mirror(healthy).read_bytes().splitlines()
        assert list(ledger._store.entries()) == before
        ledger.close()


@pytest.mark.parametrize("step", range(4))
def test_a_full_disk_refuses_and_under_counts_nothing(tmp_path, monkeypatch, step):
    plan = PLANS[1]
    ledger = kit.ready(tmp_path, plan)
    count, usual = [0], os.fsync

    def fsync(descriptor: int) -> None:
        count[0] += 1
        if count[0] == step + 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        usual(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(NotReadyError, match="No space left"):
        kit.run_round(ledger, plan, 1)
    content = kit.run_round(ledger, plan, 1)
    assert kit.run_round(kit.reopen(tmp_path), plan, 1) == content
    (balance,) = ledger.balances()
    assert balance.spent == nano_nats(plan.events("EU"), balance.alpha) // 3


def test_threads_share_a_ledger(tmp_path):
    plan = kit.plan_of(rounds=8)
    ledger = kit.ready(tmp_path, plan)
    failures = []

    def work(first: int) -> None:
        try:
            for round in range(first, 9, 2):
                ledger.reserve(plan.hash, round, ARRAYS[round])
        except Exception as error:  # told by the test below
            failures.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in (1, 2, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert ledger.balances()[0].held == 0
