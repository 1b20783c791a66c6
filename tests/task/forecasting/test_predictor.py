"""Forecasts without learning against tracks computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfsd.task.forecasting.predictor import PREDICTORS, constant_turn, last_step, mean_of_two_steps

each = pytest.mark.parametrize("name", sorted(PREDICTORS))


def circle(*, radius: float, turn: float, start: float, points: int) -> np.ndarray:
    """(1, points, 2): ``turn`` rad a step around a circle that passes through the origin."""
    angle = start + turn * np.arange(points)
    track = radius * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (track - track[4])[None]


@each
@settings(deadline=None)
@given(st.floats(-20, 20), st.floats(-20, 20), st.integers(1, 8))
def test_a_straight_line_is_exact(name, vx, vy, future):
    track = np.arange(-4.0, future + 1)[:, None] * np.array([vx, vy])
    paths = PREDICTORS[name](track[None, :5], future)
    assert paths.shape == (1, future, 2)
    np.testing.assert_allclose(paths[0], track[5:], atol=1e-9)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.02, 0.3, 0.5])
@pytest.mark.parametrize("start", [0.0, 1.4, 3.0])  # headings that pass through pi must not jump
def test_a_circle_is_exact_for_constant_turn(turn, start):
    track = circle(radius=30, turn=turn, start=start, points=11)
    np.testing.assert_allclose(constant_turn(track[:, :5], 6), track[:, 5:], atol=1e-9)
    assert np.linalg.norm(last_step(track[:, :5], 6) - track[:, 5:], axis=2).max() > 0.1


def test_the_last_step_and_the_mean_of_two_differ_as_they_should():
    history = np.array([[[0.0, 0.0], [0.0, 0.0], [1.0, 0.0], [3.0, 0.0], [7.0, 2.0]]])
    np.testing.assert_allclose(last_step(history, 2), [[[11.0, 4.0], [15.0, 6.0]]])
    np.testing.assert_allclose(mean_of_two_steps(history, 2), [[[10.0, 3.0], [13.0, 4.0]]])


def test_turns_are_taken_from_the_last_three_steps_and_bounded():
    # Steps of 2 m at headings 0, 0, 0.2, 0.6: the mean of the last two turns is 0.3.
    moves = 2 * np.stack([np.cos([0, 0, 0.2, 0.6]), np.sin([0, 0, 0.2, 0.6])], axis=1)
    history = np.concatenate([[[0.0, 0.0]], np.cumsum(moves, axis=0)])[None]
    end = history[0, -1] + 2 * np.array([np.cos(0.9), np.sin(0.9)])
    np.testing.assert_allclose(constant_turn(history, 1)[0, 0], end)
    # A turn of 1 rad a step is no car's: it goes on at half a radian.
    sharp = circle(radius=5, turn=1.0, start=0.0, points=5)
    first, second = np.diff(np.concatenate([sharp[0, -2:], constant_turn(sharp, 1)[0]]), axis=0)
    cosine = first @ second / np.linalg.norm(first) / np.linalg.norm(second)
    assert np.arccos(cosine) == pytest.approx(0.5)


@each
def test_a_standing_vehicle_stays(name):
    history = np.tile([3.0, -2.0], (2, 5, 1))
    np.testing.assert_array_equal(PREDICTORS[name](history, 6), np.tile([3.0, -2.0], (2, 6, 1)))


def test_a_vehicle_that_hardly_moves_does_not_turn():
    # Jitter of a standing vehicle: its last step goes on, whatever its heading did.
    history = np.array([[[0.0, 0.0], [0.1, 0.0], [0.1, 0.1], [0.0, 0.1], [0.1, 0.3]]])
    np.testing.assert_allclose(constant_turn(history, 6), last_step(history, 6))


@each
@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-3.1, 3.1), st.floats(-100, 100), st.floats(-100, 100))
def test_the_choice_of_axes_does_not_matter(name, seed, angle, x, y):
    moves = np.random.default_rng(seed).uniform(0.8, 6, (3, 5, 1)) * np.array([1.0, 0.3])
    history = np.cumsum(moves + np.random.default_rng(seed + 1).uniform(-0.2, 0.2, (3, 5, 2)), axis=1)
    turned = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    there = PREDICTORS[name](history @ turned + [x, y], 6)
    np.testing.assert_allclose(there, PREDICTORS[name](history, 6) @ turned + [x, y], atol=1e-6)
