"""Windows: cut by hand-made tracks, equal to the published counts on the real recordings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfsd.drive import table
from fedfsd.drive.table import Table
from fedfsd.task.forecasting import window

REAL = Path(__file__).parents[4] / "shared" / "data"
SPEC = window.WindowSpec()
SIZE = SPEC.history + SPEC.future  # 11 points: 5 s


@pytest.mark.skipif(not REAL.exists(), reason="the real recordings are not on this machine")
def test_reproduces_the_published_counts_of_the_real_recordings():
    tables = table.read(REAL)
    found = {}
    for region in ("CN", "EU", "SG", "US"):
        mine = table.in_region(tables, region)
        test = window.cut(mine, SPEC, test=True)
        last, velocity = test.points[:, 4], test.points[:, 4] - test.points[:, 3]
        fde = np.linalg.norm(last + 6 * velocity - test.points[:, -1], axis=1).mean()
        found[region] = (len(test), round(fde, 2), len(window.cut(mine, SPEC, test=False).vehicles))
    assert found == {
        "CN": (3601, 5.39, 1337),
        "EU": (514, 6.67, 233),
        "SG": (315, 3.84, 147),
        "US": (2382, 3.51, 1414),
    }


def drives(*tracks: dict, order: list[int] | None = None) -> Table:
    """A table of ``track``s, its rows in the given order."""
    columns = {
        name: np.concatenate([np.broadcast_to(track[name], len(track["t"])) for track in tracks])
        for name in tracks[0]
    }
    count = len(columns["t"])
    for name in table.TEXT_COLUMNS:
        columns.setdefault(name, np.full(count, "k"))
    for name in table.NUMBER_COLUMNS:
        columns.setdefault(name, np.zeros(count))
    rows = np.arange(count) if order is None else np.array(order)
    return table.of_rows(
        {name: column[rows] for name, column in columns.items()},
        licence="CC0-1.0",
        identity="physical",
        origin="synthetic",
    )


def track(t, *, vehicle: str = "v", recording: str = "r", speed: float = 10.0, **columns) -> dict:
    """Straight on along x at ``speed`` m/s at times ``t``, unless ``x`` or ``y`` say otherwise."""
    t = np.asarray(t, float)
    start = t[:1] if len(t) else 0.0
    return {
        "vehicle": vehicle,
        "recording": recording,
        "test": False,
        "t": t,
        "x": speed * (t - start),
        "y": 0.0,
    } | columns


def seconds(length: float, *, hz: float = 2.0, start: float = 0.0) -> np.ndarray:
    return start + np.arange(round(length * hz) + 1) / hz


def count(*tracks: dict) -> int:
    return len(window.cut([drives(*tracks)], SPEC, test=False))


@pytest.mark.parametrize(("length", "expected"), [(4.5, 0), (5.0, 1), (5.5, 2), (10.0, 11), (0.0, 0)])
def test_one_window_each_half_second(length, expected):
    found = window.cut([drives(track(seconds(length)))], SPEC, test=False)
    assert found.points.shape == (expected, SIZE, 2)
    for index, points in enumerate(found.points):
        np.testing.assert_allclose(points[:, 0], 5.0 * (index + np.arange(SIZE)), atol=1e-4)


def test_lengths_follow_the_specification():
    spec = window.WindowSpec(history_seconds=1.0, future_seconds=2.0, period_seconds=0.25)
    assert (spec.history, spec.future) == (5, 8)
    found = window.cut([drives(track(seconds(3.0, hz=4)))], spec, test=False)
    assert found.points.shape == (1, 13, 2)
    history, future = window.agent_frame(found.points, spec.history)
    assert (history.shape, future.shape) == ((1, 5, 2), (1, 8, 2))


@pytest.mark.parametrize(
    ("gap", "expected"),
    [
        (0.5, 3),
        (0.75, 3),  # 6.25 s in one piece
        (0.8125, 0),  # two pieces of 2.75 s
        (100.0, 0),
    ],
)
def test_a_gap_splits_only_above_three_quarters_of_a_second(gap, expected):
    first = seconds(2.75, hz=4)
    assert count(track(np.concatenate([first, first[-1] + gap + first]))) == expected


def test_windows_on_both_sides_of_a_gap():
    times = np.concatenate([seconds(5.0), seconds(6.0, start=7.0)])
    found = window.cut([drives(track(times))], SPEC, test=False)
    np.testing.assert_allclose(found.points[:, 0, 0], [0.0, 70.0, 75.0, 80.0], atol=1e-4)


@pytest.mark.parametrize("hz", [2, 5, 10, 30])
def test_the_rate_of_the_recording_does_not_matter(hz):
    # On multiples of 0.5 s a sample of the track is met exactly, whatever lies between.
    times = seconds(8.0, hz=hz)
    if hz == 5:
        times = np.union1d(times, seconds(8.0))
    found = window.cut([drives(track(times, x=times**2, y=np.sin(times)))], SPEC, test=False)
    plain = window.cut(
        [drives(track(seconds(8.0), x=seconds(8.0) ** 2, y=np.sin(seconds(8.0))))], SPEC, test=False
    )
    assert len(found) == len(plain) == 7
    np.testing.assert_allclose(found.points, plain.points, atol=1e-4)


def test_between_samples_the_way_is_straight():
    times = np.array([0.0, 0.7, 1.3, 2.0, 2.75, 3.4, 4.0, 4.7, 5.0])
    found = window.cut([drives(track(times, x=10 * times, y=times**2))], SPEC, test=False)
    expected = np.interp(0.5 * np.arange(SIZE), times, times**2)
    np.testing.assert_allclose(found.points[0, :, 1], expected, atol=1e-5)


def test_what_hardly_moves_is_dropped():
    times = seconds(5.0)
    assert count(track(times, x=np.linspace(0, 3.0, 11))) == 1
    assert count(track(times, x=np.linspace(0, 2.99, 11))) == 0
    # End to end counts, not the way driven: a circle comes back to where it began.
    angle = np.linspace(0, 2 * np.pi, 11)
    assert count(track(times, x=20 * np.cos(angle), y=20 * np.sin(angle))) == 0


def test_a_jump_drops_the_windows_that_hold_it_and_no_other():
    times = seconds(15.0)  # 31 points, 21 windows
    places = 5.0 * np.arange(31)
    assert count(track(times, x=places)) == 21
    jump = places + np.where(np.arange(31) >= 15, 20.0, 0.0)  # the step to point 15 is 25 m
    assert count(track(times, x=jump)) == 21
    jump[15:] += 0.5
    found = window.cut([drives(track(times, x=jump))], SPEC, test=False)
    assert found.points[:, 0, 0].tolist() == (5.0 * np.array([0, 1, 2, 3, 4])).tolist() + jump[15:21].tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["x", "y"])
def test_a_position_that_is_no_number_touches_its_windows_only(column, value):
    times = seconds(15.0)
    broken = track(times, y=np.zeros(31))
    broken[column] = broken[column].copy()
    broken[column][15] = value
    found = window.cut([drives(broken)], SPEC, test=False)
    starts = [*range(5), *range(16, 21)]  # windows start .. start + 10 without point 15
    np.testing.assert_allclose(found.points[:, 0, 0], 5.0 * np.array(starts), atol=1e-4)
    assert np.isfinite(found.points).all()


def test_two_infinite_positions_are_dropped_without_a_warning():
    places = 5.0 * np.arange(31)
    places[[15, 16]] = np.inf
    assert count(track(seconds(15.0), x=places)) == 9


def test_a_time_that_is_no_number_loses_its_row():
    times = seconds(6.0, hz=4)
    times[5] = np.nan
    found = window.cut([drives(track(times, x=10 * seconds(6.0, hz=4)))], SPEC, test=False)
    assert len(found) == 3
    np.testing.assert_allclose(found.points[0, :, 0], 5.0 * np.arange(SIZE), atol=1e-4)


def test_a_vehicle_without_a_window_stays_in_the_roster():
    nan = np.full(11, np.nan)
    found = window.cut(
        [
            drives(
                track(seconds(5.0), vehicle="d"),
                track([3.0], vehicle="b"),  # one point
                track(seconds(5.0), vehicle="c", x=nan),
                track(nan, vehicle="a", x=np.zeros(11)),  # not even a time
                track(seconds(5.0), vehicle="e", speed=0.1),
            )
        ],
        SPEC,
        test=False,
    )
    assert found.vehicles == ("a", "b", "c", "d", "e")
    assert found.owner.tolist() == [3]


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 24), st.sampled_from(["x", "y", "t"]), st.sampled_from([np.nan, 1e9, -1e9])),
        max_size=40,
    )
)
def test_nothing_one_vehicle_holds_changes_another(cells):
    other = track(seconds(7.0), vehicle="b")
    broken = track(seconds(12.0), vehicle="a", y=np.zeros(25))
    for name in ("x", "t"):
        broken[name] = broken[name].copy()
    for row, column, value in cells:
        broken[column][row] = value
    found = window.cut([drives(broken, other)], SPEC, test=False)
    alone = window.cut([drives(other)], SPEC, test=False)
    assert found.vehicles == ("a", "b")
    np.testing.assert_array_equal(found.points[found.owner == 1], alone.points)
    assert np.isfinite(found.points).all()


@pytest.mark.parametrize("start", [0.0, 0.1, 1.7, 7.3])
@pytest.mark.parametrize("hz", [2, 10])
def test_a_run_of_exact_length_gives_its_window_though_float32_falls_short(start, hz):
    assert count(track(seconds(5.0, hz=hz, start=start))) == 1


def test_late_in_a_long_recording_a_run_of_exact_length_gives_its_window():
    starts = np.arange(0.1, 600, 0.7)
    assert [start for start in starts if count(track(seconds(5.0, start=start))) != 1] == []


@settings(deadline=None)
@given(st.data())
def test_the_order_of_rows_does_not_matter(data):
    tracks = [
        track(seconds(6.0), vehicle="b", y=np.sin(seconds(6.0))),
        track(seconds(5.5, hz=4), vehicle="a"),
        track(seconds(5.0, start=2.0), vehicle="b", recording="other", speed=4.0),
        track([1.0, np.nan, 2.0], vehicle="c"),
    ]
    rows = sum(len(one["t"]) for one in tracks)
    order = data.draw(st.permutations(range(rows)))
    found, plain = (window.cut([drives(*tracks, order=way)], SPEC, test=False) for way in (order, None))
    assert found.vehicles == plain.vehicles == ("a", "b", "c")
    np.testing.assert_array_equal(found.owner, plain.owner)
    np.testing.assert_array_equal(found.points, plain.points)
    assert found.owner.tolist() == [0, 0, 1, 1, 1, 1]


def test_a_vehicle_seen_in_two_recordings_owns_the_windows_of_both_but_none_across():
    morning = track(seconds(5.0), recording="morning")
    evening = track(seconds(5.5, start=5.5), recording="evening", speed=5.0)  # as if it went straight on
    found = window.cut([drives(morning, evening)], SPEC, test=False)
    assert found.vehicles == ("v",)
    steps = np.diff(found.points[..., 0], axis=1)
    np.testing.assert_allclose(np.sort(steps[:, 0]), [2.5, 2.5, 5.0], atol=1e-4)
    np.testing.assert_allclose(steps, steps[:, :1].repeat(SIZE - 1, axis=1), atol=1e-4)
    # In two tables it is the same vehicle too.
    apart = window.cut([drives(morning), drives(evening)], SPEC, test=False)
    assert apart.vehicles == ("v",)
    assert apart.owner.tolist() == [0, 0, 0]


def test_two_recordings_at_the_same_time_do_not_mix():
    one = track(seconds(5.0), recording="one")
    two = track(seconds(5.0), recording="two", x=1000 + 3.0 * seconds(5.0))
    found = window.cut([drives(one, two)], SPEC, test=False)
    assert sorted(found.points[:, 0, 0].tolist()) == [0.0, 1000.0]


def test_test_vehicles_and_training_vehicles_stay_apart():
    both = drives(track(seconds(5.0), vehicle="a"), track(seconds(6.0), vehicle="b", test=True))
    training, test = (window.cut([both], SPEC, test=side) for side in (False, True))
    assert (training.vehicles, len(training)) == (("a",), 1)
    assert (test.vehicles, len(test)) == (("b",), 3)


def test_no_rows_give_no_windows():
    for tables in ([], [drives(track([]))]):
        found = window.cut(tables, SPEC, test=False)
        assert found.vehicles == ()
        assert found.points.shape == (0, SIZE, 2)
        assert [part.shape for part in window.agent_frame(found.points, 5)] == [(0, 5, 2), (0, 6, 2)]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-3.1, 3.1), st.floats(-1e5, 1e5), st.floats(-1e5, 1e5))
def test_the_agent_frame_forgets_place_and_direction(seed, angle, x, y):
    points = (
        np.random.default_rng(seed).normal(size=(5, SIZE, 2)).cumsum(axis=1) + 4 * np.arange(SIZE)[:, None]
    )
    history, future = window.agent_frame(points, SPEC.history)
    np.testing.assert_allclose(history[:, -1], 0, atol=1e-6)
    assert (history[:, 0, 0] < 0).all()
    np.testing.assert_allclose(history[:, 0, 1], 0, atol=1e-5)
    local = np.concatenate([history, future], axis=1)
    lengths = np.linalg.norm(np.diff(points, axis=1), axis=2)
    np.testing.assert_allclose(np.linalg.norm(np.diff(local, axis=1), axis=2), lengths, atol=1e-4)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    moved = np.concatenate(window.agent_frame(points @ turn + [x, y], SPEC.history), axis=1)
    np.testing.assert_allclose(moved, local, atol=1e-3)


def test_the_agent_frame_by_hand():
    # North at 2 m a step, then a left turn: to the west, which is left of +x in the frame.
    track = np.array([[7.0, 0], [7, 2], [7, 4], [7, 6], [7, 8], [5, 8]])
    history, future = window.agent_frame(track[None], 5)
    np.testing.assert_allclose(history[0], [[-8, 0], [-6, 0], [-4, 0], [-2, 0], [0, 0]], atol=1e-6)
    np.testing.assert_allclose(future[0], [[0, 2]], atol=1e-6)
    # A history that ends where it began has no direction; the future keeps its length all the same.
    loop = np.array([[0.0, 0], [1, 0], [1, 1], [0, 1], [0, 0], [0, 3]])
    assert np.linalg.norm(window.agent_frame(loop[None], 5)[1]) == pytest.approx(3)
