"""Generated traffic: the same everywhere, on the right side of the road, and driven plausibly."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedfsd.drive import traffic
from fedfsd.drive.traffic import generate
from fedfsd.drive.traffic.profile import PROFILES
from fedfsd.errors import UsageError
from fedfsd.task.forecasting.window import WindowSpec, cut

pytest.importorskip("highway_env", reason="the generate extra is not installed")
from fedfsd.drive.traffic.driver import STEP_S
from fedfsd.drive.traffic.recording import SCENES, Traffic, record
from fedfsd.drive.traffic.scene import Signal

DIGEST = """
import hashlib, io
import pyarrow as pa
from fedfsd.drive.traffic import generate
rows = generate(["US", "SG"], vehicles=8, seed=3).rows
sink = io.BytesIO()
with pa.ipc.new_stream(sink, rows.schema) as writer:
    writer.write_table(rows)
print(hashlib.sha256(sink.getvalue()).hexdigest())
"""


def run(code: str, **env: str) -> str:
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ, **env}
    )
    assert found.stderr == ""
    return found.stdout


@pytest.fixture(scope="module")
def table():
    return generate(["US", "SG"], vehicles=25, seed=3)


@pytest.mark.slow
def test_the_same_bytes_in_every_process():
    sink = io.BytesIO()
    rows = generate(["US", "SG"], vehicles=8, seed=3).rows
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    mine = hash("seed")
    other = next(seed for seed in ("1", "2") if int(run("print(hash('seed'))", PYTHONHASHSEED=seed)) != mine)
    assert run(DIGEST, PYTHONHASHSEED=other).strip() == hashlib.sha256(sink.getvalue()).hexdigest()


@pytest.mark.slow
def test_other_processes_make_the_same_table(table, monkeypatch):
    monkeypatch.setattr(traffic, "_ALONE", 0)
    monkeypatch.setattr(traffic.os, "sched_getaffinity", lambda _: {0, 1})
    made = generate(["US"], vehicles=7, seed=3).rows
    assert made.equals(table.rows.slice(0, made.num_rows))


def test_a_smaller_table_is_the_beginning_of_a_larger_one(table):
    few = generate(["US"], vehicles=7, seed=3)
    assert few.rows.equals(table.rows.slice(0, few.rows.num_rows))
    assert not generate(["US"], vehicles=7, seed=4).rows.equals(few.rows)


def test_keys_and_facts(table):
    keys, regions = table.text("vehicle"), table.text("region")
    assert {r: len(set(keys[regions == r])) for r in ("US", "SG")} == {"US": 25, "SG": 25}
    assert (table.origin, table.identity) == ("synthetic", "physical")
    for key in set(keys):
        own = keys == key
        assert len(set(table.text("recording")[own])) == 1
        assert np.allclose(np.diff(table.number("t")[own]), 1 / table.number("hz")[own][0])
    numbers = [table.number(name) for name in ("x", "y", "vx", "vy", "heading", "length", "width")]
    assert np.isfinite(numbers).all()


def test_the_roster_has_vehicles_without_a_window():
    table = generate(["CN"], vehicles=40, seed=5)
    found = cut([table], WindowSpec(), test=False)
    usable = set(found.owner)
    assert 0.4 * len(found.vehicles) < len(usable) < len(found.vehicles)


def test_progress_reaches_the_end():
    seen = []
    generate(["EU"], vehicles=3, seed=0, progress=lambda *told: seen.append(told))
    assert seen[-1] == ("EU", 3, 3)


@pytest.mark.parametrize(
    ("regions", "vehicles", "seed", "place"),
    [
        (["XX"], 5, 1, "regions"),
        ([], 5, 1, "regions"),
        (["CN", "CN"], 5, 1, "regions"),
        (["CN"], 0, 1, "vehicles"),
        (["CN"], 5, -1, "seed"),
    ],
)
def test_refusals(regions, vehicles, seed, place):
    with pytest.raises(UsageError) as refused:
        generate(regions, vehicles=vehicles, seed=seed)
    assert refused.value.place == place


def test_without_highway_env_the_fix_is_named():
    code = """
