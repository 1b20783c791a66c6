"""The two scenes with crossing traffic: a roundabout, and an intersection with or without lights.

Nodes of arm k: ``i`` far end of the way in, ``s`` its stop line, ``o`` far end of the way out; at the
intersection ``x`` is the near end of the way out; on the ring ``e`` and ``x`` are where arm k joins
and leaves.
"""

from __future__ import annotations

import numpy as np
from highway_env.road.lane import CircularLane, StraightLane
from highway_env.road.road import LaneIndex, RoadNetwork

from fedfsd.drive.traffic.profile import Profile
from fedfsd.drive.traffic.scene import LANE_M, Edge, Entry, Scene, Signal

ARMS = 4


def intersection(profile: Profile, rng: np.random.Generator) -> Scene:
    """Four arms of one or two lanes a direction; lights, a main road, or first come first served."""
    limit = float(rng.choice(profile.urban_limit_m_s))
    lanes = int(rng.choice((1, 2)))
    right_m = float(rng.uniform(6.0, 10.0))
    half = right_m + lanes * LANE_M  # centre to stop line
    approach = 50.0 + 3.5 * limit
    network = RoadNetwork()
    limits: dict[Edge, float] = {}
    ranks: dict[Edge, int] = {}
    arms: dict[Edge, int] = {}
    main_road = rng.random() < 0.6
    lit = rng.random() < profile.signal_share
    for arm in range(ARMS):
        _add_arm(network, arm, lanes=lanes, half=half, approach=approach)
        limits |= {(f"i{arm}", f"s{arm}"): limit, (f"x{arm}", f"o{arm}"): limit}
        _add_turns(network, arm, lanes=lanes, half=half)
        minor = 2 * (arm % 2) if main_road and not lit else 0
        for turn, edge in enumerate(_turns(arm)):
            radius = (right_m + LANE_M / 2, np.inf, half + LANE_M / 2)[turn]
            limits[edge] = min(limit, _bend_speed(radius))
            ranks[edge] = 3 - minor - (turn == 2)
            arms[edge] = arm
    entries = tuple(
        Entry((f"i{arm}", f"s{arm}", lane), arrival, *_ways(arm, lane, lanes=lanes))
        for arm in range(ARMS)
        for arrival in [float(rng.uniform(*profile.arrival_s)) * lanes * float(rng.uniform(0.8, 2.0))]
        for lane in range(lanes)
    )
    return Scene(
        kind="intersection",
        network=network,
        entries=entries,
        limits=limits,
        last=frozenset((f"x{arm}", f"o{arm}") for arm in range(ARMS)),
        ranks=ranks,
        arms=arms,
        signal=Signal(float(rng.uniform(9.0, 20.0)), float(rng.uniform(0.0, 40.0))) if lit else None,
        kerbs=tuple((f"x{arm}", f"o{arm}", lanes - 1) for arm in range(ARMS)),
    )


def roundabout(profile: Profile, rng: np.random.Generator) -> Scene:
    """A one-lane ring with four arms; who enters gives way."""
    limit = min(float(rng.choice(profile.urban_limit_m_s)), 13.9)
    ring, bend = float(rng.uniform(12.0, 20.0)), float(rng.uniform(11.0, 15.0))
    # The way in is an arc that touches both the straight approach and the ring.
    mouth = float(np.arcsin((LANE_M / 2 + bend) / (ring + bend)))
    reach, far = (ring + bend) * np.cos(mouth), 50.0 + 3.5 * limit
    network = RoadNetwork()
    limits: dict[Edge, float] = {}
    ranks: dict[Edge, int] = {}
    ring_speed, bend_speed = _bend_speed(ring), _bend_speed(bend)
    for arm in range(ARMS):
        axis, after = arm * np.pi / 2, (arm + 1) % ARMS
        turn = _turn(axis)

        def straight(start: list[float], stop: list[float], turn: np.ndarray = turn) -> StraightLane:
            return StraightLane(turn @ start, turn @ stop, width=LANE_M, speed_limit=None)

        network.add_lane(f"i{arm}", f"s{arm}", straight([reach + far, LANE_M / 2], [reach, LANE_M / 2]))
        network.add_lane(
            f"s{arm}",
            f"e{arm}",
            _arc(turn @ [reach, LANE_M / 2 + bend], bend, axis - np.pi / 2, axis + mouth - np.pi),
        )
        network.add_lane(f"x{arm}", f"e{arm}", _arc([0, 0], ring, axis - mouth, axis + mouth))
        network.add_lane(f"e{arm}", f"x{after}", _arc([0, 0], ring, axis + mouth, axis + np.pi / 2 - mouth))
        network.add_lane(
            f"x{arm}",
            f"l{arm}",
            _arc(turn @ [reach, -LANE_M / 2 - bend], bend, axis + np.pi - mouth, axis + np.pi / 2),
        )
        network.add_lane(f"l{arm}", f"o{arm}", straight([reach, -LANE_M / 2], [reach + far, -LANE_M / 2]))
        limits |= {(f"i{arm}", f"s{arm}"): limit, (f"l{arm}", f"o{arm}"): limit}
        limits |= {(f"x{arm}", f"e{arm}"): ring_speed, (f"e{arm}", f"x{after}"): ring_speed}
        limits |= {(f"s{arm}", f"e{arm}"): bend_speed, (f"x{arm}", f"l{arm}"): bend_speed}
        ranks[(f"s{arm}", f"e{arm}")] = 0
    entries = tuple(
        Entry(
            (f"i{arm}", f"s{arm}", 0),
            float(rng.uniform(*profile.arrival_s)) * 1.6,
            tuple(_round(arm, exits) for exits in (1, 2, 3, 4)),
            (0.3, 0.4, 0.27, 0.03),
        )
        for arm in range(ARMS)
    )
    return Scene(
        kind="roundabout",
        network=network,
        entries=entries,
        limits=limits,
        last=frozenset((f"l{arm}", f"o{arm}") for arm in range(ARMS)),
        ranks=ranks,
        kerbs=tuple((f"l{arm}", f"o{arm}", 0) for arm in range(ARMS)),
    )


