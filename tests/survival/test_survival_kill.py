"""Kill any process of a federation at any moment, cut or spoil its wires: the run ends whole, charged once.

``FEDFSD_KILLS=100`` kills that many more, one after another.
"""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from survival.relay import CUT, GOOD, LOSSY, SILENT, SLOW
from survival.survival_kit import REGIONS, Conducted, Scene, Stack, may_shape, namespace, netem

PROCESSES = [
    ("EU", "runner"),
    ("CN", "gate"),
    ("coordinator", "serverapp"),
    ("coordinator", "gate"),
    ("US", "runner"),
    ("coordinator", "superlink"),
    ("EU", "gate"),
    ("coordinator", "superexec"),
]
MORE = int(os.environ.get("FEDFSD_KILLS", "0"))
CUT_SECONDS = 3.0
"""A round takes half a second."""


@pytest.fixture
def scene(tmp_path) -> Iterator[Scene]:
    """A coordinator and three regions that run; US is a host of its own where this machine allows."""
    with Stack() as stack:
        scene = Scene(tmp_path / "stage", REGIONS, separate=False)
        stack.callback(scene.down)
        scene.build()
        name = f"fedfsd{os.getpid()}"
        with suppress(OSError, subprocess.CalledProcessError):
            host, scene.plug = stack.enter_context(namespace(name))
            scene.route("US", host)
            scene.within = {"US": ["ip", "netns", "exec", name]}
        stack.callback(scene.down)
        scene.up()
        yield scene


@pytest.mark.slow
@pytest.mark.timeout(900 + 60 * MORE)
def test_a_run_outlives_its_processes_and_its_wires(scene):
    start = time.monotonic()
    run = scene.begin("run", rounds=24 + 3 * MORE)
    for trouble in (kills, bad_wires, no_wires, the_coordinator_dies, everything_dies):
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
    for place, unit in PROCESSES:
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
