"""One car that plans by a forecaster, in highway-env's traffic, which reacts to it.

Twice a second the car forecasts everybody near it over the next 3 s and takes, of some speeds along its own
route, the one nearest to the speed it would like among those that come near nobody; where there is none, it
brakes as hard as it can. Steering along the route is highway-env's. Nothing here was tuned on the results.

Shapes: V vehicles, H history points, F future points, all at 2 Hz; positions in m.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

PERIOD, HISTORY, FUTURE = 0.5, 5, 6
SCENES = {
    "ramp": ("merge-v0", 25.0),
    "roundabout": ("roundabout-v0", 10.0),
    "intersection": ("intersection-v0", 9.0),
}
"""By name: highway-env's environment, and the speed that the car would like, m/s."""
COMFORT = (-3.0, 2.0)  # m/s^2: what it plans with
EMERGENCY = -8.0
HARD_BRAKING = -3.5  # m/s^2, on average over half a second: ends comfort
_NEAR = (7.0, 2.6)  # m, ahead or behind and to the side: two cars so near are in conflict
_SIGHT = 80.0  # m
_LONGEST = 20.0  # s
_ACTION = {"type": "DiscreteMetaAction", "lateral": False, "target_speeds": [0, 15, 30]}
_FINE = 4  # checks of a plan in each half second
_GAIN = 1 - np.exp(-PERIOD / 0.6)  # of highway-env's speed control over half a second

Forecaster = Callable[[np.ndarray], np.ndarray]
"""Histories (V, H, 2) to futures (V, F, 2)."""


@dataclass(frozen=True)
class Drive:
    """What came of one episode."""

    collided: bool
    hard: bool
    """Whether it braked harder than is comfortable at least once."""
    jerk: float
    """Mean size of the change of acceleration, m/s^3."""
    speed: float
    """Mean, m/s."""


def drive(scene: str, seed: int, forecaster: Forecaster) -> Drive:
    """One episode; the same seed begins alike for every forecaster."""
    import gymnasium
    import highway_env  # noqa: F401 - it registers the environments

    gymnasium.logger.min_level = gymnasium.logger.ERROR  # newer versions of a scene are no news
    name, wanted = SCENES[scene]
    changes = {"policy_frequency": 2, "simulation_frequency": 10, "duration": _LONGEST, "action": _ACTION}
    world: Any = gymnasium.make(name, config=changes).unwrapped
    world.reset(seed=seed)
    seen: dict[int, list[np.ndarray]] = defaultdict(list)
    speeds, over = [float(world.vehicle.speed)], False
    while not over and len(speeds) * PERIOD < _LONGEST:
        others = [one for one in world.road.vehicles if one is not world.vehicle]
        for one in others:
            seen[id(one)].append(np.array(one.position))
        near = [one for one in others if np.linalg.norm(one.position - world.vehicle.position) < _SIGHT]
        histories = np.array([_history(seen[id(one)], one) for one in near]).reshape(-1, HISTORY, 2)
        future = forecaster(histories) if near else np.zeros((0, FUTURE, 2))
        change = _chosen(world.vehicle, wanted, np.concatenate([histories[:, -1:], future], axis=1))
        world.vehicle.target_speed = max(world.vehicle.speed + change * PERIOD / _GAIN, 0.0)
        _, _, ended, cut, _ = world.step(1)  # idle: steer along the route at the target speed
        speeds.append(float(world.vehicle.speed))
        over = bool(ended or cut)
    world.close()
    change = np.diff(speeds) / PERIOD
    jerk = float(np.abs(np.diff(change) / PERIOD).mean()) if len(change) > 1 else 0.0
    return Drive(
        bool(world.vehicle.crashed), bool((change < HARD_BRAKING).any()), jerk, float(np.mean(speeds))
    )


def constant_velocity(histories: np.ndarray) -> np.ndarray:
    """The last step goes on."""
    step = histories[:, -1] - histories[:, -2]
    return histories[:, -1:] + step[:, None] * np.arange(1, FUTURE + 1)[:, None]