def _round(arm: int, exits: int) -> tuple[LaneIndex, ...]:
    """The way from ``arm`` to the ``exits``-th exit counter-clockwise."""
    way: list[LaneIndex] = [(f"i{arm}", f"s{arm}", 0), (f"s{arm}", f"e{arm}", 0)]
    for step in range(1, exits + 1):
        at, passed = (arm + step) % ARMS, (arm + step - 1) % ARMS
        way.append((f"e{passed}", f"x{at}", 0))
        if step < exits:
            way.append((f"x{at}", f"e{at}", 0))
    goal = (arm + exits) % ARMS
    return (*way, (f"x{goal}", f"l{goal}", 0), (f"l{goal}", f"o{goal}", 0))


def _add_arm(network: RoadNetwork, arm: int, *, lanes: int, half: float, approach: float) -> None:
    turn = _turn(arm * np.pi / 2)
    for lane in range(lanes):
        y = (lane + 0.5) * LANE_M
        near, far = [half, y], [half + approach, y]
        network.add_lane(
            f"i{arm}", f"s{arm}", StraightLane(turn @ far, turn @ near, width=LANE_M, speed_limit=None)
        )
        near, far = [half, -y], [half + approach, -y]
        network.add_lane(
            f"x{arm}", f"o{arm}", StraightLane(turn @ near, turn @ far, width=LANE_M, speed_limit=None)
        )


def _add_turns(network: RoadNetwork, arm: int, *, lanes: int, half: float) -> None:
    """Right from the outer lane, straight from each, left from the inner one."""
    axis = arm * np.pi / 2
    turn = _turn(axis)
    right, straight, left = _turns(arm)
    outer = (lanes - 0.5) * LANE_M
    network.add_lane(*right, _arc(turn @ [half, half], half - outer, axis - np.pi / 2, axis - np.pi))
    for lane in range(lanes):
        y = (lane + 0.5) * LANE_M
        network.add_lane(
            *straight, StraightLane(turn @ [half, y], turn @ [-half, y], width=LANE_M, speed_limit=None)
        )
    network.add_lane(*left, _arc(turn @ [half, -half], half + LANE_M / 2, axis + np.pi / 2, axis + np.pi))


def _turns(arm: int) -> tuple[Edge, Edge, Edge]:
    """The edges right, straight on and left from ``arm``."""
    right, straight, left = ((f"s{arm}", f"x{(arm + step) % ARMS}") for step in (1, 2, 3))
    return right, straight, left


def _ways(arm: int, lane: int, *, lanes: int) -> tuple[tuple[tuple[LaneIndex, ...], ...], tuple[float, ...]]:
    """The routes open from one lane, with their shares."""
    right, straight, left = _turns(arm)
    heads = [(*straight, lane)]
    shares = [0.5]
    if lane == lanes - 1:
        heads.append((*right, 0))
        shares.append(0.25)
    if lane == 0:
        heads.append((*left, 0))
        shares.append(0.25)
    ways = tuple(
        ((f"i{arm}", f"s{arm}", lane), head, (head[1], head[1].replace("x", "o"), None)) for head in heads
    )
    return ways, tuple(share / sum(shares) for share in shares)


def _bend_speed(radius: float) -> float:
    """m/s at 2 m/s2 across, what drivers take in town."""
    return float(np.sqrt(2.0 * radius))


def _turn(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _arc(center: object, radius: float, start: float, stop: float) -> CircularLane:
    """An arc from phase ``start`` to ``stop``; the library calls growing phases clockwise."""
    return CircularLane(
        np.asarray(center, float), radius, start, stop, clockwise=stop > start, width=LANE_M, speed_limit=None
    )
