"""Who drives: highway-env's IDM and MOBIL with one temper per driver, looking along their own route.

Kept from the library: kinematics, steering, the IDM acceleration and the MOBIL decision. Added:
sizes that differ, a leader searched along the route instead of on one lane, slowing down ahead of
bends, a desired speed that wanders, and a stop line that is respected (`right_of_way`).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from highway_env.road.road import LaneIndex, Road
from highway_env.vehicle.behavior import IDMVehicle
from highway_env.vehicle.kinematics import Vehicle
from highway_env.vehicle.objects import Obstacle, RoadObject

from fedfsd.drive.traffic.profile import Profile, Spread
from fedfsd.drive.traffic.scene import Edge, Scene

STEP_S = 0.125  # a power of two: every kept point falls on a step
LOOK_AHEAD_M = 90.0
WHEEL_STEP = 1.2 * STEP_S  # rad of steering angle within one step


class Street(Road):
    """A road that finds neighbours along routes, from an index made once per step."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        super().__init__(network=scene.network, np_random=rng)
        self.scene = scene
        self.time = 0.0
        self.objects = [
            Obstacle(self, scene.network.get_lane(at).position(s, 0)) for at, s in scene.obstacles
        ]
        for thing, (at, _) in zip(self.objects, scene.obstacles, strict=True):
            thing.lane_index, thing.lane = at, scene.network.get_lane(at)
        lanes = scene.network.lanes_dict()
        self._beside = {
            at: [o for o in lanes if o[:2] != at[:2] and (o[0] == at[0] or o[1] == at[1])] for at in lanes
        }
        self._before = {at: [o for o in lanes if self.successor(o, at[:2]) == at] for at in lanes}
        self._on: dict[LaneIndex, list[tuple[float, RoadObject]]] = {}

    def successor(self, at: LaneIndex, edge: Edge) -> LaneIndex | None:
        """The lane of ``edge`` on which a vehicle goes on from the end of ``at``."""
        if at[1] != edge[0]:
            return None
        end = self.network.get_lane(at)
        lane, _ = self.network.next_lane_given_next_road(*at, edge[1], None, end.position(end.length, 0))
        return (*edge, lane)

    def index(self) -> None:
        """Note who is on which lane, and who reaches into another one."""
        self._on = {}
        for thing in (*self.vehicles, *self.objects):
            lanes = [thing.lane_index]
            if thing.lane_index != (target := getattr(thing, "target_lane_index", None)) and target:
                lanes.append(target)
            for at in lanes:
                s, _ = self.network.get_lane(at).local_coordinates(thing.position)
                self._on.setdefault(at, []).append((s, thing))
            for at in self._beside[thing.lane_index]:
                lane = self.network.get_lane(at)
                s, lateral = lane.local_coordinates(thing.position)
                if abs(lateral) < 2.4 and 0.0 <= s <= lane.length:
                    self._on.setdefault(at, []).append((s, thing))

    def ahead(
        self, vehicle: Driver, start: LaneIndex | None = None
    ) -> Iterator[tuple[LaneIndex, float, float]]:
        """(lane, distance from the vehicle to its start, its length) along the vehicle's route."""
        at = start or vehicle.lane_index
        lane = self.network.get_lane(at)
        offset = -lane.local_coordinates(vehicle.position)[0]
        way = [step[:2] for step in vehicle.route or ()]
        place = way.index(at[:2]) if at[:2] in way else -1
        while True:
            yield at, offset, lane.length
            offset += lane.length
            if offset > LOOK_AHEAD_M:
                return
            place += 1
            if way:
                if place >= len(way):
                    return
                step = vehicle.route[place]
                following = step if step[2] is not None else self.successor(at, step[:2])
            else:
                follow = self.network.graph.get(at[1], {})
                following = self.successor(at, (at[1], next(iter(follow)))) if follow else None
            if following is None:
                return
            at = following
            lane = self.network.get_lane(at)

    def neighbour_vehicles(
        self, vehicle: Driver, lane_index: LaneIndex | None = None
    ) -> tuple[RoadObject | None, RoadObject | None]:
        """The next one ahead along the route and the next one behind, seen from ``lane_index``."""
        at = lane_index or vehicle.lane_index
        front, rear = None, None
        for lane, offset, _ in self.ahead(vehicle, at):
            found = [
                (offset + s, i)
                for i, (s, o) in enumerate(self._on.get(lane, ()))
                if offset + s > 0 and o is not vehicle
            ]
            if found:
                front = self._on[lane][min(found)[1]][1]
                break
        own = self.network.get_lane(at).local_coordinates(vehicle.position)[0]
        behind = [(s, i) for i, (s, o) in enumerate(self._on.get(at, ())) if s <= own and o is not vehicle]
        if behind:
            rear = self._on[at][max(behind)[1]][1]
        else:
            earlier = [
                (s - self.network.get_lane(o).length, i, o)
                for o in self._before[at]
                for i, (s, _) in enumerate(self._on.get(o, ()))
            ]
            if earlier:
                _, i, lane = max(earlier)
                rear = self._on[lane][i][1]
        return front, rear if isinstance(rear, Vehicle) and rear is not vehicle else None


