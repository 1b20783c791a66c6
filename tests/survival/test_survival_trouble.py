"""A late region, a full disk, a node twice, a clock that is off, a region that leaves: the run goes on."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from survival.relay import GOOD, SILENT
from survival.survival_kit import REGIONS, Conducted, Scene, Stack, may_mount, small_disk, until

DEADLINE = 4.0
"""Seconds of a round."""
DAY = 86_400.0
OFF_CLOCK = Path(__file__).with_name("off_clock.py")
YESTERDAY = f"""
import sys
if "fedfsd.node.region_gate" in sys.orig_argv:
    import off_clock
    off_clock.shift({-DAY})
"""
RULES = ["use", "drop"] if os.environ.get("FEDFSD_KILLS") else ["use"]


@pytest.fixture
def scene(tmp_path) -> Iterator[Scene]:
    """Three regions that run, EU with yesterday's date and, where this machine allows, on a small disk."""
    with Stack() as stack:
        scene = Scene(tmp_path / "stage", REGIONS, separate=False)
        stack.callback(scene.down)
        scene.build()
        if may_mount():
            ledger = scene.places["EU"].folder / "ledger"
            scene.fill = stack.enter_context(small_disk(ledger, kibibytes=2048))
            stack.callback(scene.down)
        site = tmp_path / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(YESTERDAY)
        scene.within = {"EU": ["env", f"PYTHONPATH={site}{os.pathsep}{OFF_CLOCK.parent}"]}
        shutil.copytree(scene.places["US"].folder, tmp_path / "twin", ignore=shutil.ignore_patterns("run"))
        scene.up()
        yield scene


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("late", RULES)
def test_a_run_goes_on_without_those_in_trouble(scene, tmp_path, late):
    run = scene.begin("run", rounds=16, timeout=DEADLINE, late=late)
    with gate(scene.folder.with_name("twin")) as twin:
        for trouble in (a_late_region, a_cut_longer_than_the_deadline, a_full_disk, one_that_leaves):
            before, since = run.newest, time.monotonic()
            trouble(scene, run)
            print(f"{trouble.__name__}: rounds {before} to {run.newest}, {time.monotonic() - since:.1f} s")
        stopped_by_itself(scene, twin)
    run.end()
    print(f"{len(run.rounds)} rounds; {run.stops} stops with a name")
    for name in REGIONS:
        booked = scene.booked(name, run.plan)
        assert set(booked.values()) == {1}, booked
    yesterday = datetime.datetime.now(datetime.UTC).date() - datetime.timedelta(days=1)
    assert yesterday.isoformat() in scene.dates("EU")
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


def one_that_leaves(scene: Scene, run: Conducted) -> None:
    """The quorum goes on, the coordinator says since when, and what it released before stays good."""
    scene.stop("CN")
    missed(scene, run, "CN", "timeout")
    with patch("fedfsd.coordinator.status.AWAY_SECONDS", DEADLINE / 2):
        told = status(scene)["warnings"]
    assert any(line.startswith("region CN takes part in a run and was last heard of at") for line in told), (
        told
    )


def stopped_by_itself(scene: Scene, twin: subprocess.Popen[str]) -> None:
    """An image of US from before the run was started beside it: it has ended, and said why."""
    assert until(lambda: twin.poll() is not None)
    assert twin.stderr is not None
    said = twin.stderr.read()
    assert twin.returncode == 4, said
    assert "stop the other node with this key" in said
    assert scene.logged("coordinator", "two_nodes", region="US")


def a_live_twin(scene: Scene) -> None:
    """A copy of the node as it is now: both are let in, and the coordinator's people hear of it."""
    twin = scene.folder.with_name("live")
    shutil.copytree(scene.places["US"].folder, twin, ignore=shutil.ignore_patterns("run"))
    since, start = len(scene.log("coordinator")), datetime.datetime.now(datetime.UTC).isoformat()

    def noticed() -> bool:
        (row,) = [one for one in status(scene)["regions"] if one["name"] == "US"]
        return row["doubled"] is not None and row["doubled"] > start

    with gate(twin):
        assert until(noticed)
    assert len(scene.log("coordinator")) - since < 50  # they do not drive each other round
    assert any(line.startswith("two nodes used the key of region US") for line in status(scene)["warnings"])


def clocks_that_are_off(scene: Scene) -> None:
    """A day does not matter; where certificates are not valid, that is said in one line."""
    folder = scene.places["CN"].folder

    def says(event: str, clock: float) -> dict[str, object]:
        since = len(scene.log("CN"))
        with gate(folder, clock=clock):
            assert until(lambda: scene.logged("CN", event, since))
        return next(line for line in scene.log("CN")[since:] if line["event"] == event)

    assert says("connected", DAY)
    told = says("connection_refused", 400 * DAY)
    assert "set the clock" in str(told["line"])


def status(scene: Scene) -> dict[str, Any]:
    """What ``coordinator status`` says."""
    return dict(json.loads(scene.fedfsd("coordinator", "status", "-C", scene.coordinator, "--json")))


@contextmanager
def gate(folder: Path, *, clock: float = 0.0) -> Iterator[subprocess.Popen[str]]:
    """Meanwhile a region's gate alone."""
    words = [sys.executable, OFF_CLOCK, str(clock), "fedfsd.node.region_gate", "--region", folder]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as one:
        try:
            yield one
        finally:
            one.terminate()


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
    def seen() -> bool:
        run.tend()
        return holds()

    assert until(seen), f"{what}\n{run.said}\n{[(one['round'], one['regions']) for one in run.rounds[-5:]]}"
