"""Metrics against hand-computed cases, and the bootstrap by vehicle."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfsd.task import path, score
from fedfsd.task.task import Scores

# Two windows, two paths, two future points; offsets of each path from the future, in metres.
OFFSETS = np.array(
    [
        [[[3.0, 0.0], [0.0, 3.0]], [[0.0, 0.0], [0.0, -4.0]]],  # distances 3, 3 and 0, 4
        [[[0.0, 0.0], [2.0, 0.0]], [[3.0, 4.0], [6.0, 8.0]]],  # distances 0, 2 and 5, 10
    ]
)
FUTURE = np.array([[[1.0, 0.0], [2.0, 1.0]], [[5.0, -1.0], [9.0, -3.0]]])
PATHS = FUTURE[:, None] + OFFSETS
METRICS = path.metrics(3.0)


def errors_of(values, owner) -> Scores:
    values = np.asarray(values, dtype=float)
    keys = [one.key for one in METRICS]
    return Scores(dict.fromkeys(keys, values) | {"miss_rate": values > path.MISS_M}, np.asarray(owner))


def summarised(scores: Scores) -> dict:
    return score.summary(METRICS, scores)


def test_two_windows_by_hand():
    errors = path.measure(PATHS, np.array([[0.1, 0.9], [-2.0, -1.0]]), FUTURE, np.array([0, 1]))
    np.testing.assert_allclose(errors.values["ade_m"], [2.0, 7.5])  # the likeliest path is the second in both
    np.testing.assert_allclose(errors.values["fde_m"], [4.0, 10.0])
    np.testing.assert_allclose(errors.values["min_ade_k_m"], [2.0, 1.0])
    np.testing.assert_allclose(errors.values["min_fde_k_m"], [3.0, 2.0])  # of another path than min_ade_k's
    assert errors.values["miss_rate"].tolist() == [True, False]
    summary = summarised(errors)
    assert (summary["test_windows"], summary["test_vehicles"]) == (2, 2)
    assert (summary["ade_m"], summary["fde_m"]) == pytest.approx((4.75, 7.0))
    assert (summary["min_ade_k_m"], summary["min_fde_k_m"]) == pytest.approx((1.5, 2.5))
    assert summary["miss_rate"] == 0.5


def test_scores_choose_the_path_that_ade_and_fde_judge():
    errors = path.measure(PATHS, np.array([[2.0, 1.0], [0.0, 0.0]]), FUTURE, np.array([0, 1]))
    np.testing.assert_allclose(errors.values["ade_m"], [3.0, 1.0])  # of equal scores the first path counts
    np.testing.assert_allclose(errors.values["fde_m"], [3.0, 2.0])


def test_one_path_is_its_own_best():
    errors = path.single(PATHS[:, 0], FUTURE, np.array([0, 0]))
    np.testing.assert_array_equal(errors.values["ade_m"], errors.values["min_ade_k_m"])
    np.testing.assert_array_equal(errors.values["fde_m"], errors.values["min_fde_k_m"])
    np.testing.assert_allclose(errors.values["fde_m"], [3.0, 2.0])


@pytest.mark.parametrize(
    ("off", "miss"), [(0.0, False), (2.0, False), (math.nextafter(2.0, 3.0), True), (math.nan, True)]
)
def test_a_miss_is_an_end_point_further_off_than_two_metres(off, miss):
    paths = np.zeros((1, 2, 3, 2))
    paths[0, :, :2] = 50.0  # the way there does not count
    paths[0, :, 2, 0] = (off, 9.0) if not math.isnan(off) else math.nan
    assert (
        path.measure(paths, np.zeros((1, 2)), np.zeros((1, 3, 2)), np.zeros(1)).values["miss_rate"][0] == miss
    )


@settings(deadline=None)
@given(st.permutations(range(5)), st.integers(0, 2**32 - 1))
def test_the_order_of_paths_does_not_matter_and_more_never_harm(order, seed):
    random = np.random.default_rng(seed)
    paths, future = random.normal(size=(7, 5, 4, 2)), random.normal(size=(7, 4, 2))
    scores, owner = random.normal(size=(7, 5)), np.arange(7)
    errors = path.measure(paths, scores, future, owner)
    moved = path.measure(paths[:, list(order)], scores[:, list(order)], future, owner)
    fewer = path.measure(paths[:, :3], scores[:, :3], future, owner)
    for one in METRICS:
        np.testing.assert_array_equal(errors.values[one.key], moved.values[one.key])
    assert (errors.values["min_ade_k_m"] <= errors.values["ade_m"]).all()
    assert (errors.values["min_fde_k_m"] <= errors.values["fde_m"]).all()
    assert (errors.values["min_ade_k_m"] <= fewer.values["min_ade_k_m"]).all()
    assert (errors.values["min_fde_k_m"] <= fewer.values["min_fde_k_m"]).all()


def test_without_windows_every_figure_is_nan():
    errors = path.measure(np.empty((0, 3, 6, 2)), np.empty((0, 3)), np.empty((0, 6, 2)), np.empty(0, int))
    summary = summarised(errors)
    assert (summary["test_windows"], summary["test_vehicles"]) == (0, 0)
    figures = (
        summary["ade_m"],
        summary["fde_m"],
        summary["min_ade_k_m"],
        summary["min_fde_k_m"],
        summary["miss_rate"],
    )
    assert all(math.isnan(figure) for figure in (*figures, *summary["fde_m_95"]))


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 50), st.integers(1, 12)),  # a vehicle's error and its number of windows
        min_size=1,
        max_size=25,
    )
)
def test_the_interval_contains_the_mean_and_repeats(vehicles):
    values = np.concatenate([[value] * count for value, count in vehicles])
    owner = np.concatenate([[index] * count for index, (_, count) in enumerate(vehicles)])
    summary = summarised(errors_of(values, owner))
    low, high = summary["fde_m_95"]
    assert low - 1e-9 <= summary["fde_m"] <= high + 1e-9
    assert min(values) - 1e-9 <= low
    assert high <= max(values) + 1e-9
    assert summarised(errors_of(values, owner)) == summary


def test_a_vehicle_with_many_windows_moves_as_one():
    # By windows the interval would be about [0, 0.3]; by vehicles either may be drawn twice.
    summary = summarised(errors_of([*[0.0] * 1000, 100.0], [0] * 1000 + [1]))
    assert summary["fde_m"] == pytest.approx(100 / 1001)
    assert summary["fde_m_95"] == pytest.approx((0.0, 100.0))
    assert summarised(errors_of([3.0, 5.0], [4, 4]))["fde_m_95"] == (4.0, 4.0)


def test_seeing_every_window_twice_makes_nobody_surer():
    random = np.random.default_rng(0)
    values, owner = random.gamma(2, 2, 300), random.integers(0, 40, 300)
    once = summarised(errors_of(values, owner))["fde_m_95"]
    twice = summarised(errors_of(np.tile(values, 2), np.tile(owner, 2)))["fde_m_95"]
    assert twice == pytest.approx(once)
    # Were the windows independent, the interval would be that of 300 draws.
    alone = summarised(errors_of(values, np.arange(300)))["fde_m_95"]
    assert alone[1] - alone[0] == pytest.approx(2 * 1.96 * values.std() / np.sqrt(300), rel=0.15)


def test_pooling_keeps_the_vehicles_of_regions_apart():
    first = errors_of([0.0, 0.0, 1.0], [0, 0, 2])
    empty = errors_of([], np.empty(0, int))
    second = errors_of([9.0, 11.0], [0, 1])
    pooled = score.pool([first, empty, second])
    assert pooled.values["fde_m"].tolist() == [0.0, 0.0, 1.0, 9.0, 11.0]
    assert pooled.values["miss_rate"].tolist() == [False, False, False, True, True]
    summary = summarised(pooled)
    assert (summary["test_windows"], summary["test_vehicles"]) == (5, 4)
    apart = errors_of(pooled.values["fde_m"], [0, 0, 1, 2, 3])
    assert summary == summarised(apart)


def test_the_pooled_mean_is_over_windows():
    pooled = score.pool([errors_of([1.0] * 9, [0] * 9), errors_of([11.0], [0])])
    assert summarised(pooled)["fde_m"] == pytest.approx(2.0)
