"""Crashes: killed at every step, the power cut at every step, files put back to an older state, races.

The long form of the first is ``python tests/ledger/kill_ledger.py --random 1000``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import ledger_kit as kit
import pytest
import sync_vfs
from ledger_kit import ARRAYS, DATA

from fedfsd.errors import BudgetError, NotReadyError
from fedfsd.ledger import draft, note, restore, store
from fedfsd.ledger.entry import parse
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.key import SigningKey

PLAN = kit.plan_of(rounds=3)
HERE = Path(__file__).parent
listens = pytest.mark.skipif(not sync_vfs.available(), reason="SQLite is no shared library here")


@listens
@pytest.mark.parametrize("every", [11, pytest.param(3, marks=pytest.mark.slow)])
def test_killed_at_every_step_nothing_is_uncovered_or_charged_twice(every):
    script = [sys.executable, str(HERE / "kill_ledger.py"), "--every", str(every)]
    done = subprocess.run(script, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(re.match(r"(\d+) kills", done.stdout)[1]) >= 70 // every


class Power:
    """What would be on the disks if the power failed now: of every file, what was last synced."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.contents: dict[int, bytes] = {}
        self.names: dict[str, int] = {}
        for path in root.rglob("*"):
            if path.is_file():
                self.synced(str(path))

    def synced(self, path: str) -> None:
        """A file's content is safe, or the names in a folder."""
        if os.path.isdir(path):
            inside = {name: number for name, number in self.names.items() if os.path.dirname(name) != path}
            found = {entry.path: entry.inode() for entry in os.scandir(path) if entry.is_file()}
            self.names = {**inside, **{name: n for name, n in found.items() if n in self.contents}}
            return
        number = os.stat(path).st_ino
        self.contents[number] = Path(path).read_bytes()
        self.names.setdefault(path, number)

    def cut(self, where: Path) -> Path:
        """A copy of the folder as it would be found."""
        for name, number in self.names.items():
            if not name.endswith(("-shm", "-journal")):
                target = where / Path(name).relative_to(self.root)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(self.contents[number])
                target.chmod(0o600)
        (where / "node" / "outbox").mkdir(exist_ok=True)
        return where


def power_cuts(folder: Path, monkeypatch) -> int:
    """Run three rounds; at every write or sync, see what a power cut would leave. Returns their number."""
    kit.ready(folder, PLAN).close()
    power, cuts = Power(folder), 0
    promised: dict[int, bytes | None] = {}
    held, failures = [False], []

    def look(_: str = "") -> None:
        nonlocal cuts
        if held[0]:  # the look itself writes
            return
        held[0], cuts = True, cuts + 1
        try:
            examine(power.cut(folder.parent / f"cut{cuts}"))
        except (AssertionError, NotReadyError) as error:  # cannot leave a callback of SQLite's
            failures.append(error)
        held[0] = False

    def examine(copy: Path) -> None:
        ledger = kit.reopen(copy)
        run = ledger.state.runs[PLAN.hash]
        for round, content in promised.items():
            assert round in run.bookings, "a reservation that was promised is lost"
            if content is not None:
                spent = ledger.balances()[0].spent
                assert round < run.newest or kit.run_round(ledger, PLAN, round) == content
                assert ledger.balances()[0].spent == spent
        for round in range(run.newest + 1, 4):
            kit.run_round(ledger, PLAN, round)
        assert ledger.balances()[0].held == 0
        ledger.close()
        shutil.rmtree(copy)

    def fsync(descriptor: int, usual=os.fsync) -> None:
        look()
        usual(descriptor)
        if not held[0]:
            power.synced(os.readlink(f"/proc/self/fd/{descriptor}"))

    monkeypatch.setattr(os, "fsync", fsync)
    with sync_vfs.listening(look, lambda path: None if held[0] else power.synced(path)):
        ledger = kit.reopen(folder)
        for round in (1, 2, 3):
            booked = ledger.reserve(PLAN.hash, round, ARRAYS[round])
            promised[round] = None
            look()
            promised[round] = ledger.release(kit.update(booked), booked).content
            look()
        ledger.settle(PLAN.hash)
        ledger.close()
    if failures:
        raise failures[0]
    return cuts


@pytest.fixture
def memory():
    with tempfile.TemporaryDirectory(dir=kit.MEMORY) as name:
        yield Path(name)


