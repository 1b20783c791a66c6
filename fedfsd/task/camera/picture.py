"""Frames of a few cars, and below each the paths from above.

Shapes: n frames, F points, K paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedfsd.canvas import INK, as_svg, note, style
from fedfsd.drive.table import Table, in_region
from fedfsd.errors import DataError
from fedfsd.plain_text import plain
from fedfsd.task.camera import drives
from fedfsd.task.path import draw as draw_paths

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHEET = 8  # frames of a region


def frames(
    shown: Mapping[str, Mapping[str, np.ndarray]], colours: Mapping[str, str], *, heading: str = ""
) -> str:
    """``shown`` has for each region image (n, 3, H, W) uint8, path (n, F, 2), paths (n, K, F, 2),
    straight_on (n, F, 2), in metres, in the car's axes."""
    columns = max((len(arrays["image"]) for arrays in shown.values()), default=1)
    with style() as figure_of:
        figure = figure_of(10, 2.9 * max(1, len(shown)) + 0.3, "")
        grid = figure.add_gridspec(
            2 * max(1, len(shown)), columns, height_ratios=[1, 1.35] * max(1, len(shown))
        )
        for row, (name, arrays) in enumerate(shown.items()):
            for column in range(len(arrays["image"])):
                top = figure.add_subplot(grid[2 * row, column])
                top.imshow(arrays["image"][column].transpose(1, 2, 0))
                top.set(xticks=[], yticks=[])
                top.spines[:].set_visible(False)
                if column == 0:
                    top.set_title(name, color=colours[name])
                below = figure.add_subplot(grid[2 * row + 1, column])
                mine = [arrays[key][column] for key in ("path", "paths", "straight_on")]
                _panel(below, *mine, colour=colours[name])
        if heading:
            figure.suptitle(heading)
        return as_svg(figure)


def draw(tables: Sequence[Table], path: Path) -> None:
    """A sheet of frames of each region with the path driven after each, as SVG or PNG.

    A region's cars are taken in key order, of each as many frames as fill the row, evenly over its drives.

    Raises:
        DataError: no frame has a path after it.
    """
    shown = {
        name: list(islice(_frames(in_region(tables, name)), _SHEET))
        for name in sorted({name for one in tables for name in one.regions})
    }
    if not any(shown.values()):
        raise DataError(
            ", ".join(one.name for one in tables),
            got="no frame to show",
            expected="frames that decode, with 3 s of path after them",
            hint="see what is wrong: fedfsd data check",
        )
    with style() as figure_of:
        figure = figure_of(12, 1.9 * len(shown) + 0.2, "")
        for row, (name, frames) in enumerate(shown.items()):
            for column, (image, way, speed) in enumerate(frames):
                axes = figure.add_subplot(2 * len(shown), _SHEET, 2 * row * _SHEET + column + 1)
                axes.imshow(image.transpose(1, 2, 0))
                below = figure.add_subplot(2 * len(shown), _SHEET, (2 * row + 1) * _SHEET + column + 1)
                below.plot([0.0, *-way[:, 1]], [0.0, *way[:, 0]], color=INK, linewidth=2.5)
                side = max(6.0, 1.15 * float(np.abs(way[:, 1]).max()))
                below.set(xlim=(-side, side))
                note(below, f"{speed:.0f} m/s", (0, 0), (2, 2), xycoords="axes fraction")
                for one in (axes, below):
                    one.set(xticks=[], yticks=[])
                    one.spines[:].set_visible(False)
                if column == 0:
                    axes.set_title(plain(name))
        if path.suffix == ".png":
            figure.savefig(path, dpi=120)
        else:
            path.write_text(as_svg(figure), encoding="utf-8")


def _frames(tables: Sequence[Table]) -> Iterator[tuple[np.ndarray, np.ndarray, float]]:
    """Frames with their paths and speeds, of each car a few; only these are decoded."""
    for one in tables:
        found = drives.followed(one.rows.drop_columns("image"), one.rows["image"].is_valid().to_numpy())
        vehicle = one.coded("vehicle")
        whose = vehicle.codes[found.rows]
        cars = sorted(np.unique(whose), key=lambda code: vehicle.names[code])
        for car in cars:
            mine = np.flatnonzero(whose == car)
            share = -(-_SHEET // len(cars))
            for frame in mine[np.unique(np.linspace(0, len(mine) - 1, share).astype(int))]:
                data = drives.picture(
                    one.rows["image"][int(found.rows[frame])].as_py(), Path(one.name).parent
                )
                if data is not None and (image := drives.decode(data)) is not None:
                    yield image, found.path[frame], float(found.speed[frame])


def _panel(axes: Axes, path: np.ndarray, paths: np.ndarray, straight: np.ndarray, *, colour: str) -> None:
    """One frame's paths from above, driving upwards, the side drawn wider than the way."""
    beside = float(np.linalg.norm(straight[-1] - path[-1]))
    off = draw_paths(axes, path, paths, straight, colour=colour)
    side = max(6.0, 1.15 * float(np.abs(np.concatenate([path, straight, *paths])[:, 1]).max()))
    axes.set(xlim=(-side, side), yticks=[], xticks=[-round(side / 2), 0, round(side / 2)])
    axes.set_xticklabels([f"{round(side / 2)} m", "", f"{round(side / 2)} m"])
    axes.spines[:].set_visible(False)
    note(axes, off, (0, 1), (0, 2), xycoords="axes fraction", color=INK)
    note(axes, f"straight {beside:.1f} m", (1, 1), (0, 2), xycoords="axes fraction", ha="right")
