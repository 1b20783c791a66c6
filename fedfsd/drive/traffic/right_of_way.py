"""Who waits at a stop line: lights, rank, order of arrival, and the gap a driver accepts.

highway-env's own RegulatedRoad copies the whole road for each pair of vehicles it compares, and
stops vehicles in mid-junction; here vehicles wait at the line, and once past it go on.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
from highway_env.road.lane import AbstractLane
from highway_env.road.road import LaneIndex

from fedfsd.drive.traffic.driver import Driver, Street
from fedfsd.drive.traffic.scene import Scene

TOUCH_M = 2.6  # centre lines closer than this cannot be driven at once
Approach = tuple[Driver, float]  # a vehicle and its distance to the start of a lane, m; negative on it


class RightOfWay:
    """The rules of one scene; `update` says of each vehicle whether it is held at its line."""

    def __init__(self, street: Street) -> None:
        self.street = street
        self.scene: Scene = street.scene
        self.conflicts = _conflicts(self.scene)

    def update(self) -> None:
        """Hold those who must wait now, free the others."""
        coming: dict[LaneIndex, list[Approach]] = defaultdict(list)
        lines: list[tuple[Driver, LaneIndex, float]] = []
        for vehicle in self.street.vehicles:
            vehicle.held = False
            for at, offset, _ in self.street.ahead(vehicle):
                if at in self.conflicts:
                    coming[at].append((vehicle, offset))
                if offset > 0 and at[:2] in self.scene.ranks:
                    lines.append((vehicle, at, offset))
                    break
        for vehicle, at, offset in lines:
            vehicle.held = self._red(vehicle, at, offset) or self._blocked(vehicle, at, offset, coming)

    def _red(self, vehicle: Driver, at: LaneIndex, offset: float) -> bool:
        """Whether the lights stop this vehicle, and it still can."""
        signal = self.scene.signal
        if signal is None or not signal.stops(self.scene.arms[at[:2]], self.street.time):
            return False
        room = max(0.1, offset - vehicle.LENGTH / 2)
        return bool(vehicle.speed**2 / (2 * room) < 3.5)

    def _blocked(
        self, vehicle: Driver, at: LaneIndex, offset: float, coming: dict[LaneIndex, list[Approach]]
    ) -> bool:
        """Whether somebody with more right is on, or about to reach, a place this one must cross."""
        room = offset - vehicle.LENGTH / 2
        if room < 0.0 or room > max(12.0, vehicle.speed**2 / 3.0):
            return False
        mine = self._right(vehicle, at, offset)
        for other_lane, here, there in self.conflicts[at]:
            # Accelerating gently from now, until the rear has left the crossing place.
            clear = _travel_time(offset + here + vehicle.LENGTH / 2 + 2.0, vehicle.speed)
            for other, start in coming[other_lane]:
                if other is vehicle:
                    continue
                distance = start + there
                if distance < -(other.LENGTH / 2 + 2.0):
                    continue  # gone by
                inside = start <= 0.0
                waits = (
                    not inside
                    and other_lane[:2] in self.scene.ranks
                    and ((other.held and other.speed < 1.0) or self._red(other, other_lane, start))
                )
                if waits or (not inside and self._right(other, other_lane, start) < mine):
                    continue
                arrival = max(0.0, distance - other.LENGTH / 2) / max(other.speed, 3.0)
                if arrival < clear + vehicle.accepted_gap_s - 1.0:
                    return True
        return False

    def _right(self, vehicle: Driver, at: LaneIndex, offset: float) -> tuple[int, float, int]:
        """Larger goes first: rank of the way, then who is nearer to its line."""
        rank = self.scene.ranks.get(at[:2], 9)  # on the ring nobody waits
        return rank, -max(0.0, offset), -vehicle.serial


def _conflicts(scene: Scene) -> dict[LaneIndex, list[tuple[LaneIndex, float, float]]]:
    """Per lane behind a line: the lanes that touch it, and the first place on each, m."""
    lanes = scene.network.lanes_dict()
    inner = {at for at in lanes if at[:2] in scene.ranks}
    touching: dict[LaneIndex, list[tuple[LaneIndex, float, float]]] = {at: [] for at in inner}
    # The ring has no line of its own but is crossed by those who have one.
    rivals = [at for at in lanes if at in inner or any(at[1] == o[1] for o in inner)]
    for at in sorted(inner):
        for other in rivals:
            if other[0] == at[0]:
                continue
            mine, theirs = _points(lanes[at]), _points(lanes[other])
            near = np.argwhere(np.linalg.norm(mine[:, None] - theirs[None], axis=2) < TOUCH_M)
            if len(near):
                touching[at].append((other, float(near[:, 0].min()), float(near[:, 1].min())))
                touching.setdefault(other, [])
    return touching


def _points(lane: AbstractLane) -> np.ndarray:
    """The centre line once a metre, (points, 2)."""
    return np.array([lane.position(s, 0) for s in np.arange(0.0, lane.length + 0.5, 1.0)])


def _travel_time(distance: float, speed: float) -> float:
    """Seconds to cover ``distance`` from ``speed``, gaining 1.5 m/s2."""
    return (math.sqrt(speed**2 + 2 * 1.5 * max(0.0, distance)) - speed) / 1.5