class Driver(IDMVehicle):
    """One vehicle with its driver. ``temper`` scales the limits it keeps to."""

    temper = 1.0
    wander = 0.0
    wheel = 0.0  # rad, the steering angle now
    lane_index: LaneIndex
    MAX_STEERING_ANGLE = 0.9
    held = False  # the right of way says: stop at the line
    accepted_gap_s = 2.5
    type = "car"

    def respond(self, profile: Profile, politeness: float) -> None:
        """Draw this driver's habits and this vehicle's size."""
        rng = self.road.np_random
        draw = float(rng.random())
        if draw < profile.truck_share:
            long = draw < 0.4 * profile.truck_share
            self.type = "bus" if rng.random() < 0.3 else "truck"
            self.LENGTH = float(rng.uniform(11.0, 16.0) if long else rng.uniform(6.5, 10.0))
            self.WIDTH = 2.5
        else:
            self.LENGTH, self.WIDTH = float(rng.uniform(3.8, 5.2)), float(rng.uniform(1.7, 2.0))
        slow = 1.0 if self.type == "car" else 0.7
        self.temper = _draw(rng, profile.speed_factor) * (1.0 if self.type == "car" else 0.9)
        self.TIME_WANTED = max(0.6, _draw(rng, profile.time_gap_s))
        self.jam_gap_m = max(1.0, _draw(rng, profile.jam_gap_m))
        self.COMFORT_ACC_MAX = slow * max(0.6, _draw(rng, profile.acceleration_m_s2))
        self.COMFORT_ACC_MIN = -max(1.0, _draw(rng, profile.braking_m_s2))
        self.accepted_gap_s = max(1.0, _draw(rng, profile.accepted_gap_s))
        self.POLITENESS = politeness
        self.LANE_CHANGE_MIN_ACC_GAIN = profile.lane_change_gain_m_s2 / slow
        self.LANE_CHANGE_DELAY = float(rng.uniform(1.0, 4.0))
        # Slower than the library's, whose lane change is over within two seconds.
        self.KP_LATERAL = float(rng.uniform(0.5, 1.1))
        self.KP_HEADING = float(rng.uniform(2.5, 4.0))
        self.randomize_behavior()

    def act(self, action: dict[str, float] | None = None) -> None:
        """Decide as the library does, under this driver's own limits."""
        rng = self.road.np_random
        self.wander += -0.02 * self.wander + 0.015 * float(rng.standard_normal())
        # Easing off: IDM brakes with the fourth power of being too fast.
        self.target_speed = max(self._desired(), 0.85 * self.speed, 0.5)
        super().act(action)
        # The library turns the wheel at once; arms take time.
        turned = np.clip(self.action["steering"], self.wheel - WHEEL_STEP, self.wheel + WHEEL_STEP)
        self.wheel = self.action["steering"] = float(turned)
        wish = self.action["acceleration"]
        if self.held:
            wish = min(wish, self._brake_for_line())
        # Nobody reverses; harder than 7 m/s2 nobody brakes.
        self.action["acceleration"] = max(wish, -7.0, -self.speed / STEP_S)

    def on_state_update(self) -> None:
        """The lane among those of the present and the next edge, not among all of the network."""
        target = getattr(self, "target_lane_index", None)
        if target is None:
            super().on_state_update()
            return
        graph = self.road.network.graph
        near = []
        for edge in dict.fromkeys((self.lane_index[:2], target[:2])):
            near += [(*edge, i) for i in range(len(graph[edge[0]][edge[1]]))]
        far = [
            self.road.network.get_lane(at).distance_with_heading(self.position, self.heading) for at in near
        ]
        self.lane_index = near[int(np.argmin(far))]
        self.lane = self.road.network.get_lane(self.lane_index)

    def lane_distance_to(self, other: RoadObject, lane: object = None) -> float:
        """Bumper to bumper along the route, m; negative behind.

        The library measures between centres, which lets a long vehicle roll into the one ahead.
        """
        if not other or lane is not None:
            return float(super().lane_distance_to(other, lane))
        bodies = (self.LENGTH + other.LENGTH) / 2
        for at, offset, _ in self.road.ahead(self):
            for there in (other.lane_index, getattr(other, "target_lane_index", None)):
                if there and there[:2] == at[:2]:
                    own = self.road.network.get_lane(at)
                    return _clear(offset + own.local_coordinates(other.position)[0], bodies)
        delta = other.position - self.position
        return _clear(np.copysign(np.hypot(*delta), delta @ self.direction), bodies)

    def desired_gap(self, ego: Driver, front: RoadObject, projected: bool = True) -> float:
        """IDM's gap, bumper to bumper, m."""
        closing = (ego.velocity - front.velocity) @ ego.direction if projected else ego.speed - front.speed
        brake = 2 * np.sqrt(-self.COMFORT_ACC_MAX * self.COMFORT_ACC_MIN)
        return self.jam_gap_m + float(max(0.0, ego.speed * self.TIME_WANTED + ego.speed * closing / brake))

    def _desired(self) -> float:
        """The speed that every limit within sight allows, m/s."""
        scene, speed = self.road.scene, np.inf
        for at, offset, _ in self.road.ahead(self):
            limit = scene.limit(at[:2], self.road.time) * self.temper * (1.0 + self.wander)
            speed = min(speed, np.sqrt(limit**2 + 2 * 1.3 * max(0.0, offset)))
        return float(speed)

    def _brake_for_line(self) -> float:
        """IDM toward a standing obstacle on the stop line, m/s2."""
        gap = max(0.3, self.lane.length - self.lane.local_coordinates(self.position)[0] - self.LENGTH / 2)
        brake = 2 * np.sqrt(-self.COMFORT_ACC_MAX * self.COMFORT_ACC_MIN)
        wanted = 1.0 + max(0.0, 0.7 * self.speed + self.speed**2 / brake)
        return float(self.COMFORT_ACC_MAX * (1.0 - (wanted / gap) ** 2))


def _clear(between: float, bodies: float) -> float:
    """Bumper to bumper from centre to centre; who is abreast is as close as can be."""
    return max(float(between) - bodies, 0.1) if between >= 0.0 else float(between)


def _draw(rng: np.random.Generator, spread: Spread) -> float:
    mean, deviation = spread
    return mean + deviation * float(np.clip(rng.standard_normal(), -2.0, 2.0))
