"""Small made-up recordings with one defect each, for the pictures of ``docs/data``."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from fedfsd.drive import table
from fedfsd.drive.table import Table

Columns = dict[str, np.ndarray]
HZ, SAMPLES, CARS = 5.0, 60, 6
RECORDINGS = ("morning", "evening")
SHOWN = RECORDINGS[0]


def clean() -> Columns:
    """Two recordings of a bend, six cars in each, each met in both; one of them is the recording car."""
    draw = np.random.default_rng(3)
    sizes = draw.uniform((4.0, 1.7), (5.0, 2.0), (CARS, 2))
    parts = []
    for recording in RECORDINGS:
        for car in range(CARS):
            t = np.arange(SAMPLES) / HZ
            speed = 8 + 0.6 * car + 0.8 * np.sin(0.5 * t + car)
            way = np.cumsum(speed) / HZ
            angle = (-1) ** car * way / 90
            radius = 90 + 4.0 * (car - CARS / 2) + (40 if recording == RECORDINGS[1] else 0)
            x, y = radius * np.sin(angle), 90 - radius * np.cos(angle)
            vx, vy = np.gradient(x, t), np.gradient(y, t)
            parts.append(
                {
                    "recording": recording,
                    "vehicle": "car/ego" if car == 0 else f"car/{car}",
                    "t": t,
                    "x": x + draw.normal(0, 0.001, SAMPLES),
                    "y": y + draw.normal(0, 0.001, SAMPLES),
                    "vx": vx,
                    "vy": vy,
                    "heading": np.arctan2(vy, vx),
                    "length": sizes[car, 0],
                    "width": sizes[car, 1],
                }
            )
    columns = {
        name: np.concatenate([np.broadcast_to(part[name], SAMPLES) for part in parts]) for name in parts[0]
    }
    same = {"region": "EU", "source": "drives", "type": "car", "city": "", "hz": HZ}
    return columns | {name: np.full(len(columns["t"]), value) for name, value in same.items()}


def car(columns: Columns, number: int, recording: str = SHOWN) -> np.ndarray:
    """The rows of one car."""
    key = "car/ego" if number == 0 else f"car/{number}"
    return np.flatnonzero((columns["vehicle"] == key) & (columns["recording"] == recording))


def only(columns: Columns, recording: str = SHOWN) -> np.ndarray:
    """The rows of one recording."""
    return columns["recording"] == recording


def made(columns: Columns) -> Table:
    """As a table."""
    return table.of_rows(dict(columns), licence="CC0-1.0", identity="physical", origin="recorded")


def _kept(columns: Columns, keep: np.ndarray) -> None:
    for name in columns:
        columns[name] = columns[name][keep]


def _added(columns: Columns, rows: np.ndarray, **changes: object) -> None:
    for name, values in list(columns.items()):
        more = np.full(len(rows), changes[name]) if name in changes else values[rows]
        columns[name] = np.concatenate([values, more])


def _rotate(c: Columns, rows: np.ndarray, by: np.ndarray | float) -> None:
    vx, vy = c["vx"][rows].copy(), c["vy"][rows].copy()
    c["vx"][rows], c["vy"][rows] = (
        np.cos(by) * vx - np.sin(by) * vy,
        np.sin(by) * vx + np.cos(by) * vy,
    )


def velocity_frame(c: Columns) -> None:
    """Along and across the vehicle instead of along x and y."""
    rows = only(c)
    _rotate(c, rows, -c["heading"][rows])


def velocity_reversed(c: Columns) -> None:
    for number in (1, 2, 3):
        for name in ("vx", "vy"):
            c[name][car(c, number)] *= -1


def velocity_off_motion(c: Columns) -> None:
    for number, by in enumerate((0.9, 1.5, -1.2, 2.0, -1.8, 1.3)):
        _rotate(c, car(c, number), by)


def velocity_scaled(c: Columns) -> None:
    for name in ("vx", "vy"):
        c[name][only(c)] *= 3.6


def heading_missing(c: Columns) -> None:
    for number in (1, 2):
        c["heading"][car(c, number)] = np.nan


def heading_degrees(c: Columns) -> None:
    c["heading"][only(c)] = np.degrees(c["heading"][only(c)])


def heading_not_wrapped(c: Columns) -> None:
    c["heading"][only(c)] += 4 * np.pi


def heading_against_motion(c: Columns) -> None:
    c["heading"][only(c)] += np.pi / 2


def not_finite(c: Columns) -> None:
    c["x"][car(c, 2)[20:26]] = np.nan


def one_point(c: Columns) -> None:
    keep = np.ones(len(c["t"]), bool)
    keep[np.delete(car(c, 3), 30)] = False
    _kept(c, keep)


def repeated_time(c: Columns) -> None:
    rows = car(c, 2)[20:30]
    _added(c, rows, x=c["x"][rows] + 0.4)


def stated_rate(c: Columns) -> None:
    c["hz"][only(c)] = 20.0


def gap(c: Columns) -> None:
    keep = np.ones(len(c["t"]), bool)
    keep[car(c, 2)[24:36]] = False
    _kept(c, keep)


def jump(c: Columns) -> None:
    c["y"][car(c, 2)[30:]] += 14.0


def jitter(c: Columns) -> None:
    draw = np.random.default_rng(5)
    for name in ("x", "y"):
        for number in (2, 3):
            c[name][car(c, number)] += draw.normal(0, 0.5, SAMPLES)


def interpolated(c: Columns) -> None:
    key = np.arange(0, SAMPLES, 5)
    for number in range(CARS):
        rows = car(c, number)
        for name in ("x", "y"):
            c[name][rows] = np.interp(np.arange(SAMPLES), key, c[name][rows][key])


def duplicate_track(c: Columns) -> None:
    _added(c, car(c, 2), vehicle="car/2-again")


def repeated_track(c: Columns) -> None:
    rows = car(c, 2)
    _added(c, rows, recording=RECORDINGS[1], t=c["t"][rows] + 20.0)


def position_degrees(c: Columns) -> None:
    for name, start, metres in (("x", 8.4, 73_000), ("y", 49.0, 111_300)):
        c[name][only(c)] = start + c[name][only(c)] / metres


def position_scale(c: Columns) -> None:
    for name in ("x", "y", "length", "width"):
        c[name][only(c)] *= 14


def size_unit(c: Columns) -> None:
    for name in ("length", "width"):
        c[name][only(c)] *= 3.281


def constant_size(c: Columns) -> None:
    c["length"][only(c)], c["width"][only(c)] = 4.5, 1.8


def size_swapped(c: Columns) -> None:
    for number in (1, 2):
        rows = car(c, number)
        c["length"][rows], c["width"][rows] = c["width"][rows].copy(), c["length"][rows].copy()


def no_window(c: Columns) -> None:
    """One frame a second: every step is a gap."""
    _kept(c, c["t"] % 1.0 < 0.01)
    c["hz"][:] = 1.0


def repeated_ego_key(c: Columns) -> None:
    for recording in RECORDINGS:
        rows = car(c, 0, recording)
        c["vehicle"] = c["vehicle"].astype("U32")
        c["vehicle"][rows] = f"{recording}/ego"


def key_in_one_recording(c: Columns) -> None:
    others = c["vehicle"] != "car/ego"
    c["vehicle"] = np.where(others, np.char.add(np.char.add(c["recording"], "/"), c["vehicle"]), c["vehicle"])


def key_in_two_regions(c: Columns) -> None:
    c["region"] = np.where(only(c), "EU", "US")
    own = c["vehicle"] != "car/2"
    c["vehicle"] = np.where(own, np.char.add(c["region"], np.char.add("/", c["vehicle"])), c["vehicle"])


PLANTED: dict[str, Callable[[Columns], None]] = {
    plant.__name__.replace("_", "-"): plant
    for plant in (
        velocity_frame,
        velocity_reversed,
        velocity_off_motion,
        velocity_scaled,
        heading_missing,
        heading_degrees,
        heading_not_wrapped,
        heading_against_motion,
        not_finite,
        one_point,
        repeated_time,
        stated_rate,
        gap,
        jump,
        jitter,
        interpolated,
        duplicate_track,
        repeated_track,
        position_degrees,
        position_scale,
        size_unit,
        constant_size,
        size_swapped,
        no_window,
        repeated_ego_key,
        key_in_one_recording,
        key_in_two_regions,
    )
}
"""What puts each defect into clean recordings; those of a file's cells are in ``drawing``."""


def planted(name: str) -> Columns:
    """The recordings with one defect."""
    columns = {key: values.copy() for key, values in clean().items()}
    PLANTED[name](columns)
    return columns