import sys
sys.modules["highway_env"] = None
from fedfsd.drive.traffic import generate
from fedfsd.errors import NotReadyError
try:
    generate(["CN"], vehicles=1, seed=1)
except NotReadyError as error:
    print(error)
"""
    assert 'pip install ".[generate]"' in run(code)


@pytest.mark.parametrize("profile", PROFILES.values(), ids=lambda profile: profile.name)
def test_profile_is_whole(profile):
    assert sum(share for _, share in profile.scenes) == pytest.approx(1.0)
    assert {name for name, _ in profile.scenes} == set(SCENES)
    assert (1 / STEP_S) % profile.hz == 0


@pytest.mark.parametrize(("region", "sense"), [("EU", 1), ("SG", -1)])
def test_side_of_the_road(region, sense):
    """Right-hand traffic rounds the island counter-clockwise."""
    tracks = record(PROFILES[region], "roundabout", np.random.default_rng(4))
    x, y, vx, vy, _ = np.concatenate([track.state for track in tracks]).T
    ring = (np.hypot(x, y) < 20) & (np.hypot(vx, vy) > 2)
    assert ring.sum() > 30
    assert (sense * (x * vy - y * vx)[ring] > 0).mean() > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(SCENES))
def test_velocities_and_headings_belong_to_the_positions(kind):
    """With a perfect sensor, positions move as the velocities say, and nobody brakes beyond 7 m/s2."""
    sharp = replace(PROFILES["EU"], jitter_m=(0.0, 0.0))
    for track in record(sharp, kind, np.random.default_rng(6)):
        if len(track.t) < 3:
            continue
        moved = np.diff(track.state[:, :2], axis=0) * sharp.hz
        told = (track.state[1:, 2:4] + track.state[:-1, 2:4]) / 2
        assert np.linalg.norm(moved - told, axis=1).max() < 1.5
        speed = np.hypot(*track.state[:, 2:4].T)
        assert np.abs(np.diff(speed)).max() * sharp.hz <= 7.5
        course = np.arctan2(track.state[:, 3], track.state[:, 2])
        slip = (course - track.state[:, 4] + np.pi) % (2 * np.pi) - np.pi
        assert np.abs(slip[speed > 2]).max(initial=0) < 0.6


@pytest.mark.slow
def test_jitter_is_as_large_as_the_profile_says():
    profile = replace(PROFILES["CN"], jitter_m=(0.3, 0.3))
    sharp = replace(profile, jitter_m=(0.0, 0.0))
    noisy, clean = (record(p, "highway", np.random.default_rng(8)) for p in (profile, sharp))
    error = np.concatenate([a.state - b.state for a, b in zip(noisy, clean, strict=True)])
    assert error[:, :2].std() == pytest.approx(0.3, rel=0.15)
    assert np.abs(error[:, 2:]).max() == 0.0


@pytest.mark.slow
@pytest.mark.parametrize("kind", list(SCENES))
def test_vehicles_hardly_ever_overlap(kind):
    from highway_env.utils import are_polygons_intersecting

    rng = np.random.default_rng(12)
    traffic = Traffic(PROFILES["US"], SCENES[kind](PROFILES["US"], rng), rng)
    still, touching = np.zeros(2), set()
    for _ in range(200):
        traffic.step()
        bodies = [(vehicle.serial, vehicle.polygon()) for vehicle in traffic.street.vehicles]
        if traffic.steps % 8 == 0:
            touching |= {
                (a, b)
                for i, (a, one) in enumerate(bodies)
                for b, other in bodies[i + 1 :]
                if are_polygons_intersecting(one, other, still, still)[0]
            }
    assert traffic.serial > 10
    assert len(touching) <= 1


@given(green=st.floats(5, 30), offset=st.floats(0, 60), time=st.floats(0, 300))
def test_lights_never_let_both_roads_go(green, offset, time):
    signal = Signal(green, offset)
    assert signal.stops(0, time) or signal.stops(1, time)
    assert signal.stops(0, time) == signal.stops(2, time)
