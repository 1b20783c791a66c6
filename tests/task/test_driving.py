"""Kinds of driving by their definition, on paths drawn by hand; figures by kind against a slow count."""

from __future__ import annotations

import numpy as np
import pytest

from fedfsd.task import driving, registry, score
from fedfsd.task.driving import BRAKING_M_S2, SIDE_M, STANDING_M_S, TURN_RAD, kinds
from fedfsd.task.path import measure
from fedfsd.task.task import CONFIDENCE, HIT

PERIOD, HISTORY, FUTURE = 0.5, 5, 6
KINDS = ("turning", "lane change", "braking", "standing start", "straight")


def driven(speeds, headings) -> tuple[np.ndarray, np.ndarray]:
    """History and future (1, ..., 2) of one vehicle; ``speeds`` m/s and ``headings`` rad of each step."""
    count = HISTORY - 1 + FUTURE
    speeds, headings = np.broadcast_to(speeds, count), np.broadcast_to(headings, count)
    steps = PERIOD * speeds[:, None] * np.stack([np.cos(headings), np.sin(headings)], axis=1)
    points = np.concatenate([np.zeros((1, 2)), steps.cumsum(axis=0)])
    return points[None, :HISTORY], points[None, HISTORY:]


def of(speeds, headings=0.0) -> set[str]:
    history, future = driven(speeds, headings)
    found = kinds(history, future, PERIOD)
    return {name for name in KINDS if found[name][0]}


def ramp(start: float, end: float) -> np.ndarray:
    """The same until the present, then evenly to ``end`` at the last step."""
    return np.r_[np.full(HISTORY - 1, start), np.linspace(start, end, FUTURE + 1)[1:]]


@pytest.mark.parametrize(
    ("speeds", "headings", "expected"),
    [
        (10.0, 0.0, {"straight"}),
        (10.0, ramp(0, 1.01 * TURN_RAD), {"turning"}),
        (10.0, ramp(0, -1.01 * TURN_RAD), {"turning"}),
        (10.0, ramp(0, 0.99 * TURN_RAD), {"lane change"}),  # a gentle bend, without a map
        (10.0, ramp(0, 0.05), {"straight"}),
        (ramp(10, 9.99 - 3 * BRAKING_M_S2), 0.0, {"braking"}),
        (ramp(10, 10.01 - 3 * BRAKING_M_S2), 0.0, {"straight"}),
        (ramp(10, 4), ramp(0, 1.0), {"turning", "braking"}),
        (ramp(0, 6), 0.0, {"standing start"}),
        (ramp(0.99 * STANDING_M_S, 1.01 * STANDING_M_S), 0.0, {"standing start"}),
        (ramp(1.01 * STANDING_M_S, 6), 0.0, {"straight"}),
        (ramp(0, 6), ramp(0, 1.5), {"turning", "standing start"}),
    ],
)
def test_each_kind_begins_where_its_threshold_is(speeds, headings, expected):
    assert of(speeds, headings) == expected
    history, future = driven(speeds, headings)
    turn = np.array([[np.cos(1.1), np.sin(1.1)], [-np.sin(1.1), np.cos(1.1)]])
    for way in (turn, np.diag([1.0, -1.0])):  # turned or mirrored it is the same driving
        found = kinds(history @ way + 100, future @ way + 100, PERIOD)
        assert {name for name in KINDS if found[name][0]} == expected


@pytest.mark.parametrize("side", [0.99 * SIDE_M, 1.01 * SIDE_M])
def test_half_a_lane_to_the_side_and_back_to_the_old_heading(side):
    history, future = driven(15.0, 0.0)
    future = future.copy()
    future[0, :, 1] += side * np.array([0.1, 0.4, 0.7, 0.95, 1.0, 1.0])
    assert bool(kinds(history, future, PERIOD)["lane change"][0]) == (side > SIDE_M)


def test_a_vehicle_that_hardly_moves_has_no_heading_to_turn():
    assert of(0.2, np.linspace(0, 3, HISTORY - 1 + FUTURE)) == {"straight"}


def test_every_example_is_in_one_band_of_speed_and_in_some_kind():
    random = np.random.default_rng(1)
    history, future = random.normal(size=(200, 5, 2)).cumsum(1) * 4, random.normal(size=(200, 6, 2)).cumsum(1)
    found = kinds(history, future, PERIOD)
    bands = np.stack([mask for name, mask in found.items() if "m/s" in name])
    assert len(bands) == len(driving.FAST_M_S) + 1
    assert (bands.sum(axis=0) == 1).all()
    assert np.stack([found[name] for name in KINDS]).any(axis=0).all()
    assert list(kinds(history[:0], future[:0], PERIOD)) == list(found)


def test_figures_by_kind_are_means_over_its_examples_alone():
    random = np.random.default_rng(2)
    count, modes = 400, 6
    paths, future = random.normal(size=(count, modes, 6, 2)), random.normal(size=(count, 6, 2))
    said, owner = random.normal(size=(count, modes)), random.integers(20, size=count)
    task = registry.of("forecasting", {})
    found = measure(paths, said, future, owner)
    simple = measure(paths[:, :1], said[:, :1], future, owner)
    mine = random.random(count) < 0.3
    (line,) = score.by_kind(task, found, simple, {"some": mine, "none": np.zeros(count, bool)})
    assert line["kind"] == "some"
    assert line["test_windows"] == mine.sum()
    assert line["test_vehicles"] == len(set(owner[mine]))
    hits, confidences, fde, miss = [], [], [], []
    for row in np.flatnonzero(mine):
        end = np.linalg.norm(paths[row, :, -1] - future[row, -1], axis=1)
        chance = np.exp(said[row]) / np.exp(said[row]).sum()
        hits.append(chance.argmax() == end.argmin())
        confidences.append(chance.max())
        fde.append(end[chance.argmax()])
        miss.append(end.min() > 2.0)
    assert line["fde_m"] == pytest.approx(np.mean(fde))
    assert line["miss_rate"] == pytest.approx(np.mean(miss))
    assert (line[CONFIDENCE], line[HIT]) == (
        pytest.approx(np.mean(confidences)),
        pytest.approx(np.mean(hits)),
    )
    error = 0.0
    for low in np.arange(10) / 10:
        inside = [
            i for i, one in enumerate(confidences) if low <= one < low + 0.1 or (one == 1 and low == 0.9)
        ]
        error += abs(sum(confidences[i] - hits[i] for i in inside)) / len(hits)
    assert line["calibration"] == pytest.approx(error)
    assert line["constant_velocity_fde_m"] == pytest.approx(np.mean(simple.values["fde_m"][mine]))


def test_one_path_has_no_confidence():
    one = measure(np.zeros((3, 1, 6, 2)), np.zeros((3, 1)), np.ones((3, 6, 2)), np.arange(3))
    assert CONFIDENCE not in one.values
