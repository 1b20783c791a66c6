"""What makes traffic differ between regions: one frozen profile each, and PUBLIC, a broad mixture.

Every number is plausible general knowledge (posted limits, rules of the road, the usual ranges of
the car-following literature, the usual accuracy of roadside and lidar tracking). None is fitted to
a recording, so a model trained on this traffic has seen nobody's drive.
"""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]  # drawn uniformly, once per recording
Spread = tuple[float, float]  # mean and standard deviation over drivers, cut at two deviations


@dataclass(frozen=True)
class Profile:
    """How one region drives and how well its sensors see it."""

    name: str
    left_hand_share: float  # of the recordings: 0 or 1 in a region
    # share of recordings: highway, merge, roundabout, intersection
    scenes: tuple[tuple[str, float], ...]
    lanes: tuple[int, ...]  # of a highway, one direction
    highway_limit_m_s: tuple[float, ...]
    urban_limit_m_s: tuple[float, ...]
    speed_factor: Spread  # desired speed over the limit
    time_gap_s: Spread
    jam_gap_m: Spread  # bumper to bumper, standing
    acceleration_m_s2: Spread
    braking_m_s2: Spread
    accepted_gap_s: Spread  # smallest gap in crossing traffic that a driver takes
    politeness: Range  # MOBIL: weight of what a lane change costs others
    lane_change_gain_m_s2: float  # MOBIL: the least advantage worth a lane change
    arrival_s: Range  # mean time between arrivals on one lane
    congested_share: float  # share of highway and merge recordings with stop-and-go downstream
    signal_share: float  # share of intersections with lights
    truck_share: float
    parked: tuple[int, int]  # standing cars beside an urban road, per recording
    jitter_m: Range  # standard deviation of a position, per axis
    jitter_memory: Range  # share of that deviation which persists between points
    hz: float  # a divisor of the simulation's 8 Hz


CN = Profile(
    name="CN",
    left_hand_share=0.0,
    # Ring roads and wide signalled crossings; roundabouts are rare.
    scenes=(("highway", 0.25), ("merge", 0.20), ("roundabout", 0.05), ("intersection", 0.50)),
    lanes=(3, 4),
    highway_limit_m_s=(16.7, 22.2, 27.8),  # 60, 80, 100 km/h: urban expressway to motorway
    urban_limit_m_s=(11.1, 13.9, 16.7),  # 40 to 60 km/h
    speed_factor=(0.88, 0.14),  # dense city traffic runs below the limit
    time_gap_s=(1.1, 0.3),  # close following
    jam_gap_m=(1.8, 0.5),
    acceleration_m_s2=(1.7, 0.4),
    braking_m_s2=(2.5, 0.5),
    accepted_gap_s=(1.8, 0.5),  # gaps are negotiated, not waited for
    politeness=(0.0, 0.2),
    lane_change_gain_m_s2=0.1,  # many lane changes
    arrival_s=(3.0, 6.0),
    congested_share=0.6,
    signal_share=0.85,
    truck_share=0.10,
    parked=(0, 4),
    jitter_m=(0.15, 0.40),  # tracked from a moving car in dense traffic
    jitter_memory=(0.2, 0.6),
    hz=2.0,
)

EU = Profile(
    name="EU",
    left_hand_share=0.0,
    # Roundabouts and small crossings, half of them without lights.
    scenes=(("highway", 0.20), ("merge", 0.15), ("roundabout", 0.25), ("intersection", 0.40)),
    lanes=(2, 3),
    highway_limit_m_s=(22.2, 27.8, 33.3),  # 80, 100, 120 km/h
    urban_limit_m_s=(8.3, 13.9),  # 30 and 50 km/h
    speed_factor=(0.97, 0.11),
    time_gap_s=(1.4, 0.35),
    jam_gap_m=(2.2, 0.5),
    acceleration_m_s2=(1.6, 0.35),
    braking_m_s2=(2.0, 0.4),
    accepted_gap_s=(2.6, 0.6),
    politeness=(0.2, 0.5),
    lane_change_gain_m_s2=0.25,  # keep right, overtake with reason
    arrival_s=(4.0, 9.0),
    congested_share=0.3,
    signal_share=0.5,
    truck_share=0.14,
    parked=(1, 5),
    jitter_m=(0.08, 0.30),  # roadside sensors, online tracking
    jitter_memory=(0.3, 0.7),
    hz=4.0,
)

