"""Every defect planted in clean recordings is found by name, recording and count; clean ones are silent."""

import time
from pathlib import Path

import numpy as np
import pytest

import fedfsd.drive.check as check_module
from fedfsd.drive import stored, table
from fedfsd.drive.check import Finding, check
from fedfsd.drive.rate import grouped_median

SHARED = Path(__file__).parents[3] / "shared" / "data"
RECORDINGS = 4
PER_RECORDING = 10
SAMPLES = 120


def clean(region: str = "EU", hz: float = 10.0, seed: int = 1, recordings: int = RECORDINGS) -> dict:
    """Curved drives: a car has two drives in two recordings, the recording car one in each.

    Accelerations below 2 m/s2, radii above 40 m, 1 mm of noise; sizes are each car's own.
    """
    draw = np.random.default_rng(seed)
    sizes = draw.uniform((3.5, 1.6), (5.5, 2.1), (recordings * PER_RECORDING, 2))
    tracks = []
    for recording in range(recordings):
        for slot in range(PER_RECORDING):
            # Cars 0..9 drive in recordings 0 and 1, cars 10..19 in 1 and 2 and so on.
            car = (recording * PER_RECORDING + slot // 2 * 2 - (slot % 2) * PER_RECORDING) % len(sizes)
            key = "drives/city/ego" if slot == 0 else f"drives/{region}/{car}"
            tracks.append((recording, key, sizes[car], drive(draw, hz)))
    columns: dict[str, list] = {name: [] for name in (*table.TEXT_COLUMNS, *table.NUMBER_COLUMNS, "city")}
    for recording, key, (length, width), motion in tracks:
        rows = len(motion["t"])
        constant = {
            "region": region,
            "source": "drives",
            "recording": f"drive-{recording}",
            "vehicle": key,
            "type": "car",
            "length": length,
            "width": width,
            "hz": hz,
            "city": "city",
        }
        for name in columns:
            columns[name].append(
                np.asarray(motion[name]) if name in motion else np.full(rows, constant[name])
            )
    return {name: np.concatenate(parts) for name, parts in columns.items()}


def drive(draw: np.random.Generator, hz: float) -> dict[str, np.ndarray]:
    """Position, velocity and heading of one smooth drive of SAMPLES points."""
    t = np.arange(SAMPLES) / hz
    phase, speed, sway = draw.uniform(0, 2 * np.pi), draw.uniform(6, 14), draw.uniform(0.2, 1.5)
    pace = 2 * np.pi / draw.uniform(6, 9)
    fine = np.arange(SAMPLES * 20) / (hz * 20)
    v = speed + sway * np.sin(pace * fine + phase)
    heading = phase + 0.1 * np.sin(0.5 * fine + phase) + draw.uniform(-0.1, 0.1) * fine
    step = 1 / (hz * 20)
    x = np.cumsum(v * np.cos(heading)) * step + draw.uniform(-200, 200)
    y = np.cumsum(v * np.sin(heading)) * step + draw.uniform(-200, 200)
    every = slice(None, None, 20)
    noise = draw.normal(0, 0.001, (2, SAMPLES))
    return {
        "t": t + draw.integers(0, 50) / hz,
        "x": x[every] + noise[0],
        "y": y[every] + noise[1],
        "vx": (v * np.cos(heading))[every],
        "vy": (v * np.sin(heading))[every],
        "heading": (heading[every] + np.pi) % (2 * np.pi) - np.pi,
    }


def made(columns: dict, identity: str = "physical", origin: str = "recorded") -> table.Table:
    return table.of_rows(dict(columns), licence="CC0", identity=identity, origin=origin)


def track(columns: dict, recording: int, slot: int) -> np.ndarray:
    """Row numbers of the slot-th track of a recording, in time order."""
    rows = np.flatnonzero(columns["recording"] == f"drive-{recording}")
    return rows[slot * SAMPLES : (slot + 1) * SAMPLES]


def joined(*parts: dict) -> dict:
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def subset(columns: dict, rows: np.ndarray, **changes) -> dict:
    return {
        name: np.full(len(rows), changes[name]) if name in changes else v[rows] for name, v in columns.items()
    }


@pytest.mark.parametrize("hz", [2.0, 5.0, 10.0, 25.0])
@pytest.mark.parametrize("seed", range(5))
def test_clean_recordings_yield_nothing(hz, seed):
    assert check([made(clean(hz=hz, seed=seed))]) == []


def test_no_table_yields_nothing_and_an_empty_one_is_named():
    assert check([]) == []
    (found,) = check([made({name: values[:0] for name, values in clean().items()})])
    assert (found.name, found.severity) == ("empty-table", "error")


def test_rows_without_a_single_position_are_one_finding():
    columns = clean()
    columns["x"][:] = np.nan
    found = check([made(columns)])
    assert {f.name for f in found} == {"not-finite"}


# Each plants one defect and returns (recording, how many, of how many), or None for the recording
# where the finding is about keys.
def reversed_velocity(c):
    for slot in (1, 2, 3):
        rows = track(c, 2, slot)
        c["vx"][rows] *= -1
        c["vy"][rows] *= -1
    return "drive-2", 3, 10


def scaled_velocity(c):
    rows = c["recording"] == "drive-1"
    c["vx"][rows] /= 1.75
    c["vy"][rows] /= 1.75
    return "drive-1", 10, 10


def missing_heading(c):
    c["heading"][track(c, 3, 5)[:40]] = np.nan
    return "drive-3", 40, 1200


def degrees(c):
    rows = c["recording"] == "drive-0"
    c["heading"][rows] = np.degrees(c["heading"][rows])
    return "drive-0", 10, 10


def backwards(c):
    rows = np.concatenate([track(c, 1, slot) for slot in (4, 6)])
    c["heading"][rows] = (c["heading"][rows] + 2 * np.pi) % (2 * np.pi) - np.pi
    return "drive-1", 2, 10


def astray(c):
    rows = track(c, 1, 4)
    c["heading"][rows] += 1.4
    return "drive-1", 1, 10


def gap(c):
    keep = np.ones(len(c["t"]), bool)
    keep[track(c, 0, 3)[50:60]] = False
    keep[track(c, 0, 7)[20:22]] = False
    for name in c:
        c[name] = c[name][keep]
    return "drive-0", 2, 1190 - 12


def jump(c):
    rows = track(c, 2, 6)[60:]
    c["x"][rows] += 15.0
    return "drive-2", 1, 1190


def spike(c):
    c["y"][track(c, 2, 6)[60]] += 12.0
    return "drive-2", 2, 1190


def jitter(c):
    draw = np.random.default_rng(5)
    for slot in (2, 8):
        for axis in ("x", "y"):
            c[axis][track(c, 3, slot)] += draw.normal(0, 0.1, SAMPLES)
    return "drive-3", 2, 10


def duplicate(c):
    copies = joined(c, subset(c, track(c, 1, 5), vehicle="drives/EU/twin"))
    c.update(copies)
    return "drive-1", 1, 11


def partial_duplicate(c):
    """The middle half of a track again, in another recording, with times of its own."""
    rows = track(c, 0, 5)[30:90]
    copy = subset(c, rows, vehicle="drives/EU/twin", recording="drive-3")
    copy["t"] = copy["t"] + 7.0
    # A key that lives here alone would not be worth a finding; the copy is.
    c.update(joined(c, copy))
    return "drive-3", 1, 11


def overlap(c):
    """The same car at the same points, under its own key, in a second recording."""
    rows = track(c, 0, 5)
    copy = subset(c, rows, recording="drive-1")
    copy["t"] = copy["t"] + 7.0
    c.update(joined(c, copy))
    return "drive-1", 1, 11


def repeated_rows(c):
    c.update(joined(c, subset(c, track(c, 1, 5)[10:15])))
    return "drive-1", 5, 1205


def constant_size(c):
    rows = c["recording"] == "drive-2"
    c["length"][rows], c["width"][rows] = 4.5, 1.8
    return "drive-2", 10, 10


def swapped_size(c):
    rows = track(c, 2, 0)
    c["length"][rows], c["width"][rows] = 1.73, 4.08
    return "drive-2", 1, 10


def interpolated(c):
    for slot in range(PER_RECORDING):
        rows = track(c, 1, slot)
        key = np.arange(0, SAMPLES, 5)
        for axis in ("x", "y"):
            c[axis][rows] = np.interp(np.arange(SAMPLES), key, c[axis][rows][key])
    # np.interp holds the last value after the last key frame.
    return "drive-1", 10, 10


def nan_points(c):
    c["x"][track(c, 0, 2)[:3]] = np.nan
    c["t"][track(c, 0, 4)[0]] = np.inf
    return "drive-0", 4, 1200


def one_point(c):
    keep = np.ones(len(c["t"]), bool)
    keep[track(c, 3, 9)[1:]] = False
    for name in c:
        c[name] = c[name][keep]
    return "drive-3", 1, 10


def wrong_rate(c):
    c["hz"][c["recording"] == "drive-2"] = 2.0
    return "drive-2", 10, 10


def ego_keys(c):
    egos = np.char.endswith(c["vehicle"].astype(str), "/ego")
    c["vehicle"] = np.where(egos, np.char.add(np.char.add("drives/", c["recording"]), "/ego"), c["vehicle"])
    return None, 4, len(np.unique(c["vehicle"]))


def one_recording(c):
    own = ~np.char.endswith(c["vehicle"].astype(str), "/ego")
    c["vehicle"] = np.where(own, np.char.add(np.char.add(c["recording"], "/"), c["vehicle"]), c["vehicle"])
    keys = len(np.unique(c["vehicle"])) - 1
    return None, keys, keys


def in_frame(change, said):
    """Velocities of a whole recording in another frame."""

    def plant(c):
        rows = c["recording"] == "drive-1"
        c["vx"][rows], c["vy"][rows] = change(c["vx"][rows], c["vy"][rows], c["heading"][rows])
        return "drive-1", 10, 10

    plant.__name__ = said.replace(" ", "-")
    return plant


def rotated(vx, vy, by):
    return np.cos(by) * vx - np.sin(by) * vy, np.sin(by) * vx + np.cos(by) * vy


def heading_as(change, said):
    """Headings of a whole recording, meant in another way."""

    def plant(c):
        rows = c["recording"] == "drive-1"
        true = c["heading"][rows].copy()
        c["heading"][rows] = change(true)
        # Named are the tracks whose heading is another direction: a median error above 1 rad.
        error = np.abs((c["heading"][rows] - true + np.pi) % (2 * np.pi) - np.pi).reshape(-1, SAMPLES)
        return "drive-1", int((np.median(error, axis=1) > 1).sum()), 10

    plant.__name__ = said
    return plant


def all_degrees(c):
    """Within a full turn, as a road along x has them."""
    for slot in range(PER_RECORDING):
        mine, degrees = track(c, 0, slot), 1.5 + slot * (-1) ** slot / 2
        vx, vy = (9 + slot / 3) * np.cos(np.radians(degrees)), (9 + slot / 3) * np.sin(np.radians(degrees))
        seconds = c["t"][mine] - c["t"][mine[0]]
        c["x"][mine], c["y"][mine] = 20 * slot + vx * seconds, 3.5 * slot + vy * seconds
        c["vx"][mine], c["vy"][mine], c["heading"][mine] = vx, vy, degrees
    return "drive-0", 10, 10


def parked_beyond(c):
    """Parked cars whose heading was unwrapped, beside others that drive."""
    for slot in (2, 3):
        rows = track(c, 2, slot)
        c["x"][rows], c["y"][rows] = c["x"][rows[0]], c["y"][rows[0]]
        c["vx"][rows] = c["vy"][rows] = 0
        c["heading"][rows] = 8.2 + slot / 10
    return "drive-2", 2, 10


def velocity_astray(c):
    """By an angle of its own for each car: no frame explains it."""
    rows = c["recording"] == "drive-1"
    angles = np.repeat([0.9, 1.3, 1.9, -1.2, -2.0, 1.6, -0.8, -1.5, 2.2, -1.1], SAMPLES)
    c["vx"][rows], c["vy"][rows] = rotated(c["vx"][rows], c["vy"][rows], angles)
    return "drive-1", 10, 10


def in_unit(factor, *names, said):
    def plant(c):
        rows = c["recording"] == "drive-1"
        for name in names:
            c[name][rows] = c[name][rows] * factor
        return "drive-1", 10, 10

    plant.__name__ = said
    return plant


LENGTHS = ("x", "y", "vx", "vy", "length", "width")


def degrees_of_the_globe(c):
    rows = c["recording"] == "drive-1"
    c["x"][rows] = 8.4 + c["x"][rows] / 73_000
    c["y"][rows] = 49 + c["y"][rows] / 111_300
    return "drive-1", 10, 10


def half_sizes(c):
    return in_unit(0.5, "length", "width", said="")(c)


def one_track_at_another_rate(c):
    """A track at 5 Hz among others at 10 Hz, under their rate."""
    keep = np.ones(len(c["t"]), bool)
    keep[track(c, 3, 4)[1::2]] = False
    for name in c:
        c[name] = c[name][keep]
    return "drive-3", 1, 10


DEFECTS = {
    in_frame(lambda x, y, h: rotated(x, y, -h), "vehicle frame"): (
        "velocity-frame",
        "rotation by the heading",
    ),
    in_frame(lambda x, y, h: (x, -y), "vy reversed"): ("velocity-frame", "multiply vy by -1"),
    in_frame(lambda x, y, h: (-x, y), "vx reversed"): ("velocity-frame", "multiply vx by -1"),
    in_frame(lambda x, y, h: (y, x), "exchanged"): ("velocity-frame", "exchange vx and vy"),
    in_frame(lambda x, y, h: (3.6 * y, 3.6 * x), "exchanged, in km/h"): ("velocity-frame", "km/h"),
    in_frame(lambda x, y, h: (-rotated(x, y, -h)[1], rotated(x, y, -h)[0]), "across before along"): (
        "velocity-frame",
        "across and along the vehicle",
    ),
    in_frame(lambda x, y, h: (0 * x, 0 * y), "zero"): ("velocity-off-motion", "zero while the vehicles move"),
    velocity_astray: ("velocity-off-motion", "recompute"),
    in_unit(3.6, "vx", "vy", said="kmh"): ("velocity-scaled", "km/h: divide vx and vy by 3.6"),
    in_unit(2.237, "vx", "vy", said="mph"): ("velocity-scaled", "miles an hour"),
    in_unit(3.281, "x", "y", said="positions-in-feet"): ("velocity-scaled", "positions in feet"),
    in_unit(3.281, *LENGTHS, said="feet"): ("size-unit", "feet? Divide length and width by 3.281"),
    in_unit(100, "length", "width", said="sizes-in-cm"): ("size-unit", "centimetres?"),
    half_sizes: ("size-unit", "half the size?"),
    in_unit(14, "x", "y", "length", "width", said="pixels"): (
        "position-scale",
        "units are a metre (pixels?)",
    ),
    in_unit(100, *LENGTHS, said="centimetres"): ("position-scale", "centimetres"),
    in_unit(14, "x", "y", said="pixels-by-velocity"): ("position-scale", "by the velocities 14 units"),
    in_unit(1e-3, "x", "y", said="kilometres"): ("position-scale", "multiply x and y by 1000"),
    in_unit(1e-3, *LENGTHS, said="kilometres-throughout"): ("position-scale", "(kilometres)"),
    degrees_of_the_globe: ("position-degrees", "longitude and latitude"),
    heading_as(lambda h: h + 3 * np.pi, "half-a-turn-not-wrapped"): ("heading-against-motion", "add pi"),
    heading_as(lambda h: np.pi / 2 - h, "compass"): ("heading-against-motion", "take pi/2 - heading"),
    heading_as(lambda h: -h, "clockwise"): ("heading-against-motion", "multiply by -1"),
    heading_as(lambda h: h - np.pi / 2, "quarter-behind"): ("heading-against-motion", "add pi/2"),
    all_degrees: ("heading-degrees", "radians"),
    parked_beyond: ("heading-not-wrapped", "not wrapped"),
    one_track_at_another_rate: ("stated-rate", "set hz to 5"),
    reversed_velocity: ("velocity-reversed", "multiply vx and vy by -1"),
    scaled_velocity: ("velocity-scaled", "0.571 times"),
    missing_heading: ("heading-missing", "course"),
    degrees: ("heading-degrees", "radians"),
    backwards: ("heading-against-motion", "add pi"),
    astray: ("heading-against-motion", "course over ground"),
    gap: ("gap", "split"),
    jump: ("jump", "split"),
    spike: ("jump", "split"),
    jitter: ("jitter", "about 0.09 m"),
    duplicate: ("duplicate-track", "one key"),
    partial_duplicate: ("duplicate-track", "one key"),
    overlap: ("repeated-track", "overlap"),
    repeated_rows: ("repeated-time", "one row"),
    constant_size: ("constant-size", "assumes"),
    swapped_size: ("size-swapped", "exchange"),
    interpolated: ("interpolated", "2 Hz"),
    nan_points: ("not-finite", "drop"),
    one_point: ("one-point", "roster"),
    wrong_rate: ("stated-rate", "10"),
    ego_keys: ("repeated-ego-key", "drives/city/ego"),
    one_recording: ("key-in-one-recording", "identity = recording"),
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("plant", DEFECTS, ids=lambda plant: plant.__name__)
def test_a_planted_defect_is_found_and_nothing_else(plant, seed):
    columns = clean(seed=seed)
    recording, count, total = plant(columns)
    name, fix = DEFECTS[plant]
    (found,) = check([made(columns)])
    assert (found.name, found.recording, found.count, found.total) == (name, recording, count, total)
    assert (found.region, found.source) == ("EU", "drives")
    assert fix in found.fix


def test_defects_in_several_recordings_are_told_apart():
    columns = clean()
    for recording in (0, 2):
        columns["heading"][track(columns, recording, 1)[: 10 + recording]] = np.nan
    found = check([made(columns)])
    assert [(f.recording, f.count) for f in found] == [("drive-0", 10), ("drive-2", 12)]


def test_a_key_in_two_regions():
    here, there = clean("EU"), clean("US", seed=2)
    there["vehicle"] = np.where(there["vehicle"] == "drives/city/ego", "drives/boston/ego", there["vehicle"])
    assert check([made(here), made(there)]) == []
    there["vehicle"][there["vehicle"] == "drives/boston/ego"] = "drives/city/ego"
    (found,) = check([made(here), made(there)])
    keys = len(np.unique(here["vehicle"])) + len(np.unique(there["vehicle"]))
    assert (found.name, found.severity, found.region) == ("key-in-two-regions", "error", "EU, US")
    assert (found.recording, found.count, found.total) == (None, 1, keys)


def test_the_same_table_under_two_source_names_is_full_of_duplicates():
    here, again = clean(), clean()
    again["source"] = np.full(len(again["t"]), "other")
    again["vehicle"] = np.char.add("other/", again["vehicle"])
    found = check([made(here), made(again)])
    assert {f.name for f in found} == {"duplicate-track"}
    assert sum(f.count for f in found) == RECORDINGS * PER_RECORDING


def test_identity_decides_how_grave_keys_of_one_recording_are():
    columns = clean()
    one_recording(columns)
    grave = {
        identity: [f.severity for f in check([made(columns, identity=identity)])]
        for identity in ("physical", "recording")
    }
    assert grave == {"physical": ["warning"], "recording": ["note"]}
    assert check([made(columns, origin="synthetic")]) == [], "a simulated vehicle is met once"


def test_radians_that_leave_the_circle_are_no_degrees():
    columns = clean()
    rows = columns["recording"] == "drive-1"
    columns["heading"][rows] += 4 * np.pi
    (found,) = check([made(columns)])
    assert (found.name, found.severity, found.count) == ("heading-not-wrapped", "note", PER_RECORDING)


def test_rates_are_those_of_each_track():
    fast, slow = clean(hz=10.0), clean(hz=2.0, seed=7)
    slow["vehicle"] = np.char.add("slow/", slow["vehicle"])
    slow["vehicle"] = np.where(np.char.endswith(slow["vehicle"], "ego"), "drives/city/ego", slow["vehicle"])
    slow["recording"] = np.char.add("slow-", slow["recording"])
    assert check([made(joined(fast, slow))]) == []


def test_sizes_are_judged_where_a_recording_has_few_cars_or_none():
    columns = clean()
    for name in LENGTHS:
        columns[name] *= 3.281
    # One car left in each recording, the others lorries.
    columns["type"] = np.where(np.arange(len(columns["t"])) // SAMPLES % PER_RECORDING == 3, "car", "tractor")
    found = check([made(columns)])
    assert {(f.name, f.count, f.total) for f in found} == {("size-unit", 1, 1)}
    assert all("feet?" in f.fix for f in found)
    columns["type"] = np.full(len(columns["t"]), "tractor")
    found = check([made(columns)])
    assert {(f.name, f.count) for f in found} == {("size-unit", PER_RECORDING)}
    assert all("vehicles are" in f.fix and "feet?" in f.fix for f in found)


def test_headings_that_nothing_moves_to_prove_are_never_called_degrees():
    columns = clean()
    rows = columns["recording"] == "drive-1"
    for name in ("x", "y", "vx", "vy"):
        still = [np.full(SAMPLES, columns[name][track(columns, 1, slot)[0]]) for slot in range(PER_RECORDING)]
        columns[name][rows] = np.concatenate(still) if name in ("x", "y") else 0.0
    columns["heading"][rows] = 270.0
    (found,) = check([made(columns)])
    assert (found.name, found.severity) == ("heading-not-wrapped", "note")
    assert "or degrees" in found.fix


def test_a_heading_in_degrees_of_some_tracks_is_theirs_alone():
    columns = clean()
    for slot in (1, 4, 6):
        rows = track(columns, 2, slot)
        columns["heading"][rows] = np.degrees(columns["heading"][rows] % (2 * np.pi))
    (found,) = check([made(columns)])
    assert (found.name, found.count, found.total) == ("heading-degrees", 3, 10)


@pytest.mark.parametrize("heading", [np.degrees, lambda h: h + np.pi, lambda h: h * np.nan])
def test_velocities_along_the_vehicle_are_named_whatever_the_headings(heading):
    c = clean()
    c["vx"], c["vy"] = rotated(c["vx"], c["vy"], -c["heading"])
    c["heading"] = heading(c["heading"])
    found = {one.name: one for one in check([made(c)])}
    assert "velocity-off-motion" not in found
    assert "rotate them by the direction of travel" in found["velocity-frame"].fix


def test_jumps_say_nothing_of_headings():
    c = clean(hz=10.0)
    c["x"] = c["x"] + 30 * np.floor(c["t"] / 0.5)
    names = {one.name for one in check([made(c)])}
    assert "jump" in names
    assert not {name for name in names if name.startswith("heading")}


def test_frames_taken_for_milliseconds_are_suspected():
    c = clean(hz=10.0)
    c["t"], c["hz"] = c["t"] / 100, c["hz"] * 100
    (found,) = {one.fix for one in check([made(c)]) if one.name == "position-scale"}
    assert "were frames taken for ms?" in found


def test_standing_vehicles_are_no_defect():
    columns = clean()
    rows = track(columns, 1, 2)
    for name in ("x", "y", "vx", "vy", "heading"):
        columns[name][rows] = columns[name][rows[0]] if name in ("x", "y", "heading") else 0.0
    columns["x"][rows] += np.random.default_rng(0).normal(0, 0.02, SAMPLES)
    assert check([made(columns)]) == []


def test_rows_may_come_in_any_order():
    columns = clean()
    scaled_velocity(columns)
    order = np.random.default_rng(0).permutation(len(columns["t"]))
    assert check([made(columns)]) == check([made({name: values[order] for name, values in columns.items()})])


@pytest.mark.slow
def test_some_recordings_at_a_time_from_a_file_give_what_all_together_give(tmp_path, monkeypatch):
    whole = {}
    for number, plant in enumerate(DEFECTS):
        columns = clean()
        plant(columns)
        columns["recording"] = np.char.add(columns["recording"], f"-{number}")
        columns["source"] = np.char.add(columns["source"], str(number % 5))
        whole = joined(whole, columns) if whole else columns
    order = np.random.default_rng(0).permutation(len(whole["t"]))
    drives = made({name: values[order] for name, values in whole.items()})
    monkeypatch.setattr(check_module, "PART", len(order))
    expected = check([drives])
    assert len({one.name for one in expected}) > 20
    table.write(drives, tmp_path / "a.parquet")
    monkeypatch.setattr(check_module, "PART", 3000)
    monkeypatch.setattr(stored, "PIECE", 5000)
    assert check(stored.stored(tmp_path, table.SCHEMA)) == expected


def test_findings_are_plain_values_the_gravest_first():
    columns = clean()
    for plant in (missing_heading, jitter, duplicate):
        plant(columns)
    found = check([made(columns)])
    assert [f.severity for f in found] == ["error", "warning", "note"]
    assert all(isinstance(f, Finding) and isinstance(f.count, int) for f in found)


@pytest.mark.parametrize("seed", range(20))
def test_the_median_of_each_group_is_that_of_a_loop(seed):
    draw = np.random.default_rng(seed)
    group = draw.integers(0, 9, 200)
    values = np.round(draw.normal(0, 10.0 ** draw.integers(-3, 6), 200), 2) * draw.choice([0, 1, 1], 200)
    values[draw.random(200) < 0.1] = draw.choice([np.nan, np.inf, -np.inf])
    expected = [np.sort(values[group == g])[(np.sum(group == g) - 1) // 2] for g in range(9)] + [np.nan]
    found = grouped_median(values, group, 10)
    assert found == pytest.approx(expected, rel=1e-6, nan_ok=True)


@pytest.mark.slow
def test_many_rows_take_seconds():
    """Of the processor: a quarter of a million rows, on which anything quadratic would take far longer."""
    whole = made(clean(recordings=210))
    assert whole.rows.num_rows > 250_000
    begin = time.process_time()
    assert check([whole]) == []
    assert time.process_time() - begin < 30


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real recordings are not on this machine")
def test_the_real_recordings():
    found = check(table.read(SHARED))
    by_source = {(f.region, f.source, f.name) for f in found}
    for name in ("gap", "jitter", "jump", "heading-missing"):
        assert ("CN", "apolloscape", name) in by_source
    assert sum(f.count for f in found if f.name == "heading-missing") == 9028
    assert ("EU", "taf-bw", "constant-size") in by_source
    noisy = [f.recording for f in found if f.region == "EU" and f.name == "jitter"]
    assert noisy == ["k733_2018-05-02_000", "k733_2020-09-15_000"]
    for region in ("SG", "US"):
        mine = [f for f in found if (f.region, f.source) == (region, "nuscenes-mini")]
        linear = [f for f in mine if f.name == "interpolated"]
        assert len(linear) == {"SG": 6, "US": 4}[region]
        assert all("2 Hz" in f.fix for f in linear)
        assert any(f.name == "repeated-ego-key" for f in mine)
        assert sum(f.count for f in mine if f.name == "size-swapped") >= len(linear), "the recording car's"
    # What would be a false alarm: good recordings that are called bad.
    ngsim = [f for f in found if f.source == "ngsim-commonroad"]
    assert {f.name for f in ngsim} == {"heading-against-motion", "jitter", "one-point", "velocity-scaled"}
    assert sum(f.count for f in ngsim) <= 10, "of 2,651 tracks"
    silent = {"velocity-reversed", "heading-degrees", "duplicate-track", "stated-rate", "key-in-two-regions"}
    assert not silent & {f.name for f in found}


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real recordings are not on this machine")
def test_velocities_of_the_real_recordings_turned_and_scaled():
    (original,) = table.read(SHARED / "EU_taf-bw.parquet")
    columns = {
        name: original.rows[name].to_numpy(zero_copy_only=False).copy() for name in original.rows.column_names
    }
    for recording, factor in (("k733_2018-05-02_000", -1), ("k733_2020-09-15_000", 1 / 1.75)):
        rows = columns["recording"] == recording
        for name in ("vx", "vy"):
            columns[name][rows] *= factor
    found = {f.name: f for f in check([made(columns, identity="recording")]) if f.name.startswith("velocity")}
    assert {name: f.recording for name, f in found.items()} == {
        "velocity-reversed": "k733_2018-05-02_000",
        "velocity-scaled": "k733_2020-09-15_000",
    }
    assert all(f.count == f.total for f in found.values())
    assert "0.57" in found["velocity-scaled"].fix
