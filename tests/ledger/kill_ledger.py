"""Kill a region at every step of its rounds and look at what it then knows; by hand, for as long as you like:

    python tests/ledger/kill_ledger.py --random 1000

A child process runs three rounds and dies by SIGKILL at the n-th step: a write, sync or rename, SQLite's own
included, and every SQL statement. Whatever it had put on the wire must then be covered by a release, and
that by a reservation; the run goes on, sends the same bytes for every round, and costs what it would have
cost without the crash. With ``--random``, as many further kills come at random times.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # the kits of all tests

import ledger_kit as kit
import sync_vfs

from fedfsd.ledger import entry
from fedfsd.ledger.ledger import Ledger

PLAN = kit.plan_of(rounds=3)
ROUNDS = (1, 2, 3)


def run(folder: Path) -> None:
    """All rounds, each put on the wire once it may be sent; rounds sent before are sent again."""
    ledger = kit.reopen(folder)
    for round in ROUNDS:
        if round >= ledger.state.runs[PLAN.hash].newest:
            send(folder, round, kit.run_round(ledger, PLAN, round))
    if ledger.state.runs[PLAN.hash].settled is False:
        ledger.settle(PLAN.hash)


def send(folder: Path, round: int, content: bytes) -> None:
    """The wire: what is on it has left the region."""
    with (folder / "wire.jsonl").open("a") as wire:
        wire.write(json.dumps([round, content.hex()]) + "\n")


def sent(folder: Path) -> list[tuple[int, str]]:
    """Everything that ever left."""
    path = folder / "wire.jsonl"
    return [tuple(json.loads(line)) for line in path.read_text().splitlines()] if path.exists() else []


def check(folder: Path) -> None:
    """What left is covered, and nothing was charged twice."""
    ledger = kit.reopen(folder)
    reserved, released = {}, {}
    for one in map(entry.parse, ledger._store.entries()):
        if one.type == "reserve":
            assert one.round not in reserved, "a round charged twice"
            reserved[one.round] = one
        elif one.type == "release":
            assert one.round in reserved, "a release without its reservation"
            released[one.round] = one.sha256
    for round, content in sent(folder):
        assert released.get(round) == kit.canonical.sha256(bytes.fromhex(content)), "an uncovered release"
    (balance,) = ledger.balances()
    assert balance.spent == sum(one.rho for one in reserved.values())
    ledger.close()


def finish(folder: Path) -> None:
    """The run goes on after the crash and ends as one without."""
    run(folder)
    check(folder)
    everything = sent(folder)
    assert {round for round, _ in everything} == set(ROUNDS)
    assert len(set(everything)) == len(ROUNDS), "other bytes for the same round"
    (balance,) = kit.reopen(folder).balances()
    assert (balance.spent, balance.held) == (len(ROUNDS) * rho_round(folder), 0)


def rho_round(folder: Path) -> int:
    """What one round costs."""
    return kit.reopen(folder).state.runs[PLAN.hash].entry.rho_round


def prepare(folder: Path) -> None:
    """A region with an approved plan."""
    kit.ready(folder, PLAN).close()


def die_at(step: int, folder: Path) -> bool:
    """Run in a child that kills itself before its ``step``-th step; whether it came that far."""
    child = os.fork()
    if child == 0:
        counted = 0

        def count(*_: object) -> None:
            nonlocal counted
            counted += 1
            if counted == step:
                os.kill(os.getpid(), signal.SIGKILL)

        hook(count)
        with sync_vfs.listening(count, count):
            run(folder)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def hook(count: object) -> None:
    """Count file operations of Python, and SQL statements."""
    for name in ("fsync", "replace", "rename"):
        usual = getattr(os, name)
        setattr(os, name, lambda *values, usual=usual: (count(), usual(*values))[1])
    connect = Ledger.__init__

    def connected(self: Ledger, *values: object, **options: object) -> None:
        connect(self, *values, **options)
        self._store._connection.set_trace_callback(count)

    Ledger.__init__ = connected


def die_after(seconds: float, folder: Path) -> bool:
    """Run in a child that is killed after some time."""
    child = os.fork()
    if child == 0:
        run(folder)
        os._exit(0)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def kills(every: int, more: int) -> Iterator[str]:
    """One word for each kill survived: before every n-th step first, then at ``more`` random times."""
    with tempfile.TemporaryDirectory(dir=kit.MEMORY) as name:
        prepare(Path(name) / "ready")
        whole, step = 0.0, 1
        while True:
            folder = shutil.copytree(Path(name) / "ready", Path(name) / "run")
            began = time.perf_counter()
            killed = die_at(step, folder)
            whole = max(whole, time.perf_counter() - began)
            check(folder)
            finish(folder)
            shutil.rmtree(folder)
            if not killed:
                break
            yield f"step {step}"
            step += every
        done, randomness = 0, random.Random(0)
        while done < more:
            folder = shutil.copytree(Path(name) / "ready", Path(name) / "run")
            while done < more and die_after(randomness.uniform(0, whole), folder):
                check(folder)
                done += 1
                yield "some time"
            finish(folder)
            shutil.rmtree(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--random", type=int, default=0)
    asked = parser.parse_args()
    survived = 0
    for word in kills(asked.every, asked.random):
        survived += 1
        print(f"killed at {word}: covered, and the run went on", file=sys.stderr)
    print(f"{survived} kills, no uncovered release, no second charge")


if __name__ == "__main__":
    main()
