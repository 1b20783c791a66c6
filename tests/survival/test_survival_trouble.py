"""A late region, a full disk, a node twice, a clock that is off, a region that leaves: the run goes on."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from survival.relay import GOOD, SILENT
from survival.survival_kit import REGIONS, Conducted, Scene, Stack, may_mount, small_disk, until

DEADLINE = 4.0
"""Seconds of a round."""
DAY = 86_400.0
OFF_CLOCK = Path(__file__).with_name("off_clock.py")
RULES = ["use", "drop"] if os.environ.get("FEDFSD_KILLS") else ["use"]


@pytest.fixture
def scene(tmp_path) -> Iterator[Scene]:
    """Three regions that run; EU's ledger has a small disk of its own where this machine allows."""
    with Stack() as stack:
        scene = Scene(tmp_path / "stage", REGIONS, separate=False)
        stack.callback(scene.down)
        scene.build()
        if may_mount():
            ledger = scene.places["EU"].folder / "ledger"
            scene.fill = stack.enter_context(small_disk(ledger, kibibytes=2048))
            stack.callback(scene.down)
        shutil.copytree(scene.places["US"].folder, tmp_path / "twin", ignore=shutil.ignore_patterns("run"))
        scene.up()
        yield scene


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("late", RULES)
def test_a_run_goes_on_without_those_in_trouble(scene, tmp_path, late):
    run = scene.begin("run", rounds=40, timeout=DEADLINE, late=late)
    for trouble in (a_late_region, a_cut_longer_than_the_deadline, a_full_disk, an_old_twin, one_that_leaves):
        before, since = run.newest, time.monotonic()
        trouble(scene, run)
        print(f"{trouble.__name__}: rounds {before} to {run.newest}, {time.monotonic() - since:.1f} s")
    assert run.end() == 0, run.said
    for name in REGIONS:
        booked = scene.booked(name, run.plan)
        assert set(booked.values()) == {1}, booked
    code, text = scene.verify(run)
    assert code == 0, text
    for trouble in (a_live_twin, clocks_that_are_off):
        since = time.monotonic()
        trouble(scene)
        print(f"{trouble.__name__}: {time.monotonic() - since:.1f} s")
    code, text = scene.verify(run)
    assert code == 0, text


def a_late_region(scene: Scene, run: Conducted) -> None:
    """Its runner stands still past the deadline; what it releases then is recorded as late."""
    pid = scene.pid("CN", "runner")
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    missed(scene, run, "CN", "timeout")
    os.kill(pid, signal.SIGCONT)
    back_late(scene, run, "CN")


def a_cut_longer_than_the_deadline(scene: Scene, run: Conducted) -> None:
    """The others go on at the deadline; it is late once the wire is back."""
    scene.relays["US"].wire = SILENT
    missed(scene, run, "US", "timeout")
    scene.relays["US"].wire = GOOD
    back_late(scene, run, "US")


def a_full_disk(scene: Scene, run: Conducted) -> None:
    """Named in the log, answered at once, over when there is room again."""
    if scene.fill is None:
        print("no file system can be mounted here: no disk was filled")
        return
    since = len(scene.log("EU"))
    scene.fill(True)
    missed(scene, run, "EU", "region_unavailable")
    assert scene.logged("EU", "disk_full", since)
    scene.fill(False)
    back(scene, run, "EU")


def an_old_twin(scene: Scene, run: Conducted) -> None:
    """An image of the node from before the run is started beside it: it stops by itself, and says why."""
    code, said = gate(scene.folder.with_name("twin"))
    assert code == 4, said
    assert "stop the other node with this key" in said
    run.further(1)
    assert scene.logged("coordinator", "two_nodes", region="US")


def one_that_leaves(scene: Scene, run: Conducted) -> None:
    """The quorum goes on, the coordinator says since when, and what it released before stays good."""
    scene.stop("CN")
    missed(scene, run, "CN", "timeout")
    (row,) = [one for one in status(scene)["regions"] if one["name"] == "CN"]
    print(row)


def a_live_twin(scene: Scene) -> None:
    """A copy of the node as it is now: both are let in, and the coordinator's people hear of it."""
    twin = scene.folder.with_name("live")
    shutil.copytree(scene.places["US"].folder, twin, ignore=shutil.ignore_patterns("run"))
    since = len(scene.log("coordinator"))

    def noticed() -> bool:
        return scene.logged("coordinator", "two_nodes", since, region="US")

    start = time.monotonic()
    code, said = gate(twin, enough=lambda: noticed() and time.monotonic() > start + 8)
    lines = scene.log("coordinator")[since:]
    print(len(lines), "lines")
    assert noticed()
    assert code == 0, said


def clocks_that_are_off(scene: Scene) -> None:
    """A day is nothing but for certificates: those are not valid then, which is said in one line."""
    folder = scene.places["CN"].folder

    def says(event: str, clock: float) -> dict[str, object]:
        since = len(scene.log("CN"))
        code, said = gate(folder, enough=lambda: scene.logged("CN", event, since), clock=clock)
        assert code == 0, said
        return next(line for line in scene.log("CN")[since:] if line["event"] == event)

    assert says("connected", DAY)
    for clock in (-DAY, 400 * DAY):
        told = says("connection_refused", clock)
        assert "set the clock" in str(told["line"])


def status(scene: Scene) -> dict[str, Any]:
    """What ``coordinator status`` says."""
    return dict(json.loads(scene.fedfsd("coordinator", "status", "-C", scene.coordinator, "--json")))


def gate(folder: Path, *, enough: Callable[[], bool] = lambda: False, clock: float = 0.0) -> tuple[int, str]:
    """A region's gate alone, until it ends or ``enough`` says so; its exit code and what it said."""
    words = [sys.executable, OFF_CLOCK, str(clock), "fedfsd.node.gate", "--region", folder]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as one:
        until(lambda: one.poll() is not None or enough())
        one.terminate()
        said = one.communicate()[1]
    return one.returncode, said


def outcomes(run: Conducted, name: str, after: int) -> list[str]:
    return [one["regions"][name]["outcome"] for one in run.rounds if one["round"] > after]


def missed(scene: Scene, run: Conducted, name: str, outcome: str) -> None:
    """Wait until a round has gone on without the region, for that reason."""
    before = run.newest
    reached(lambda: outcome in outcomes(run, name, before), run, f"{name}: {outcome}")


def back(scene: Scene, run: Conducted, name: str) -> None:
    """Wait until it takes part again."""
    before = run.newest
    reached(lambda: "released" in outcomes(run, name, before), run, f"{name} back")


def back_late(scene: Scene, run: Conducted, name: str) -> None:
    """Wait until its late update is on record by the plan's rule, and it takes part again."""
    rule = {"use": "late_used", "drop": "late_dropped"}[run.document.late_updates]

    def recorded() -> bool:
        late = [one for line in run.rounds for one in line.get("late", [])]
        return any(one["region"] == name and one["outcome"] == rule for one in late)

    reached(recorded, run, f"{name}: {rule}")
    back(scene, run, name)


def reached(holds: Callable[[], bool], run: Conducted, what: str) -> None:
    assert until(holds), f"{what}\n{run.said}\n{[(one['round'], one['regions']) for one in run.rounds[-5:]]}"
