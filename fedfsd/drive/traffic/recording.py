"""One recording: fill a scene with traffic, let it run, and keep what a sensor sees of each vehicle."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from fedfsd.drive.traffic import junction, scene
from fedfsd.drive.traffic.driver import STEP_S, Driver, Street
from fedfsd.drive.traffic.profile import Profile
from fedfsd.drive.traffic.right_of_way import RightOfWay
from fedfsd.drive.traffic.scene import Entry, Scene

SCENES = {
    "highway": scene.highway,
    "merge": scene.merge,
    "roundabout": junction.roundabout,
    "intersection": junction.intersection,
}
WARM_UP_S = 14.0  # until queues and gaps have formed; not kept
LENGTH_S = (15.0, 20.0)
RULES_EVERY = 2  # steps between two looks at the stop lines
ENTRY_GAP_S = 1.0  # behind the one who entered last


@dataclass(frozen=True)
class Track:
    """What the sensor reports of one vehicle. Shape letter: P points."""

    type: str
    length: float  # m
    width: float  # m
    t: np.ndarray  # (P,) s
    state: np.ndarray  # (P, 5) x, y [m], vx, vy [m/s], heading [rad]


def record(profile: Profile, kind: str, rng: np.random.Generator) -> tuple[Track, ...]:
    """Simulate one scene of ``kind``; its tracks in order of appearance, parked cars last.

    Raises:
        KeyError: ``kind`` is not one of ``SCENES``.
    """
    traffic = Traffic(profile, SCENES[kind](profile, rng), rng)
    seconds = round(rng.uniform(*LENGTH_S))
    for _ in range(round(WARM_UP_S / STEP_S)):
        traffic.step()
    every = round(1.0 / (profile.hz * STEP_S))
    seen: dict[Driver, list[tuple[float, ...]]] = {}
    for step in range(round(seconds / STEP_S) + 1):
        if step % every == 0:
            for vehicle in traffic.street.vehicles:
                seen.setdefault(vehicle, []).append((step * STEP_S, *_state(vehicle)))
        traffic.step()
    tracks = [(v.type, v.LENGTH, v.WIDTH, np.array(rows)) for v, rows in seen.items()]
    times = np.arange(0.0, seconds + 1e-9, 1.0 / profile.hz)
    for place in _parked(traffic.street.scene, profile, rng):
        rows = np.column_stack([times, np.tile(place, (len(times), 1))])
        tracks.append(("car", float(rng.uniform(3.8, 5.2)), float(rng.uniform(1.7, 2.0)), rows))
    return tuple(_sense(tracks, profile, rng))


class Traffic:
    """The vehicles of one scene: they arrive, drive and leave."""

    def __init__(self, profile: Profile, place: Scene, rng: np.random.Generator) -> None:
        self.street = Street(place, rng)
        self.profile, self.rng = profile, rng
        self.politeness = float(rng.uniform(*profile.politeness))
        self.rules = RightOfWay(self.street) if place.ranks else None
        self.steps = self.serial = 0
        self.due = [float(rng.exponential(entry.arrival_s)) for entry in place.entries]
        self._fill()

    def step(self) -> None:
        """Move everybody on by ``STEP_S``."""
        street = self.street
        for index, entry in enumerate(street.scene.entries):
            if street.time >= self.due[index] and self._enter(entry, 0.0):
                self.due[index] = street.time + ENTRY_GAP_S + float(self.rng.exponential(entry.arrival_s))
        street.index()
        if self.rules and self.steps % RULES_EVERY == 0:
            self.rules.update()
        street.act()
        street.step(STEP_S)
        street.vehicles = [vehicle for vehicle in street.vehicles if not self._gone(vehicle)]
        self.steps += 1
        street.time = self.steps * STEP_S

    def _fill(self) -> None:
        """Start with vehicles on the ways in, as far apart as they would arrive."""
        for entry in self.street.scene.entries:
            lane = self.street.network.get_lane(entry.lane)
            speed = 0.7 * self.street.scene.limit(entry.lane[:2], 0.0)
            s = lane.length - 10.0 - float(self.rng.uniform(0.0, 30.0))
            while s > 20.0:
                self._enter(entry, s)
                s -= 10.0 + speed * (ENTRY_GAP_S + float(self.rng.exponential(entry.arrival_s)))

    def _enter(self, entry: Entry, s: float) -> bool:
        """Put a new vehicle on ``entry`` unless somebody stands in the way."""
        street, rng = self.street, self.rng
        lane = street.network.get_lane(entry.lane)
        speed = street.scene.limit(entry.lane[:2], street.time)
        ahead = [
            (lane.local_coordinates(other.position)[0], other)
            for other in street.vehicles
            if other.lane_index == entry.lane or other.target_lane_index == entry.lane
        ]
        ahead = [(at - s, other) for at, other in ahead if at >= s]
        if ahead:
            gap, leader = min(ahead, key=lambda pair: pair[0])
            room = gap - leader.LENGTH / 2 - 9.0
            if room < 4.0:
                return False
            speed = min(speed, leader.speed + 0.5 * room / 1.5)
        vehicle = Driver(
            street, lane.position(s, 0.0), lane.heading_at(s), speed, target_lane_index=entry.lane
        )
        vehicle.lane_index, vehicle.lane = entry.lane, lane
        vehicle.serial = self.serial
        vehicle.check_collisions = False
        vehicle.respond(self.profile, self.politeness)
        vehicle.speed = min(speed, vehicle.temper * speed)
        way = entry.routes[int(rng.choice(len(entry.routes), p=entry.weights))]
        # The library drops what lies behind from this list.
        vehicle.route = list(way) or None
        vehicle.enable_lane_change = not way
        street.vehicles.append(vehicle)
        self.serial += 1
        return True

    def _gone(self, vehicle: Driver) -> bool:
        """Whether the vehicle has reached the end of its last edge."""
        lane, at = vehicle.lane, vehicle.lane_index[:2]
        return (
            at in self.street.scene.last and lane.local_coordinates(vehicle.position)[0] > lane.length - 3.0
        )


def _state(vehicle: Driver) -> tuple[float, ...]:
    """x, y, vx, vy, heading; the velocity along the motion, which slips against the heading."""
    slip = np.arctan(0.5 * np.tan(vehicle.action["steering"]))
    course = vehicle.heading + slip
    return (
        *vehicle.position,
        vehicle.speed * np.cos(course),
        vehicle.speed * np.sin(course),
        vehicle.heading,
    )


def _parked(place: Scene, profile: Profile, rng: np.random.Generator) -> Iterator[tuple[float, ...]]:
    """Cars at the kerb of the ways out, at most one a slot of 7 m."""
    if not place.kerbs:
        return
    least, most = profile.parked
    for slot in rng.permutation(4 * len(place.kerbs))[: int(rng.integers(least, most + 1))]:
        lane = place.network.get_lane(place.kerbs[slot % len(place.kerbs)])
        s = 22.0 + 7.0 * (slot // len(place.kerbs)) + float(rng.uniform(-0.6, 0.6))
        beside = lane.position(s, -(lane.width / 2 + 1.2))
        yield (*beside, 0.0, 0.0, lane.heading_at(s))


def _sense(
    tracks: list[tuple[str, float, float, np.ndarray]], profile: Profile, rng: np.random.Generator
) -> Iterator[Track]:
    """Mirror, turn and blur: the side of the road, the site's orientation, the sensor's jitter."""
    mirror = -1.0 if rng.random() < profile.left_hand_share else 1.0
    angle = float(rng.uniform(-np.pi, np.pi))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    deviation = float(rng.uniform(*profile.jitter_m))
    kept = float(rng.uniform(*profile.jitter_memory))
    for kind, length, width, rows in tracks:
        flip = np.array([1.0, mirror])
        position = (rows[:, 1:3] * flip) @ turn.T + deviation * _jitter(len(rows), kept, profile.hz, rng)
        velocity = (rows[:, 3:5] * flip) @ turn.T
        heading = (mirror * rows[:, 5] + angle + np.pi) % (2 * np.pi) - np.pi
        yield Track(kind, length, width, rows[:, 0], np.column_stack([position, velocity, heading]))


def _jitter(points: int, kept: float, hz: float, rng: np.random.Generator) -> np.ndarray:
    """Unit noise, (points, 2): variance ``kept`` fades over two seconds, the rest is fresh each time."""
    fresh, slow = rng.standard_normal((2, points, 2))
    fade = float(np.exp(-0.5 / hz))
    for i in range(1, points):
        slow[i] = fade * slow[i - 1] + np.sqrt(1.0 - fade**2) * slow[i]
    noise: np.ndarray = np.sqrt(1.0 - kept) * fresh + np.sqrt(kept) * slow
    return noise