def of_model(model: Any) -> Forecaster:
    """The likeliest path of a forecasting model, which sees each vehicle in its own axes."""
    import torch

    def forecast(histories: np.ndarray) -> np.ndarray:
        local = histories - histories[:, -1:]
        angle = np.arctan2(0.0 - local[:, 0, 1], 0.0 - local[:, 0, 0])
        turn = np.stack([np.cos(angle), -np.sin(angle), np.sin(angle), np.cos(angle)], 1).reshape(-1, 2, 2)
        with torch.inference_mode():
            paths, scores = model(torch.from_numpy((local @ turn).astype(np.float32)))
        path = paths[torch.arange(len(paths)), scores.argmax(dim=1)].numpy().astype(np.float64)
        return path @ turn.transpose(0, 2, 1) + histories[:, -1:]

    return forecast


def _history(seen: list[np.ndarray], vehicle: Any) -> np.ndarray:
    """The last points (H, 2); before it was first seen it came at its speed of now."""
    points = seen[-HISTORY:]
    velocity = np.array(vehicle.velocity)
    before = [points[0] - velocity * PERIOD * back for back in range(HISTORY - len(points), 0, -1)]
    return np.array([*before, *points])


def _chosen(car: Any, wanted: float, others: np.ndarray) -> float:
    """The acceleration to take, m/s^2; ``others`` (V, 1 + F, 2) begin at present."""
    times = np.arange(1, FUTURE * _FINE + 1) * PERIOD / _FINE
    grid = np.arange(FUTURE + 1) * PERIOD
    fine = np.array([[np.interp(times, grid, one[:, axis]) for axis in (0, 1)] for one in others])
    fine = fine.reshape(-1, 2, len(times)).transpose(0, 2, 1)  # (V, T, 2)
    ahead = _ahead(car, PERIOD * FUTURE * max(car.speed, wanted))
    best, least = EMERGENCY, np.inf
    for target in np.unique(np.r_[np.linspace(0, wanted, 11), car.speed]):
        change = np.clip(target - car.speed, COMFORT[0] * PERIOD, COMFORT[1] * PERIOD) / PERIOD
        cost = abs(wanted - target) + 0.2 * abs(target - car.speed)
        if cost < least and not _conflict(_way(car.speed, target, times), ahead, fine):
            best, least = float(change), cost
    return best


def _way(speed: float, target: float, times: np.ndarray) -> np.ndarray:
    """How far the car has come at each time, (T,) m, if it changes to ``target`` speed with comfort."""
    rate = COMFORT[0] if target < speed else COMFORT[1]
    ramp = np.minimum(times, abs(target - speed) / abs(rate))
    return speed * ramp + rate * ramp**2 / 2 + target * (times - ramp)


def _conflict(way: np.ndarray, ahead: np.ndarray, others: np.ndarray) -> bool:
    """Whether the car comes near anybody: ``way`` (T,) along ``ahead`` (S, 4), ``others`` (V, T, 2)."""
    x, y, cos, sin = ahead[np.minimum(np.rint(way).astype(int), len(ahead) - 1)].T
    apart = others - np.stack([x, y], axis=1)
    along = apart[..., 0] * cos + apart[..., 1] * sin
    aside = apart[..., 1] * cos - apart[..., 0] * sin
    return bool(((np.abs(along) < _NEAR[0]) & (np.abs(aside) < _NEAR[1])).any())


def _ahead(car: Any, length: float) -> np.ndarray:
    """Position and direction (x, y, cos, sin) at each metre of the car's way, (S, 4)."""
    lanes = _lanes(car)
    start = car.lane.local_coordinates(car.position)[0]
    found = [_place(lanes, start + metre) for metre in range(int(length) + 2)]
    return np.array([(*place, np.cos(heading), np.sin(heading)) for place, heading in found])


def _lanes(car: Any) -> list[Any]:
    """The car's way: the lane it is in, then those of its route; of fewer lanes the last."""
    graph, number = car.road.network.graph, car.lane_index[2]
    route = [one for one in car.route or [] if one[:2] != car.lane_index[:2]]
    known = [graph[first][second] for first, second, _ in route]
    return [car.lane, *(lanes[min(number, len(lanes) - 1)] for lanes in known)]


def _place(lanes: list[Any], along: float) -> tuple[np.ndarray, float]:
    """Position and heading so far along the lanes; the last one goes on."""
    for lane in lanes[:-1]:
        if along <= lane.length:
            break
        along -= lane.length
    else:
        lane = lanes[-1]
    return np.asarray(lane.position(along, 0)), float(lane.heading_at(along))
