"""The car that plans by a forecast: its geometry by hand, and one short drive."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.closed_loop import __main__ as study
from experiments.closed_loop import driving
from experiments.closed_loop.driving import FUTURE, HISTORY, PERIOD, Drive


class Straight(torch.nn.Module):
    """In a vehicle's own axes: on as in the last step; the second path is unlikely."""

    def forward(self, history):
        step = history[:, -1:, :] - history[:, -2:-1, :]
        path = history[:, -1:] + step * torch.arange(1, FUTURE + 1)[None, :, None]
        return torch.stack([path, path + 50], dim=1), torch.tensor([[1.0, -1.0]]).expand(len(history), 2)


def test_a_model_sees_each_vehicle_in_its_own_axes_and_answers_in_the_worlds():
    random = np.random.default_rng(1)
    histories = random.normal(size=(7, 1, 2)) * 30 + np.arange(HISTORY)[:, None] * random.normal(
        size=(7, 1, 2)
    )
    np.testing.assert_allclose(
        driving.of_model(Straight())(histories), driving.constant_velocity(histories), atol=1e-3
    )


@pytest.mark.parametrize(("aside", "near"), [(0.0, True), (2.5, True), (2.7, False)])
def test_a_plan_is_in_conflict_where_both_are_near_at_the_same_time(aside, near):
    times = np.arange(1, 4) * PERIOD
    ahead = np.array([(float(metre), 0.0, 1.0, 0.0) for metre in range(60)])
    way = driving._way(10.0, 10.0, times)
    np.testing.assert_allclose(way, [5, 10, 15])
    other = np.array([[[40.0, aside], [30.0, aside], [15.0, aside]]])
    assert driving._conflict(way, ahead, other) is near
    assert not driving._conflict(way, ahead, other[:, ::-1] + 30)
    assert not driving._conflict(way, ahead, np.zeros((0, 3, 2)))


def test_speeds_change_with_comfort_and_the_way_is_their_integral():
    fine = np.linspace(1e-4, 3, 30_000)
    for speed, target in ((10.0, 0.0), (0.0, 9.0), (8.0, 8.0)):
        way = driving._way(speed, target, fine)
        gone = np.gradient(way, fine)
        assert gone[0] == pytest.approx(speed, abs=0.01)
        assert np.diff(gone).min() / np.diff(fine)[0] >= driving.COMFORT[0] - 0.01
        assert np.diff(gone).max() / np.diff(fine)[0] <= driving.COMFORT[1] + 0.01


def test_a_drive_begins_alike_whoever_forecasts_and_the_table_has_every_row(monkeypatch):
    pytest.importorskip("highway_env")
    monkeypatch.setattr(driving, "_LONGEST", 4.0)
    one = driving.drive("intersection", 3, driving.constant_velocity)
    assert one == driving.drive("intersection", 3, driving.constant_velocity)
    assert 0 < one.speed < 15
    blind = driving.drive("intersection", 3, lambda histories: np.full((len(histories), FUTURE, 2), 1e6))
    assert blind != one
    drives = [Drive(True, True, 1.0, 2.0), Drive(False, False, 2.0, 3.0)]
    found = {name: dict.fromkeys(driving.SCENES, drives) for name in ("a", "b")}
    lines = study.table(found).splitlines()
    assert len(lines) == 2 + 2 * len(driving.SCENES)
    assert "50% (9 to 91)" in lines[2]
    assert "1.50 ± 0.98" in lines[2]
