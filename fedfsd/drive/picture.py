"""A picture of the drives: for each region its densest recordings, seen from above."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fedfsd.canvas import COLOURS, INK, RULE, style
from fedfsd.drive.check.track import Tracks, tracks
from fedfsd.drive.table import Table, in_region
from fedfsd.errors import DataError, UsageError
from fedfsd.plain_text import plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3  # recordings of a region
ROWS = 8  # regions; more are a wall, and the heading says how many are left out
WIDTH, HEIGHT = 4.2, 3.0  # a panel, inches
TRAINING, TEST, STANDING = *COLOURS[:2], "#9aa1ab"
MOVED_M = 5.0
POINTS_PER_SECOND = 4
STYLE = {"font.size": 9, "axes.spines.top": True, "axes.spines.right": True, "axes.titleweight": "normal"}


@dataclass(frozen=True)
class _Scene:
    """The tracks of one recording to draw: lines of (points, 2) m, and which vehicles test."""

    name: str
    lines: list[np.ndarray]
    test: np.ndarray  # (lines,) bool
    standing: np.ndarray  # (vehicles, 2) m


def draw(tables: Sequence[Table], path: str | Path) -> None:
    """Draw the tracks of each region into ``path`` (.svg or .png), which appears only when complete.

    A row for each region with its counts and what its tables declare; in it a panel for each of its
    recordings with most moving vehicles, from as many cities as there are. Equal axes with a bar
    for scale, training and test vehicles in two colours, a dot where a vehicle was last seen. The
    same tables give the same bytes.

    Raises:
        DataError: no rows.
        NotReadyError: matplotlib is not installed.
        UsageError: another suffix.
    """
    path = Path(path)
    kind = path.suffix.lower().removeprefix(".")
    if kind not in ("svg", "png"):
        raise UsageError(str(path), got=path.suffix or "no suffix", expected=".svg or .png", hint="rename it")
    regions = sorted({region for table in tables for region in table.regions})
    if not regions:
        raise DataError("tables", got="no rows", expected="at least one track", hint="check data.path")
    shown = regions[:ROWS]
    part = path.with_name(path.name + ".part")
    with style(STYLE) as figure_of:
        figure = figure_of(COLUMNS * WIDTH, len(shown) * (HEIGHT + 0.45) + 0.7, "")
        rest = f", {len(regions) - len(shown)} more not shown" if len(regions) > len(shown) else ""
        figure.suptitle(f"Drives of {len(regions)} region{'s' * (len(regions) > 1)}{rest}", weight="bold")
        _legend(figure)
        bands = figure.subfigures(len(shown), 1, squeeze=False)[:, 0]
        for band, region in zip(bands, shown, strict=True):
            mine = in_region(tables, region)
            band.suptitle(_heading(region, mine), x=0.01, ha="left", size=9)
            panels = band.subplots(1, COLUMNS)
            scenes = _densest(mine)
            for axes, scene in zip(panels, [*scenes, *[None] * (COLUMNS - len(scenes))], strict=True):
                _panel(axes, scene)
        metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {"Software": None}
        figure.savefig(part, format=kind, dpi=110, metadata=metadata)
    part.replace(path)


def _heading(region: str, tables: Sequence[Table]) -> str:
    """Region, counts, and what the tables declare."""
    vehicles = {key: bool(test) for t in tables for key, test in zip(t.text("vehicle"), t.test, strict=True)}
    recordings = {pair for t in tables for pair in zip(t.text("source"), t.text("recording"), strict=True)}
    facts = [
        f"{region}: {len(vehicles):,} vehicles ({sum(vehicles.values()):,} to test) "
        f"in {len(recordings):,} recording{'s' * (len(recordings) != 1)}"
    ]
    for name in ("licence", "identity", "origin"):
        facts.append(f"{name} {' / '.join(sorted({getattr(table, name) for table in tables}))}")
    return plain("  ·  ".join(facts), limit=150)


def _densest(tables: Sequence[Table]) -> list[_Scene]:
    """The recordings with most moving vehicles; the best of each source and city come first."""
    found = tracks(tables)
    if not len(found.size):
        return []
    low, high = (
        np.stack([f.reduceat(found.number[axis], found.start[:-1]) for axis in ("x", "y")], axis=1)
        for f in (np.minimum, np.maximum)
    )
    moving = np.hypot(*(high - low).T) > MOVED_M
    counts = found.by_place(moving)
    order = sorted(range(len(counts)), key=lambda place: (-counts[place], place))
    rank = [0] * len(order)  # how many denser recordings the same city has
    taken: Counter[tuple[str, str]] = Counter()
    for place in order:
        where = (found.places[place].source, found.places[place].city)
        rank[place] = taken[where]
        taken[where] += 1
    order.sort(key=lambda place: (rank[place], -counts[place]))
    testing = {key for table in tables for key in np.unique(table.text("vehicle")[table.test])}
    return [
        _scene(found, place, moving, testing) for place in order[:COLUMNS] if (found.place == place).any()
    ]


def _scene(found: Tracks, place: int, moving: np.ndarray, testing: set[str]) -> _Scene:
    lines, test, standing = [], [], []
    for track in np.flatnonzero(found.place == place):
        rows = np.arange(found.start[track], found.start[track + 1])
        points = np.stack([found.number["x"][rows], found.number["y"][rows]], axis=1)
        if not moving[track]:
            standing.append(points[len(points) // 2])
            continue
        step = max(1, round(1 / (POINTS_PER_SECOND * found.period[track])))
        for run in np.split(points, np.flatnonzero(found.gap[rows])):
            if len(run):
                lines.append(np.concatenate([run[:-1:step], run[-1:]]))
                test.append(found.vehicles[found.vehicle[track]] in testing)
    where = found.places[place]
    name = "  ·  ".join(filter(None, (where.city or where.source, where.recording)))
    return _Scene(name, lines, np.array(test, bool), np.array(standing, float).reshape(-1, 2))


def _panel(axes: Axes, scene: _Scene | None) -> None:
    from matplotlib.collections import LineCollection

    if scene is None:
        axes.set_axis_off()
        return
    axes.set_title(plain(scene.name, limit=60), loc="left", size=8, color=INK)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(RULE)
    axes.plot(*scene.standing.T, ".", color=STANDING, markersize=2.5, zorder=1)
    for testing, colour, width in ((False, TRAINING, 1.0), (True, TEST, 1.0)):
        lines = [line for line, test in zip(scene.lines, scene.test, strict=True) if test == testing]
        axes.add_collection(
            LineCollection(lines, colors=colour, linewidths=width, alpha=0.75, zorder=2 + testing),
            autolim=False,
        )
        ends = np.array([line[-1] for line in lines]).reshape(-1, 2)
        axes.plot(*ends.T, "o", color=colour, markersize=2.2, markeredgewidth=0, zorder=4)
    centre, half = _frame(np.concatenate([*scene.lines, scene.standing]))
    axes.set_aspect("equal", adjustable="box")
    axes.set_xlim(centre[0] - half * WIDTH / HEIGHT, centre[0] + half * WIDTH / HEIGHT)
    axes.set_ylim(centre[1] - half, centre[1] + half)
    _scale(axes, 2 * half * WIDTH / HEIGHT)


def _frame(points: np.ndarray) -> tuple[np.ndarray, float]:
    """Centre and half height of a view that holds all but the farthest hundredth of the points."""
    low, high = np.percentile(points, (0.5, 99.5), axis=0)
    width, height = high - low
    return (low + high) / 2, max(height, width * HEIGHT / WIDTH, 10.0) / 2 * 1.12


def _scale(axes: Axes, width: float) -> None:
    """A bar of a round length, about a fifth of the panel."""
    power = 10 ** np.floor(np.log10(width / 5))
    length = max(factor * power for factor in (1, 2, 5) if factor * power <= width / 5)
    share = length / width
    axes.plot([0.03, 0.03 + share], [0.05, 0.05], color=INK, linewidth=2, transform=axes.transAxes, zorder=5)
    axes.text(
        0.03, 0.075, f"{length:g} m", size=8, transform=axes.transAxes, zorder=5,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 1},
    )  # fmt: skip


def _legend(figure: Figure) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [], [], color=TRAINING, marker="o", markersize=3, label="training vehicle, dot where last seen"
        ),
        Line2D([], [], color=TEST, marker="o", markersize=3, label="test vehicle"),
        Line2D([], [], color=STANDING, marker=".", linestyle="", label=f"moved less than {MOVED_M:g} m"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
