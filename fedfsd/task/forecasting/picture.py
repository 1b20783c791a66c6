"""The forecasts of a few windows, beside the path driven and constant velocity.

Shapes: n windows, H history points, F future points, K paths.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from fedfsd.canvas import FAINT, INK, as_svg, note, style
from fedfsd.task.path import LINES, draw, upwards

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_LINES: dict[str, dict[str, Any]] = {
    **LINES,
    "the past": {"color": FAINT, "linewidth": 1.4, "marker": ".", "markersize": 5},
}


def paths(
    shown: Mapping[str, Mapping[str, np.ndarray]], colours: Mapping[str, str], *, heading: str = ""
) -> str:
    """Forecast, driven path and constant velocity for a few windows a region, driving upwards.

    ``shown`` has for each region history (n, H, 2), future (n, F, 2), paths (n, K, F, 2) and
    constant_velocity (n, F, 2), in metres, agent frame.
    """
    columns = max((min(6, len(arrays["future"])) for arrays in shown.values()), default=1)
    with style() as figure_of:
        figure = figure_of(10, 2.75 * max(1, len(shown)) + 0.3, "")
        for row, (name, arrays) in enumerate(shown.items()):
            parts = [arrays[part] for part in ("history", "future", "paths", "constant_velocity")]
            for column, window in enumerate(zip(*(part[:columns] for part in parts), strict=True)):
                axes = figure.add_subplot(len(shown), columns, row * columns + column + 1)
                _path_panel(axes, *window, colour=colours[name])
                if column == 0:
                    axes.set_title(name, pad=32, color=colours[name])
        _key(figure, heading)
        return as_svg(figure)


def _path_panel(
    axes: Axes,
    history: np.ndarray,
    future: np.ndarray,
    guesses: np.ndarray,
    simple: np.ndarray,
    *,
    colour: str,
) -> None:
    """One window, driving upwards, equal axes, a scale bar, and how far off both forecasts end."""
    beside = float(np.linalg.norm(simple[-1] - future[-1]))
    history, *others = (upwards(part) for part in (history, future, guesses, simple))
    axes.plot(*history.T, **_LINES["the past"])
    off = draw(axes, future, guesses, simple, colour=colour)
    note(axes, off, (0, 1), (0, 14), xycoords="axes fraction", color=INK)
    note(axes, f"c.v. {beside:.1f} m", (0, 1), (0, 2), xycoords="axes fraction")
    future, guesses, simple = others
    seen = np.concatenate([history[-3:], future, simple, guesses.reshape(-1, 2)])
    middle, (wide, high) = (seen.min(axis=0) + seen.max(axis=0)) / 2, np.ptp(seen, axis=0)
    half = 1.12 * max(high / 2, wide * 0.75, 4.0)
    left, bottom = middle[0] - half / 1.5, middle[1] - half
    axes.set(xlim=(left, middle[0] + half / 1.5), ylim=(bottom, middle[1] + half), aspect="equal")
    length = max(size for size in (1, 2, 5, 10, 20, 50) if size <= max(1.0, half * 0.7))
    axes.plot([left, left + length], [bottom, bottom], color=INK, linewidth=3, solid_capstyle="butt")
    note(axes, f"{length} m", (left, bottom), (2, 4))
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _key(figure: Figure, heading: str) -> None:
    """What the lines of the path panels mean, in one row above them."""
    from matplotlib.lines import Line2D

    lines = [Line2D([], [], **look) for look in _LINES.values()]
    figure.legend(
        lines,
        _LINES,
        ncols=4,
        loc="outside upper left",
        frameon=False,
        handlelength=1.6,
        title=heading or None,
        alignment="left",
    )