@listens
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name what is synced")
def test_a_power_cut_at_any_step_loses_nothing_promised(memory, monkeypatch):
    assert power_cuts(memory / "region", monkeypatch) > 40


@listens
@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc to name what is synced")
def test_without_syncing_the_same_test_fails(memory, monkeypatch):
    monkeypatch.setattr(store, "SYNCHRONOUS", "OFF")
    with pytest.raises((AssertionError, NotReadyError)):
        power_cuts(memory / "region", monkeypatch)


def test_a_torn_line_of_the_mirror_is_mended(tmp_path):
    ledger = kit.ready(tmp_path, PLAN)
    whole = kit.mirror(tmp_path).read_bytes()
    start = whole.rstrip(b"\n").rfind(b"\n") + 1
    for length in (start, start + 1, start + 200, len(whole) - 1):
        kit.mirror(tmp_path).write_bytes(whole[:length])
        kit.reopen(tmp_path).close()
        assert kit.mirror(tmp_path).read_bytes() == whole
    ledger.close()


def test_an_older_copy_of_the_ledger_is_noticed(tmp_path):
    kit.ready(tmp_path, PLAN).close()
    shutil.copytree(tmp_path / "node", tmp_path / "backup")
    ledger = kit.reopen(tmp_path)
    kit.run_round(ledger, PLAN, 1)
    head = ledger.checkpoint()
    ledger.close()
    shutil.rmtree(tmp_path / "node")
    shutil.copytree(tmp_path / "backup", tmp_path / "node")
    with pytest.raises(NotReadyError, match="recover"):
        kit.reopen(tmp_path)
    # With the mirror put back too, only a witness remembers.
    lines = kit.mirror(tmp_path).read_bytes().splitlines(keepends=True)
    kit.mirror(tmp_path).write_bytes(b"".join(lines[:3]))
    kit.reopen(tmp_path).close()
    with pytest.raises(NotReadyError, match="3 entries where a witness has seen 5"):
        kit.reopen(tmp_path, heads=[head])
    # The mirror brings everything back.
    kit.mirror(tmp_path).write_bytes(b"".join(lines))
    restore.from_mirror(tmp_path / "node", kit.mirror(tmp_path))
    ledger = kit.reopen(tmp_path, heads=[head])
    assert ledger.state.runs[PLAN.hash].newest == 1


def test_an_older_copy_is_noticed_while_running(tmp_path):
    kit.ready(tmp_path, PLAN).close()
    shutil.copytree(tmp_path / "node", tmp_path / "backup")
    ledger = kit.reopen(tmp_path)
    ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    shutil.rmtree(tmp_path / "node")
    shutil.copytree(tmp_path / "backup", tmp_path / "node")
    other = kit.mirror(tmp_path).read_bytes()
    kit.mirror(tmp_path).write_bytes(b"".join(other.splitlines(keepends=True)[:3]))
    late = kit.reopen(tmp_path)
    kit.mirror(tmp_path).write_bytes(other)
    with pytest.raises(NotReadyError, match="recover"):
        late.reserve(PLAN.hash, 1, ARRAYS[2])


def test_a_forked_history_is_noticed(tmp_path):
    kit.ready(tmp_path, PLAN).close()
    shutil.copytree(tmp_path, tmp_path.parent / "fork")
    one, other = kit.reopen(tmp_path), kit.reopen(tmp_path.parent / "fork")
    one.reserve(PLAN.hash, 1, ARRAYS[1])
    other.reserve(PLAN.hash, 1, ARRAYS[2])
    with pytest.raises(NotReadyError, match="another history"):
        kit.reopen(tmp_path, heads=[other.checkpoint()])
    shutil.copy(kit.mirror(tmp_path.parent / "fork"), kit.mirror(tmp_path))
    with pytest.raises(NotReadyError, match="another history"):
        kit.reopen(tmp_path)


def test_heads_of_other_ledgers_are_no_heads(tmp_path):
    ledger = kit.ready(tmp_path, PLAN)
    stranger = SigningKey.generate(kit.NODE.name)
    text = note.sign(note.Checkpoint(kit.NODE.name, 99, bytes(32)).text, [stranger])
    with pytest.raises(EvidenceError):
        kit.reopen(tmp_path, heads=[text])
    assert ledger.state.size == 3


