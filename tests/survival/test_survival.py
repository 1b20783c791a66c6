"""A federation that is killed, cut off, filled up or left: its runs end whole, and nothing is charged twice.

``FEDFSD_KILLS=100`` kills that many more processes, one after another, the whole coordinator among them, and
tries both rules for late updates.
"""

from __future__ import annotations

import datetime
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from survival.relay import CUT, GOOD, LOSSY, SILENT, SLOW
from survival.survival_kit import (
    REGIONS,
    Conducted,
    Scene,
    Stack,
    may_mount,
    may_shape,
    namespace,
    netem,
    small_disk,
    until,
)

PROCESSES = [
    ("EU", "runner"),
    ("CN", "gate"),
    ("coordinator", "serverapp"),
    ("coordinator", "gate"),
    ("coordinator", "superlink"),
    ("coordinator", "superexec"),
    ("US", "runner"),
    ("EU", "gate"),
]
MORE = int(os.environ.get("FEDFSD_KILLS", "0"))
FIRST = PROCESSES if MORE else PROCESSES[:6]  # one of each kind
RULES = ["use", "drop"] if MORE else ["use"]
CUT_SECONDS = 3.0
"""A round takes half a second."""
DEADLINE = 4.0
"""Seconds of a round in which a region is late."""
DAY = 86_400.0
OFF_CLOCK = Path(__file__).with_name("off_clock.py")
YESTERDAY = f"""
import sys
if "fedfsd.node.region_gate" in sys.orig_argv:
    import off_clock
    off_clock.shift({-DAY})
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900 + 60 * MORE)]


@pytest.fixture(scope="module")
def scene(tmp_path_factory) -> Iterator[Scene]:
    """A coordinator and three regions that run: EU with yesterday's date.

    Where this machine allows, US is a host of its own and EU has a small disk.
    """
    folder = tmp_path_factory.mktemp("survival")
    with Stack() as stack:
        scene = Scene(folder / "stage", REGIONS, separate=False)
        stack.callback(scene.down)
        scene.build()
        name = f"fedfsd{os.getpid()}"
        with suppress(OSError, subprocess.CalledProcessError):
            host, scene.plug = stack.enter_context(namespace(name))
            scene.route("US", host)
            scene.within = {"US": ["ip", "netns", "exec", name]}
        if may_mount():
            ledger = scene.places["EU"].folder / "ledger"
            scene.fill = stack.enter_context(small_disk(ledger, kibibytes=2048 + 64 * MORE))
        site = folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(YESTERDAY)
        scene.within["EU"] = ["env", f"PYTHONPATH={site}{os.pathsep}{OFF_CLOCK.parent}"]
        stack.callback(scene.down)
        scene.up()
        yield scene


def test_a_run_outlives_its_processes_and_its_wires(scene):
    start = time.monotonic()
    run = scene.begin("run", rounds=20 + 3 * MORE)
    coordinator = [the_coordinator_dies] if MORE else []
    for trouble in (kills, bad_wires, no_wires, *coordinator, everything_dies):
        before, since = run.newest, time.monotonic()
        trouble(scene, run)
        print(f"{trouble.__name__}: rounds {before} to {run.newest}, {time.monotonic() - since:.1f} s")
    run.end()
    print(
        f"{len(run.rounds)} rounds in {time.monotonic() - start:.1f} s; kill -9: {dict(scene.kills)};",
        end=" ",
    )
    print(f"{run.stops} stops with a name")
    demand_whole(scene, run)


def kills(scene: Scene, run: Conducted) -> None:
    """Every process at a moment of its own, often while the others are still coming back."""
    chance = random.Random(MORE)
    for place, unit in FIRST:
        time.sleep(chance.uniform(0.0, 1.5))
        scene.kill(place, unit)
    run.further(2)
    for _ in range(MORE):
        time.sleep(chance.uniform(0.0, 1.0))
        scene.kill(*chance.choice(PROCESSES))
        run.further(1)


def bad_wires(scene: Scene, run: Conducted) -> None:
    """One region is cut off for longer than a round, one is slow, one loses packets."""
    before = run.newest
    scene.relays["EU"].wire = SLOW
    scene.relays["US"].wire = LOSSY
    scene.relays["CN"].wire = SILENT
    time.sleep(CUT_SECONDS)
    scene.relays["CN"].wire = CUT
    time.sleep(CUT_SECONDS / 2)
    assert run.newest <= before + 1
    scene.relays["CN"].wire = GOOD
    run.further(2)
    for relay in scene.relays.values():
        relay.wire = GOOD


def no_wires(scene: Scene, run: Conducted) -> None:
    """The cable of a whole host is pulled for longer than a round, and worn out where there is netem."""
    if scene.plug is None:
        print("no network namespaces here: no cable was pulled")
        return
    before = run.newest
    scene.plug(False)
    time.sleep(CUT_SECONDS)
    assert run.newest <= before + 1
    scene.plug(True)
    run.further(1)
    if not may_shape():
        print("no netem here: slow and lossy wires were the relay's alone")
        return
    for words in (("delay", "300ms", "rate", "2mbit"), ("loss", "5%")):
        with netem(scene.within["US"], *words):
            run.further(2)


def the_coordinator_dies(scene: Scene, run: Conducted) -> None:
    """All of ``coordinator up`` at once; who follows the run waits."""
    scene.kill_up("coordinator")
    scene.start_coordinator()
    run.further(1)


def everything_dies(scene: Scene, run: Conducted) -> None:
    """As when the power fails everywhere."""
    for place in ("EU", "coordinator", "CN", "US"):
        scene.kill_up(place)
    run.kill()
    scene.start_coordinator()
    scene.up()
    run.start("--resume")
    run.further(1)


def demand_whole(scene: Scene, run: Conducted) -> None:
    """Every round once, nothing charged twice, and evidence that holds."""
    assert [one["round"] for one in run.rounds] == list(range(1, len(run.rounds) + 1))
    assert {one["outcome"] for line in run.rounds for one in line["regions"].values()} == {"released"}
    for name in REGIONS:
        booked = scene.booked(name, run.plan)
        assert set(booked.values()) == {1}, booked
        assert len(booked) == 2 * len(run.rounds)
    code, text = scene.verify(run)
    assert code == 0, text


@pytest.mark.parametrize("late", RULES)
def test_a_run_goes_on_without_those_in_trouble(scene, tmp_path, late):
    if "CN" not in scene.processes:  # it has left a run
        scene.start_region("CN")
        scene.wait("CN", lambda: scene.ready("CN"))
    image = tmp_path / "image"
    shutil.copytree(scene.places["US"].folder, image, ignore=shutil.ignore_patterns("run"))
    run = scene.begin(late, rounds=16, timeout=DEADLINE, late=late)
    with gate(image) as twin:
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
        trouble(scene, tmp_path)
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


def a_live_twin(scene: Scene, folder: Path) -> None:
    """A copy of the node as it is now: both are let in, and the coordinator's people hear of it."""
    twin = folder / "live"
    shutil.copytree(scene.places["US"].folder, twin, ignore=shutil.ignore_patterns("run"))
    since, start = len(scene.log("coordinator")), datetime.datetime.now(datetime.UTC).isoformat()

    def noticed() -> bool:
        (row,) = [one for one in status(scene)["regions"] if one["name"] == "US"]
        return row["doubled"] is not None and row["doubled"] > start

    with gate(twin):
        assert until(noticed)
    assert len(scene.log("coordinator")) - since < 50  # they do not drive each other round
    assert any(line.startswith("two nodes used the key of region US") for line in status(scene)["warnings"])


def clocks_that_are_off(scene: Scene, _: Path) -> None:
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