US = Profile(
    name="US",
    left_hand_share=0.0,
    # Freeways and arterials with lights; all-way waiting at the others.
    scenes=(("highway", 0.30), ("merge", 0.20), ("roundabout", 0.05), ("intersection", 0.45)),
    lanes=(3, 4, 5),
    highway_limit_m_s=(24.6, 29.1, 31.3),  # 55, 65, 70 mph
    urban_limit_m_s=(11.2, 15.6, 17.9),  # 25, 35, 40 mph
    speed_factor=(1.02, 0.12),  # a little over the limit is common
    time_gap_s=(1.4, 0.4),
    jam_gap_m=(2.6, 0.7),
    acceleration_m_s2=(1.7, 0.4),
    braking_m_s2=(2.0, 0.5),
    accepted_gap_s=(2.8, 0.7),
    politeness=(0.1, 0.4),
    lane_change_gain_m_s2=0.2,
    arrival_s=(3.0, 7.0),
    congested_share=0.45,
    signal_share=0.7,
    truck_share=0.09,
    parked=(0, 5),
    jitter_m=(0.05, 0.25),  # cameras on tall buildings, or lidar
    jitter_memory=(0.3, 0.8),
    hz=4.0,
)

SG = Profile(
    name="SG",
    left_hand_share=1.0,
    # Expressways and signalled junctions; few roundabouts remain.
    scenes=(("highway", 0.25), ("merge", 0.20), ("roundabout", 0.08), ("intersection", 0.47)),
    lanes=(2, 3, 4),
    highway_limit_m_s=(19.4, 22.2, 25.0),  # 70 to 90 km/h
    urban_limit_m_s=(11.1, 13.9, 16.7),  # 40 to 60 km/h
    speed_factor=(0.95, 0.09),
    time_gap_s=(1.5, 0.3),
    jam_gap_m=(2.0, 0.4),
    acceleration_m_s2=(1.5, 0.3),
    braking_m_s2=(1.9, 0.4),
    accepted_gap_s=(2.6, 0.5),
    politeness=(0.1, 0.4),
    lane_change_gain_m_s2=0.2,
    arrival_s=(3.5, 7.0),
    congested_share=0.3,
    signal_share=0.9,
    truck_share=0.16,  # buses and goods vehicles share most roads
    parked=(0, 3),
    jitter_m=(0.06, 0.25),  # lidar on a moving car
    jitter_memory=(0.4, 0.8),
    hz=2.0,
)

PUBLIC = Profile(
    name="PUBLIC",
    left_hand_share=0.3,
    # Every scene, every habit, every sensor: for pre-training that spends no privacy.
    scenes=(("highway", 0.25), ("merge", 0.20), ("roundabout", 0.20), ("intersection", 0.35)),
    lanes=(2, 3, 4, 5),
    highway_limit_m_s=(16.7, 19.4, 22.2, 25.0, 27.8, 33.3),
    urban_limit_m_s=(8.3, 11.1, 13.9, 16.7),
    speed_factor=(0.95, 0.15),
    time_gap_s=(1.4, 0.45),
    jam_gap_m=(2.2, 0.7),
    acceleration_m_s2=(1.7, 0.5),
    braking_m_s2=(2.2, 0.6),
    accepted_gap_s=(2.4, 0.8),
    politeness=(0.0, 0.5),
    lane_change_gain_m_s2=0.2,
    arrival_s=(3.0, 9.0),
    congested_share=0.45,
    signal_share=0.65,
    truck_share=0.12,
    parked=(0, 5),
    jitter_m=(0.03, 0.50),
    jitter_memory=(0.0, 0.8),
    hz=2.0,
)

PROFILES = {profile.name: profile for profile in (CN, EU, US, SG, PUBLIC)}