@pytest.mark.parametrize("reach", ["rounds", "unknown"])
def test_recovery_over_a_backup_charges_the_worst(tmp_path, reach):
    kit.ready(tmp_path, PLAN).close()
    shutil.copytree(tmp_path, tmp_path.parent / f"backup {reach}")
    ledger = kit.reopen(tmp_path)
    (before,) = ledger.balances()
    kit.run_round(ledger, PLAN, 1)
    head = ledger.checkpoint()
    lost = ledger.state.size
    ledger.close()
    folder = tmp_path.parent / f"backup {reach}"
    with pytest.raises(NotReadyError):
        kit.reopen(folder, heads=[head])
    ledger = kit.reopen(folder)
    made = draft.recover(ledger.state, lost_size=lost, lost_root=None, reach=reach)
    with pytest.raises(EvidenceError):
        ledger.add(made)
    with pytest.raises(EvidenceError, match="worst"):
        ledger.add(kit.sign(made.model_copy(update={"charges": ()})))
    ledger.add(kit.sign(made))
    (after,) = ledger.balances()
    assert after.held == 0
    assert after.spent == (before.held if reach == "rounds" else before.rho_max)
    with pytest.raises(BudgetError, match="settled"):
        ledger.reserve(PLAN.hash, 1, ARRAYS[1])
    again = kit.reopen(folder, heads=[head])  # it owns up to what the witness saw
    assert again.checkpoint().splitlines()[0] == kit.NODE.name + "/1"
    if reach == "unknown":
        with pytest.raises(BudgetError):
            kit.approve(again, kit.plan_of(seed=1))


def test_a_lost_mirror_is_made_again_only_when_asked(tmp_path):
    kit.ready(tmp_path, PLAN).close()
    whole = kit.mirror(tmp_path).read_bytes()
    kit.mirror(tmp_path).unlink()
    with pytest.raises(NotReadyError, match="mirror"):
        kit.reopen(tmp_path)
    restore.new_mirror(tmp_path / "node", kit.mirror(tmp_path))
    assert kit.mirror(tmp_path).read_bytes() == whole
    kit.reopen(tmp_path)


RACER = """
import sys
import ledger_kit as kit
from pathlib import Path
from fedfsd.errors import BudgetError
folder, first = Path(sys.argv[1]), int(sys.argv[2])
ledger = kit.reopen(folder)
for seed in range(first, first + 6):
    plan = kit.plan_of(seed=seed, rounds=2)
    try:
        kit.approve(ledger, plan)
    except BudgetError:
        continue
    for round in (1, 2):
        kit.run_round(ledger, plan, round)
"""


def test_racing_processes_cannot_overspend(tmp_path):
    ledger = kit.create(tmp_path)
    kit.grant(ledger, epsilon=None, events=kit.plan_of(rounds=2).events("EU") * 7)
    racers = [
        subprocess.Popen([sys.executable, "-c", RACER, str(tmp_path), str(10 * number)], cwd=HERE)
        for number in range(3)
    ]
    assert [racer.wait(timeout=120) for racer in racers] == [0, 0, 0]
    (balance,) = ledger.balances()
    assert (balance.spent, balance.held, balance.plans) == (balance.rho_max, 0, 7)
    kinds = [parse(content).type for content in kit.reopen(tmp_path)._store.entries()]
    assert (kinds.count("plan"), kinds.count("reserve"), kinds.count("refuse")) == (7, 14, 11)
    assert balance.data_set == DATA


def test_racing_for_one_round_charges_once(tmp_path):
    plan = kit.plan_of(rounds=2)
    ledger = kit.ready(tmp_path, plan)
    script = RACER.split("for seed")[0] + (
        "for round in (1, 2):\n    kit.run_round(ledger, kit.plan_of(rounds=2), round)\n"
    )
    # Both do the same round on the same arrays; the one that comes too late for round 1 is told so.
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path), str(n)], cwd=HERE, stderr=subprocess.PIPE
        )
        for n in range(2)
    ]
    errors = [racer.communicate(timeout=120)[1].decode() for racer in racers]
    assert all(not error or "rounds that go forward" in error for error in errors), errors
    (balance,) = ledger.balances()
    assert balance.held == 0
    kinds = [parse(content).type for content in ledger._store.entries()]
    assert (kinds.count("reserve"), kinds.count("release")) == (2, 2)
