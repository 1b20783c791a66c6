"""The operator's command: told once of each event, again when it comes back, and no danger to the gate."""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from operator_kit import plan, run_rounds
from operator_kit import region as ready

from fedfsd.node import approve
from fedfsd.node.hook import Hook
from fedfsd.node.node import open_node
from fedfsd.service.journal import journal

WRITE = "import sys; open(sys.argv[1], 'ab').write(sys.stdin.buffer.read() + bytes([10]))"


class Told:
    """A hook whose command keeps what it was told."""

    def __init__(self, folder: Path, *command: str) -> None:
        self.path, self.node = folder / "told.jsonl", open_node(folder / "eu")
        command = command or (sys.executable, "-c", WRITE, str(self.path))
        self.hook = Hook(command, self.node, journal("gate", folder))

    def look(self, *, pending=(), days=300) -> None:
        with closing(self.node.open_ledger()) as ledger:
            self.hook.look(ledger, pending=pending, days=days)

    def heard(self, count: int) -> list[dict]:
        """The documents so far, at least ``count``."""
        deadline = time.monotonic() + 100
        while time.monotonic() < deadline:
            lines = self.path.read_bytes().splitlines() if self.path.exists() else []
            if len(lines) >= count:
                return [json.loads(line) for line in lines]
            time.sleep(0.05)
        raise AssertionError(f"told {len(lines)} of {count}")


@pytest.fixture
def told(tmp_path) -> Told:
    ready(tmp_path)
    return Told(tmp_path)


def offered(told: Told, one) -> str:
    (told.node.folder / "plans").mkdir(exist_ok=True)
    (told.node.folder / "plans" / f"{one.hash}.json").write_text(one.document(), encoding="utf-8")
    return one.hash


def test_each_event_is_told_once_and_again_when_it_comes_back(told):
    name = offered(told, plan())
    told.look(pending=[name])
    told.look(pending=[name])
    (first,) = told.heard(1)
    assert (first["event"], first["region"], first["plan"], first["name"]) == (
        "plan_waits",
        "EU",
        name,
        "motion-1",
    )
    told.look()  # withdrawn
    told.look(pending=[name])
    told.look(pending=[name], days=20)
    told.look(days=20)
    told.look(days=19)
    found = told.heard(4)
    assert [one["event"] for one in found] == 2 * ["plan_waits"] + 2 * ["certificate_ends"]
    assert [one.get("days") for one in found] == [None, None, 20, 19]


def test_a_run_that_ends_and_a_grant_that_runs_low(told):
    old, today = plan(seed=8), "2026-11-27"
    approve.approve(told.node, old, data_set=None, officer=None, today=today)
    with closing(told.node.open_ledger()) as ledger:
        ledger.settle(old.hash)
    told.look()  # it ended before this process began
    big = plan(rounds=3, noise=0.8, seed=3)
    policy = told.node.folder / "policy.toml"
    policy.write_text(policy.read_text().replace("max_epsilon = 10.0", "max_epsilon = 100.0"))
    made = approve.approve(told.node, big, data_set=None, officer=None, today=today)
    run_rounds(told.node.folder, big, 1, 2)
    with closing(told.node.open_ledger()) as ledger:
        ledger.settle(big.hash)
        (account,) = ledger.state.accounts.values()
        expected = account.balance.left / account.grant.rho_max
    told.look()
    found = {one["event"]: one for one in told.heard(1 if expected >= 0.1 else 2)}
    assert (found["run_ended"]["plan"], found["run_ended"]["released"]) == (made.entry.plan, 2)
    assert ("budget_low" in found) == (expected < 0.1)


def test_a_full_mirror_is_told_until_it_has_room(told, monkeypatch):
    write, full = os.pwrite, [True]

    def on_a_full_disk(descriptor: int, content: bytes, offset: int) -> int:
        if full[0]:
            raise OSError(28, "No space left on device")
        return write(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", on_a_full_disk)
    with closing(told.node.open_ledger()) as ledger:
        with pytest.raises(Exception, match="No space left"):
            ledger.incident("other", "text")
        told.hook.look(ledger, pending=(), days=300)
        told.hook.look(ledger, pending=(), days=300)
        (found,) = told.heard(1)
        assert (found["event"], found["entries"]) == ("mirror_behind", 1)
        assert found["mirror"] == str(told.node.mirror)
        full[0] = False
        ledger.incident("other", "text")
        told.hook.look(ledger, pending=(), days=300)
        assert len(told.heard(1)) == 1


@pytest.mark.parametrize("command", [("/nowhere/at/all",), (sys.executable, "-c", "raise SystemExit(3)")])
def test_a_command_that_fails_costs_a_line_in_the_log(tmp_path, command):
    ready(tmp_path)
    told = Told(tmp_path, *command)
    told.look(days=3)
    log, deadline = tmp_path / "log" / "gate.jsonl", time.monotonic() + 100
    while "hook_failed" not in (log.read_text() if log.exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.05)
