"""One picture a finding: on the left as it was recorded, on the right as it should be."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from experiments.findings import scene
from experiments.findings.scene import CARS, SHOWN, Columns, car, only
from fedfsd.canvas import COLOURS, FAINT, INK, RULE, as_svg, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RIGHT, WRONG = COLOURS[0], COLOURS[1]
EVERY = 12  # samples between two marks on a track
WIDTH = 9.0
Panel = Callable[["Axes", Columns], None]


@dataclass(frozen=True)
class Picture:
    """What is drawn of the defect, and of what should be there instead."""

    found: Panel
    wanted: Panel
    titles: tuple[str, str]
    height: float = 3.4  # inches


def draw(name: str) -> str:
    """The picture of a finding as SVG."""
    picture = PICTURES[name]
    before = scene.planted(name) if name in scene.PLANTED else scene.clean()
    with style({"font.size": 9, "axes.titlesize": 10}) as figure_of:
        figure = figure_of(WIDTH, picture.height, "")
        for place, (panel, columns, title) in enumerate(
            zip((picture.found, picture.wanted), (before, scene.clean()), picture.titles, strict=True), 1
        ):
            axes = figure.add_subplot(1, 2, place)
            axes.set_title(title, color=(WRONG, RIGHT)[place - 1])
            panel(axes, columns)
        return as_svg(figure)


def _rows(columns: Columns) -> list[np.ndarray]:
    """The rows of each vehicle of the recording that is shown."""
    keys = list(dict.fromkeys(columns["vehicle"][only(columns)]))
    return [np.flatnonzero(only(columns) & (columns["vehicle"] == key)) for key in keys]


def _from_above(axes: Axes, columns: Columns, unit: str = "m") -> None:
    for rows in _rows(columns):
        axes.plot(columns["x"][rows], columns["y"][rows], color=RULE, linewidth=1, zorder=1)
    axes.set_aspect("equal", adjustable="datalim")
    axes.ticklabel_format(useOffset=False)
    axes.locator_params(nbins=5)
    axes.set_xlabel(f"x ({unit})")
    axes.set_ylabel(f"y ({unit})")


def arrows(axes: Axes, columns: Columns, *, unit: str = "m") -> None:
    """Velocities on the tracks."""
    _from_above(axes, columns, unit)
    for number, rows in enumerate(_rows(columns)):
        at = rows[:: EVERY // 2]
        axes.quiver(
            columns["x"][at], columns["y"][at], columns["vx"][at], columns["vy"][at],
            angles="xy", scale_units="xy", scale=1.6, width=0.006,
            color=_colour(columns, number, "vx", "vy"), zorder=3,
        )  # fmt: skip


def noses(axes: Axes, columns: Columns) -> None:
    """Headings on the tracks: where they say that the vehicle's front is."""
    _from_above(axes, columns)
    for number, rows in enumerate(_rows(columns)):
        at = rows[:: EVERY // 2]
        known = np.isfinite(columns["heading"][at])
        turn = columns["heading"][at]
        axes.quiver(
            columns["x"][at], columns["y"][at], np.cos(turn), np.sin(turn),
            angles="xy", scale_units="xy", scale=0.16, width=0.006,
            color=_colour(columns, number, "heading"), zorder=3,
        )  # fmt: skip
        axes.plot(columns["x"][at[~known]], columns["y"][at[~known]], "x", color=WRONG, markersize=5)


def dots(axes: Axes, columns: Columns, *, unit: str = "m") -> None:
    """Positions, every one of them."""
    _from_above(axes, columns, unit)
    for number, rows in enumerate(_rows(columns)):
        colour = _colour(columns, number, "x", "y")
        size = 3.5 if len(rows) > 1 else 9
        axes.plot(columns["x"][rows], columns["y"][rows], ".", color=colour, markersize=size, zorder=2)


def boxes(axes: Axes, columns: Columns, *, unit: str = "m") -> None:
    """The vehicles in their size, once each."""
    from matplotlib.patches import Rectangle
    from matplotlib.transforms import Affine2D

    _from_above(axes, columns, unit)
    for number, rows in enumerate(_rows(columns)):
        at = rows[min(len(rows) - 1, 10 + 8 * (number // 2))]
        length, width = columns["length"][at], columns["width"][at]
        turn = Affine2D().rotate(columns["heading"][at]).translate(columns["x"][at], columns["y"][at])
        colour = _colour(columns, number, "x", "length")
        box = Rectangle(
            (-length / 2, -width / 2), length, width, facecolor=colour, alpha=0.85, edgecolor="none", zorder=3
        )
        box.set_transform(turn + axes.transData)
        axes.add_patch(box)


def near(panel: Panel, x: tuple[float, float], y: tuple[float, float]) -> Panel:
    """A part of what ``panel`` draws."""

    def one(axes: Axes, columns: Columns) -> None:
        panel(axes, columns)
        axes.set_aspect("equal", adjustable="box")
        axes.set_xlim(*x)
        axes.set_ylim(*y)

    return one


def way(number: int) -> Panel:
    """How far one car has come, over time; a break where its steps are more than one sample."""

    def one(axes: Axes, columns: Columns) -> None:
        rows = car(columns, number)
        rows = rows[np.argsort(columns["t"][rows], kind="stable")]
        t, x = columns["t"][rows], columns["x"][rows]
        for part in np.split(np.arange(len(t)), np.flatnonzero(np.diff(t) > 1.5 / scene.HZ) + 1):
            axes.plot(t[part], x[part], ".-", color=RIGHT, markersize=4, linewidth=0.8)
        late = np.flatnonzero(np.diff(t) > 1.5 / scene.HZ)
        for end in late:
            axes.axvspan(t[end], t[end + 1], color=WRONG, alpha=0.18)
        again = np.flatnonzero(np.diff(t) == 0) + 1
        axes.plot(t[again], x[again], "o", color=WRONG, markersize=5)
        axes.set_xlabel("t (s)")
        axes.set_ylabel("x (m)")
        axes.grid(axis="y")

    return one


def bends(number: int) -> Panel:
    """How much the way of one car bends from sample to sample."""

    def one(axes: Axes, columns: Columns) -> None:
        rows = car(columns, number)
        bent = np.hypot(*(np.diff(columns[name][rows], 2) for name in ("x", "y")))
        colour = _colour(columns, number, "x", "y")
        axes.vlines(columns["t"][rows][1:-1], 0, bent, color=colour)
        axes.set_ylim(0, 0.25)
        axes.set_xlabel("t (s)")
        axes.set_ylabel("bend at a sample (m)")
        axes.grid(axis="y")

    return one


def rate(stated: float) -> Panel:
    """The first samples of one car, and where a rate says that they are."""

    def one(axes: Axes, columns: Columns) -> None:
        t = columns["t"][car(columns, 2)][:8]
        axes.plot(t, np.ones(len(t)), "o", color=RIGHT, markersize=6)
        said = np.arange(0, 1.41, 1 / stated)
        axes.plot(said, np.zeros(len(said)), "|", color=WRONG if stated > scene.HZ else RIGHT, markersize=14)
        axes.set_yticks([1, 0], ["times in\nthe rows", f"hz = {stated:g}"])
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(-0.8, 1.8)
        axes.set_xlabel("t (s)")

    return one


Cells = tuple[Sequence[str], Sequence[Sequence[str]]]


def table(found: Cells, marked: set[tuple[int, int]], wanted: Cells, titles: tuple[str, str]) -> Picture:
    """A picture of some rows; ``marked``: the cells (row, column) in question."""
    rows = max(len(found[1]), len(wanted[1]))
    return Picture(
        _cells(*found, marked, rows), _cells(*wanted, set(), rows), titles, height=0.8 + 0.3 * rows
    )


def _cells(
    header: Sequence[str], rows: Sequence[Sequence[str]], marked: set[tuple[int, int]], most: int
) -> Panel:
    """Some rows of a table, of up to ``most``."""

    def one(axes: Axes, columns: Columns) -> None:
        del columns
        axes.set_axis_off()
        axes.set_xlim(0, len(header) + 0.15)
        axes.set_ylim(most + 0.6, -0.6)
        for column, text in enumerate(header):
            axes.text(column + 0.08, 0, text, color=FAINT, va="center")
        axes.plot([0, len(header)], [0.5, 0.5], color=RULE, linewidth=1)
        for row, texts in enumerate(rows):
            for column, text in enumerate(texts):
                hit = (row, column) in marked
                if hit:
                    axes.fill_between([column, column + 0.96], row + 0.6, row + 1.4, color=WRONG, alpha=0.22)
                axes.text(column + 0.08, row + 1, text, color=INK, va="center")

    return one


def _colour(columns: Columns, number: int, *names: str) -> str:
    """Orange for a car of which one of the columns is not as it was driven."""
    if number >= CARS:
        return WRONG
    rows, true = _rows(columns)[number], scene.clean()
    mine = true["recording"] == SHOWN
    there = true["vehicle"] == columns["vehicle"][rows[0]]
    for name in names:
        driven, shown = true[name][mine & there], columns[name][rows]
        if len(driven) != len(shown) or not np.array_equal(driven, shown):
            return WRONG
    return RIGHT


RECORDED, MEANT = "as recorded", "as it should be"
BOTH = (RECORDED, MEANT)


PICTURES: dict[str, Picture] = {
    "velocity-frame": Picture(arrows, arrows, ("vx, vy along and across the car", "along x and y")),
    "velocity-reversed": Picture(arrows, arrows, BOTH),
    "velocity-off-motion": Picture(arrows, arrows, BOTH),
    "velocity-scaled": Picture(arrows, arrows, ("in km/h: 3.6 times the motion", "in m/s")),
    "heading-missing": Picture(noses, noses, ("no heading", "the course over ground")),
    "heading-degrees": Picture(noses, noses, ("degrees, read as radians", "radians")),
    "heading-not-wrapped": table(
        (("t", "heading"), [("0.0", "12.76"), ("0.2", "12.78"), ("0.4", "12.80")]),
        {(0, 1), (1, 1), (2, 1)},
        (("t", "heading"), [("0.0", "0.19"), ("0.2", "0.21"), ("0.4", "0.23")]),
        ("two full turns more", "from -pi to pi"),
    ),
    "heading-against-motion": Picture(noses, noses, ("a quarter turn off", MEANT)),
    "not-finite": table(
        (
            ("t", "x", "y"),
            [
                ("4.0", "41.2", "10.1"),
                ("4.2", "nan", "10.9"),
                ("4.4", "nan", "11.8"),
                ("4.6", "46.3", "12.7"),
            ],
        ),
        {(1, 1), (2, 1)},
        (("t", "x", "y"), [("4.0", "41.2", "10.1"), ("4.6", "46.3", "12.7")]),
        BOTH,
    ),
    "one-point": Picture(dots, dots, ("one car seen once", "seen all along")),
    "repeated-time": Picture(way(2), way(2), ("two rows at one time", "one row for each time")),
    "stated-rate": Picture(rate(20.0), rate(5.0), BOTH),
    "gap": Picture(way(2), way(2), ("samples are missing", "none are")),
    "jump": Picture(dots, dots, BOTH),
    "jitter": Picture(
        near(dots, (20, 75), (-2, 42)), near(dots, (20, 75), (-2, 42)), ("positions scatter", "smoothed")
    ),
    "interpolated": Picture(bends(2), bends(2), ("straight lines between key frames", "measured everywhere")),
    "duplicate-track": table(
        (
            ("vehicle", "t", "x", "y"),
            [
                ("car/2", "1.0", "8.85", "0.43"),
                ("car/2", "1.2", "10.72", "0.64"),
                ("car/2-again", "1.0", "8.85", "0.43"),
                ("car/2-again", "1.2", "10.72", "0.64"),
            ],
        ),
        {(2, 0), (3, 0)},
        (("vehicle", "t", "x", "y"), [("car/2", "1.0", "8.85", "0.43"), ("car/2", "1.2", "10.72", "0.64")]),
        ("one drive under two keys", "one key"),
    ),
    "repeated-track": table(
        (
            ("recording", "vehicle", "x", "y"),
            [
                ("morning", "car/2", "8.85", "0.43"),
                ("morning", "car/2", "10.72", "0.64"),
                ("evening", "car/2", "8.85", "0.43"),
                ("evening", "car/2", "10.72", "0.64"),
            ],
        ),
        {(2, 0), (3, 0)},
        (
            ("recording", "vehicle", "x", "y"),
            [("morning", "car/2", "8.85", "0.43"), ("morning", "car/2", "10.72", "0.64")],
        ),
        ("one drive in two recordings", "once"),
    ),
    "position-degrees": Picture(
        lambda axes, c: dots(axes, c, unit="degrees"), dots, ("longitude and latitude", "metres")
    ),
    "position-scale": Picture(
        lambda axes, c: boxes(axes, c, unit="pixels"), boxes, ("pixels, 14 a metre", "metres")
    ),
    "size-unit": Picture(boxes, boxes, ("cars 14 long: feet?", "4.4 m")),
    "constant-size": table(
        (("vehicle", "length", "width"), [(f"car/{n}", "4.50", "1.80") for n in range(1, 5)]),
        {(n, c) for n in range(4) for c in (1, 2)},
        (
            ("vehicle", "length", "width"),
            [
                ("car/1", "4.21", "1.74"),
                ("car/2", "4.80", "1.91"),
                ("car/3", "4.47", "1.79"),
                ("car/4", "4.93", "1.98"),
            ],
        ),
        ("assumed for each type", "measured"),
    ),
    "size-swapped": Picture(
        near(boxes, (-45, 45), (-8, 32)), near(boxes, (-45, 45), (-8, 32)), ("wider than long", MEANT)
    ),
    "no-window": Picture(way(2), way(2), ("one frame a second: every step is a gap", "five frames a second")),
    "repeated-ego-key": table(
        (("recording", "vehicle"), [("morning", "morning/ego"), ("evening", "evening/ego")]),
        {(0, 1), (1, 1)},
        (("recording", "vehicle"), [("morning", "drives/EU/ego"), ("evening", "drives/EU/ego")]),
        ("the recording car, a key a drive", "one key"),
    ),
    "key-in-one-recording": table(
        (
            ("recording", "vehicle"),
            [("morning", "morning/car/1"), ("morning", "morning/car/2"), ("evening", "evening/car/1")],
        ),
        {(0, 1), (1, 1), (2, 1)},
        (("recording", "vehicle"), [("morning", "car/1"), ("morning", "car/2"), ("evening", "car/1")]),
        ("no key comes back", "a vehicle keeps its key"),
    ),
    "key-in-two-regions": table(
        (("region", "vehicle"), [("EU", "car/2"), ("EU", "EU/car/3"), ("US", "car/2")]),
        {(0, 1), (2, 1)},
        (("region", "vehicle"), [("EU", "EU/car/2"), ("EU", "EU/car/3"), ("US", "US/car/2")]),
        ("one key in two regions", "keys of two vehicles"),
    ),
    "no-key": table(
        (
            ("recording", "vehicle", "t"),
            [("morning", "car/1", "0.0"), ("morning", "", "0.0"), ("", "car/3", "0.0")],
        ),
        {(1, 1), (2, 0)},
        (
            ("recording", "vehicle", "t"),
            [("morning", "car/1", "0.0"), ("morning", "car/2", "0.0"), ("morning", "car/3", "0.0")],
        ),
        ("cells of the key are empty", "each row has its key"),
    ),
    "unfit-value": table(
        (("t", "x", "y"), [("0.0", "41.2", "10.1"), ("0.2", "N/A", "10.9"), ("0.4", "44,6", "11.8")]),
        {(1, 1), (2, 1)},
        (("t", "x", "y"), [("0.0", "41.2", "10.1"), ("0.2", "", "10.9"), ("0.4", "44.6", "11.8")]),
        ("text where a number belongs", "numbers, or nothing"),
    ),
    "coarse-time": table(
        (
            ("measured", "t as float32"),
            [("1700000000.0", "1700000000"), ("1700000000.1", "1700000000"), ("1700000000.2", "1700000000")],
        ),
        {(0, 1), (1, 1), (2, 1)},
        (
            ("measured", "t as float32"),
            [("1700000000.0", "0.0"), ("1700000000.1", "0.1"), ("1700000000.2", "0.2")],
        ),
        ("time of day or since 1970", "since the recording's start"),
    ),
    "both-sides": table(
        (
            ("vehicle", "recording", "test"),
            [("car/1", "morning", "false"), ("car/1", "evening", "true"), ("car/2", "morning", "true")],
        ),
        {(0, 2), (1, 2)},
        (
            ("vehicle", "recording", "test"),
            [("car/1", "morning", "false"), ("car/1", "evening", "false"), ("car/2", "morning", "true")],
        ),
        ("trained on and tested on", "one side for each vehicle"),
    ),
    "empty-table": table(
        (("recording", "vehicle", "t"), []),
        set(),
        (("recording", "vehicle", "t"), [("morning", "car/1", "0.0"), ("morning", "car/1", "0.2")]),
        ("no row", "at least one track"),
    ),
}
