"""Roads of a recording: the scene and its parts, and the two scenes without crossing traffic.

Frame: x right, y up, m, traffic keeps to the right (a left-hand region is mirrored when written).
Lane 0 of an edge is the leftmost.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from highway_env.road.lane import CircularLane, SineLane, StraightLane
from highway_env.road.road import LaneIndex, RoadNetwork

from fedfsd.drive.traffic.profile import Profile

Edge = tuple[str, str]
LANE_M = 3.6


@dataclass(frozen=True)
class Entry:
    """A lane on which vehicles arrive, and the ways they may go from there."""

    lane: LaneIndex
    arrival_s: float
    routes: tuple[tuple[LaneIndex, ...], ...] = ((),)  # () follows the road
    weights: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class Wave:
    """A speed limit that swings: the stop-and-go that a jam further on sends back."""

    low_m_s: float
    high_m_s: float
    period_s: float
    phase: float

    def at(self, time: float) -> float:
        """The limit at ``time``, m/s."""
        swing = 0.5 + 0.5 * np.sin(2 * np.pi * time / self.period_s + self.phase)
        return self.low_m_s + (self.high_m_s - self.low_m_s) * float(swing)


@dataclass(frozen=True)
class Signal:
    """Lights of a four-armed junction: arms 0 and 2 together, then 1 and 3."""

    green_s: float
    offset_s: float
    amber_s: float = 3.0
    all_red_s: float = 2.0

    def stops(self, arm: int, time: float) -> bool:
        """Whether ``arm`` has amber or red."""
        phase = self.green_s + self.amber_s + self.all_red_s
        place = (time + self.offset_s + (phase if arm % 2 else 0.0)) % (2 * phase)
        return place >= self.green_s


@dataclass(frozen=True)
class Scene:
    """One recording's roads. Edges in ``ranks`` are entered only when the way is free."""

    kind: str
    network: RoadNetwork
    entries: tuple[Entry, ...]
    limits: dict[Edge, float]
    last: frozenset[Edge]  # vehicles leave at their end
    ranks: dict[Edge, int] = field(default_factory=dict)  # the higher goes first
    arms: dict[Edge, int] = field(default_factory=dict)  # of a signalled edge
    signal: Signal | None = None
    waves: dict[Edge, Wave] = field(default_factory=dict)
    obstacles: tuple[tuple[LaneIndex, float], ...] = ()
    kerbs: tuple[LaneIndex, ...] = ()  # lanes beside which cars stand

    def limit(self, edge: Edge, time: float) -> float:
        """The speed to keep on ``edge``, m/s."""
        wave = self.waves.get(edge)
        return min(self.limits[edge], wave.at(time)) if wave else self.limits[edge]


def highway(profile: Profile, rng: np.random.Generator) -> Scene:
    """A carriageway of several lanes, straight or bent, sometimes with a jam further on."""
    limit = float(rng.choice(profile.highway_limit_m_s))
    lanes = int(rng.choice(profile.lanes))
    length = 250.0 + 8.0 * limit
    # The radius a road is built with for its limit, at the lateral acceleration drivers accept.
    radius = float(rng.uniform(1.5, 6.0)) * limit**2 / 2.0
    bend = int(rng.choice((-1, 0, 1)))
    network = RoadNetwork()
    cut = 0.7 * length
    for lane in range(lanes):
        for start, stop, edge in ((0.0, cut, ("a", "b")), (cut, length, ("b", "c"))):
            if bend:
                # Seen from the start, the centre lies left (1) or right (-1) at one radius.
                quarter = bend * np.pi / 2
                part = CircularLane(
                    np.array([0.0, bend * radius]),
                    radius + bend * lane * LANE_M,
                    -quarter + bend * start / radius,
                    -quarter + bend * stop / radius,
                    clockwise=bend > 0,
                    width=LANE_M,
                    speed_limit=None,
                )
            else:
                y = -lane * LANE_M
                part = StraightLane([start, y], [stop, y], width=LANE_M, speed_limit=None)
            network.add_lane(*edge, part)
    entries = tuple(Entry(("a", "b", lane), _arrival(profile, rng)) for lane in range(lanes))
    return Scene(
        kind="highway",
        network=network,
        entries=entries,
        limits={("a", "b"): limit, ("b", "c"): limit},
        last=frozenset({("b", "c")}),
        waves={("b", "c"): _wave(limit, rng)} if rng.random() < profile.congested_share else {},
    )


def merge(profile: Profile, rng: np.random.Generator) -> Scene:
    """Two or more lanes that take in a ramp whose own lane ends."""
    limit = float(rng.choice(profile.highway_limit_m_s[:2]))
    lanes = int(rng.choice(profile.lanes[:2]))
    before, swing, beside, after = 120.0, 70.0, 60.0 + 5.0 * limit, 120.0
    network = RoadNetwork()
    stations = (0.0, before + swing, before + swing + beside, before + swing + beside + after)
    for start, stop, edge in zip(stations, stations[1:], ("ab", "bc", "cd"), strict=False):
        for lane in range(lanes):
            y = -lane * LANE_M
            network.add_lane(*edge, StraightLane([start, y], [stop, y], width=LANE_M, speed_limit=None))
    joined, amplitude = -lanes * LANE_M, 4.0
    ramp = joined - 2 * amplitude
    network.add_lane("j", "k", StraightLane([0, ramp], [before, ramp], width=LANE_M, speed_limit=None))
    curve = SineLane(
        [before, ramp + amplitude],
        [before + swing, ramp + amplitude],
        amplitude,
        np.pi / swing,
        -np.pi / 2,
        width=LANE_M,
        forbidden=True,
        speed_limit=None,
    )
    network.add_lane("k", "b", curve)
    ending = StraightLane([stations[1], joined], [stations[2], joined], width=LANE_M, speed_limit=None)
    ending.forbidden = True  # nobody changes back onto it
    network.add_lane("b", "c", ending)
    jam = rng.random() < profile.congested_share
    entries = [Entry(("a", "b", lane), _arrival(profile, rng)) for lane in range(lanes)]
    return Scene(
        kind="merge",
        network=network,
        entries=(*entries, Entry(("j", "k", 0), 1.5 * _arrival(profile, rng))),
        limits={("a", "b"): limit, ("b", "c"): limit, ("c", "d"): limit}
        | {("j", "k"): 0.7 * limit, ("k", "b"): 0.8 * limit},
        last=frozenset({("c", "d")}),
        waves={("c", "d"): _wave(limit, rng)} if jam else {},
        obstacles=((("b", "c", lanes), float(ending.length)),),
    )


def _arrival(profile: Profile, rng: np.random.Generator) -> float:
    return float(rng.uniform(*profile.arrival_s))


def _wave(limit: float, rng: np.random.Generator) -> Wave:
    """From crawling to half the limit, within the time a jam takes to pulse."""
    return Wave(
        low_m_s=float(rng.uniform(0.5, 4.0)),
        high_m_s=float(rng.uniform(0.3, 0.6)) * limit,
        period_s=float(rng.uniform(14.0, 35.0)),
        phase=float(rng.uniform(0.0, 2 * np.pi)),
    )
