"""The pictures of a run as SVG text: learning curves, privacy spent, forecasts, utility against epsilon.

The same values give the same bytes. ``themed`` turns a picture into one that follows the colours of the
page around it. Shapes as in ``driving.window``: n examples, K paths, H history points, F future points.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from fedfsd.errors import NotReadyError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart with any colour vision, and by lightness in print.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
PAPER, INK, FAINT, RULE = "#ffffff", "#1b1f24", "#6b7280", "#d5d9e0"
SHOWN = 12  # more panels than this are a wall
_FIRST = ("CN", "EU", "SG", "US")  # keep their colours in runs of fewer regions
_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "fedfsd",
    "font.family": ["DejaVu Sans"],
    "font.size": 11,
    "text.parse_math": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": RULE,
    "ytick.color": RULE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": FAINT,
    "figure.facecolor": PAPER,
    "axes.facecolor": PAPER,
    "savefig.facecolor": PAPER,
}

_DASHED: dict[str, Any] = {"linewidth": 1.4, "linestyle": (0, (4, 3))}
_START_ROOM = {1: 0.08, 2: 0.18, 3: 0.34}  # left of round 0, for the words beside it; by panels in a row
_START: dict[str, Any] = {"marker": "D", "markersize": 7, "markerfacecolor": PAPER, "zorder": 3}
_LINES: dict[str, dict[str, Any]] = {  # the markers stand where a path ends
    "the path driven": {
        "color": INK,
        "linewidth": 4.5,
        "alpha": 0.35,
        "solid_capstyle": "round",
        "marker": "o",
        "markersize": 8,
        "markevery": [-1],
    },
    "forecast, in the region's colour": {
        "color": INK,
        "linewidth": 2.2,
        "marker": "o",
        "markersize": 5,
        "markevery": [-1],
    },
    "constant velocity (c.v.)": {
        "color": FAINT,
        "linewidth": 1.6,
        "linestyle": (0, (2, 2)),
        "marker": "x",
        "markersize": 5,
        "markevery": [-1],
    },
    "the past": {"color": FAINT, "linewidth": 1.4, "marker": ".", "markersize": 5},
}


@dataclass(frozen=True)
class Point:
    """One setting in one region: FDE over seeds in metres; epsilon is None where nothing is promised."""

    epsilon: float | None
    fde_m: float
    deviation_m: float | None
    guaranteed: bool


def colours(regions: Sequence[str]) -> dict[str, str]:
    """One colour a region, the same in every picture."""
    ranked = [*_FIRST, *sorted(set(regions) - set(_FIRST))]
    return {name: COLOURS[ranked.index(name) % len(COLOURS)] for name in regions}


def learning(
    rounds: Sequence[Mapping[str, Any]], regions: Mapping[str, Mapping[str, Any]], *, heading: str = ""
) -> str:
    """FDE by round, a panel a region, beside constant velocity and the start.

    ``rounds`` are the lines of rounds.jsonl, ``regions`` those of metrics.json; ``heading`` is printed
    on the picture (a mode that protects nothing must say so wherever the picture goes).
    """
    with _style() as figure_of:
        names = list(regions)[:SHOWN]
        figure, panels = _grid(figure_of, names, 2.9, heading, ("round", "FDE, m"))
        last = max([1, *(line["round"] for line in rounds)])
        for name, axes in panels.items():
            mine = [(line["round"], line["regions"].get(name) or {}) for line in rounds]
            _learning_panel(axes, mine, regions[name].get("constant_velocity_fde_m"), colours(names)[name])
            axes.set_xlim(-_START_ROOM[_columns(names)] * last, 1.03 * last)
            axes.set_xticks(_whole(axes.get_xticks(), last))
        return _svg(figure)


def privacy(
    regions: Mapping[str, Mapping[str, Any]], targets: Mapping[str, float | None], *, heading: str = ""
) -> str:
    """Epsilon spent by round against the target; regions that spend alike share one line."""
    alike: dict[tuple[Any, ...], list[str]] = {}
    for name, region in regions.items():
        spent = tuple((int(n), round(float(e), 3)) for n, e in region.get("epsilon_by_round") or ())
        if spent:
            alike.setdefault((spent, targets.get(name)), []).append(name)
    lines = sorted(
        ((spent, target, names) for (spent, target), names in alike.items()), key=lambda x: x[0][-1][1]
    )
    with _style() as figure_of:
        figure = figure_of(10, 3.4, heading)
        axes = figure.add_subplot()
        for height, (spent, target, names) in zip(_apart([x[0][-1][1] for x in lines]), lines, strict=True):
            colour = colours(list(regions))[names[0]] if len(names) == 1 else INK
            steps, values = zip((0, 0.0), *spent, strict=True)
            axes.plot(steps, values, color=colour, linewidth=2.2, marker="o", markersize=4, clip_on=False)
            if target is not None:
                axes.axhline(target, color=colour, **_DASHED)
                _note(axes, f"target {target:g}", (0, target), (4, 4))
            _note(axes, _listed(names), (steps[-1], height), (12, -4), color=colour)
        axes.set(xlabel="round", ylabel="epsilon spent")
        axes.set_ylim(bottom=0, top=axes.get_ylim()[1] * 1.06)
        axes.margins(x=0)
        axes.set_xticks(_whole(axes.get_xticks(), axes.get_xlim()[1]))
        axes.grid(axis="y")
        return _svg(figure)


def paths(examples: Mapping[str, np.ndarray], names: Sequence[str], *, heading: str = "") -> str:
    """Forecast, driven path and constant velocity for a few test windows a region, driving upwards.

    ``examples`` is examples.npz: for region R, R_history (n, H, 2), R_future (n, F, 2),
    R_paths (n, K, F, 2) and R_constant_velocity (n, F, 2), in metres, agent frame.
    """
    shown = [name for name in names if f"{name}_future" in examples][:SHOWN]
    columns = max((min(6, len(examples[f"{name}_future"])) for name in shown), default=1)
    with _style() as figure_of:
        figure = figure_of(10, 2.75 * max(1, len(shown)) + 0.3, "")
        for row, name in enumerate(shown):
            colour = colours(names)[name]
            arrays = [
                examples[f"{name}_{part}"] for part in ("history", "future", "paths", "constant_velocity")
            ]
            for column, window in enumerate(zip(*(array[:columns] for array in arrays), strict=True)):
                axes = figure.add_subplot(len(shown), columns, row * columns + column + 1)
                _path_panel(axes, *window, colour=colour)
                if column == 0:
                    axes.set_title(name, pad=32, color=colour)
        _key(figure, heading)
        return _svg(figure)


def utility(
    points: Mapping[str, Sequence[Point]], constant_velocity: Mapping[str, float], start: Mapping[str, float]
) -> str:
    """FDE against epsilon, a panel a region; hollow points carry no guarantee."""
    names = list(points)[:SHOWN]
    spent = [point.epsilon for name in names for point in points[name] if point.epsilon is not None]
    ticks = sorted({_rounded(epsilon) for epsilon in spent})
    low, high = (float(np.log2(ticks[0])), float(np.log2(ticks[-1]))) if ticks else (0.0, 0.0)
    with _style() as figure_of:
        figure, panels = _grid(figure_of, names, 3.1, "", ("epsilon", "FDE, m"))
        for name, axes in panels.items():
            colour = colours(names)[name]
            for point in points[name]:
                axes.errorbar(
                    high + 1.2 if point.epsilon is None else np.log2(point.epsilon),
                    point.fde_m,
                    yerr=point.deviation_m,
                    color=colour,
                    **_START | {"marker": "o", "markerfacecolor": colour if point.guaranteed else PAPER},
                    capsize=3,
                )
            curve = sorted(
                (p.epsilon, p.fde_m) for p in points[name] if p.epsilon is not None and p.guaranteed
            )
            if len({_rounded(epsilon) for epsilon, _ in curve}) == len(curve):  # else several lines in one
                axes.plot(np.log2([epsilon for epsilon, _ in curve]), [fde for _, fde in curve], color=colour)
            if name in start:
                axes.plot(low - 1.2, start[name], **_START, color=colour)
            if name in constant_velocity:
                _constant_velocity(axes, constant_velocity[name], colour)
            axes.set_xticks(
                [low - 1.2, *np.log2(ticks), high + 1.2],
                ["start\nε = 0", *(f"{tick:g}" for tick in ticks), "not\nprivate"],
            )
            axes.set_xlim(low - 1.8, high + 1.8)
            axes.margins(y=0.18)
        return _svg(figure)


def themed(svg: str, name: str) -> str:
    """``svg`` for use inside a page: colours and type of the page's CSS, ids of its own, no header."""
    svg = svg[svg.index("<svg ") :]
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"'DejaVu Sans'", "var(--sans)", svg)
    roles = {PAPER: "paper", INK: "ink", FAINT: "faint", RULE: "rule"}
    for colour, role in roles.items() | {(c, f"series-{i}") for i, c in enumerate(COLOURS)}:
        svg = svg.replace(colour, f"var(--{role})")
    return svg


def _grid(
    figure_of: Callable[[float, float, str], Figure],
    names: Sequence[str],
    height: float,
    heading: str,
    labels: tuple[str, str],
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with one titled panel a region, two or three in a row; only the outer ones are labelled."""
    columns = _columns(names)
    rows = max(1, -(-len(names) // columns))
    figure = figure_of(10, height * rows + 0.3, heading)
    panels = {name: figure.add_subplot(rows, columns, index + 1) for index, name in enumerate(names)}
    for index, (name, axes) in enumerate(panels.items()):
        axes.set_title(name, color=colours(names)[name])
        axes.set_xlabel(labels[0] if index >= len(names) - columns else "")
        axes.set_ylabel(labels[1] if index % columns == 0 else "")
        axes.grid(axis="y")
    return figure, panels


def _columns(names: Sequence[str]) -> int:
    return 2 if len(names) in (2, 4) else min(3, max(1, len(names)))


def _whole(ticks: Sequence[float], last: float) -> list[float]:
    """Those of ``ticks`` that are rounds."""
    return [tick for tick in ticks if 0 <= tick <= last and tick % 1 == 0]


def _learning_panel(
    axes: Axes, mine: Sequence[tuple[int, Mapping[str, Any]]], simple: float | None, colour: str
) -> None:
    """One region's curve with its end, its start and the rounds it missed."""
    curve = [(number, one["fde_m"]) for number, one in mine if one.get("fde_m") is not None]
    if simple is not None:
        _constant_velocity(axes, simple, colour)
    if curve:
        (first, start), (last, end) = curve[0], curve[-1]
        axes.plot(*zip(*curve, strict=True), color=colour, linewidth=2.2)
        axes.plot(last, end, "o", color=colour, markersize=6)
        _note(axes, f"{end:.2f} m", (last, end), (8, -4), weight="bold", color=INK)
        if first == 0:
            axes.plot(0, start, **_START, color=colour)
            _note(axes, f"start\n{start:.2f}", (0, start), (-9, 0), ha="right", va="center")
    else:
        _note(axes, "no test vehicle here", (0.5, 0.5), (0, 0), xycoords="axes fraction", ha="center")
        axes.set_yticks([])
    axes.margins(y=0.2)
    missed = [number for number, one in mine if one.get("outcome", "released") != "released"]
    if missed:
        across = axes.get_xaxis_transform()
        axes.plot(missed, [0.03] * len(missed), "x", color=colour, markersize=6, transform=across)
        _note(axes, "× round without this region", (0.99, 0.06), (0, 0), xycoords="axes fraction", ha="right")


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
    off = float(np.linalg.norm(guesses[:, -1] - future[-1], axis=-1).min())
    beside = float(np.linalg.norm(simple[-1] - future[-1]))
    _note(axes, f"{off:.1f} m off", (0, 1), (0, 14), xycoords="axes fraction", color=INK)
    _note(axes, f"c.v. {beside:.1f} m", (0, 1), (0, 2), xycoords="axes fraction")
    history, future, guesses, simple = (
        np.stack([-part[..., 1], part[..., 0]], axis=-1) for part in (history, future, guesses, simple)
    )
    axes.plot(*history.T, **_LINES["the past"])
    axes.plot(*_joined(simple), **_LINES["constant velocity (c.v.)"])
    axes.plot(*_joined(future), **_LINES["the path driven"])
    for guess in guesses:
        axes.plot(*_joined(guess), **_LINES["forecast, in the region's colour"] | {"color": colour})
    seen = np.concatenate([history[-3:], future, simple, guesses.reshape(-1, 2)])
    middle, (wide, high) = (seen.min(axis=0) + seen.max(axis=0)) / 2, np.ptp(seen, axis=0)
    half = 1.12 * max(high / 2, wide * 0.75, 4.0)
    left, bottom = middle[0] - half / 1.5, middle[1] - half
    axes.set(xlim=(left, middle[0] + half / 1.5), ylim=(bottom, middle[1] + half), aspect="equal")
    length = max(size for size in (1, 2, 5, 10, 20, 50) if size <= max(1.0, half * 0.7))
    axes.plot([left, left + length], [bottom, bottom], color=INK, linewidth=3, solid_capstyle="butt")
    _note(axes, f"{length} m", (left, bottom), (2, 4))
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


def _constant_velocity(axes: Axes, value: float, colour: str) -> None:
    axes.axhline(value, color=colour, **_DASHED)
    words, place = f"constant velocity {value:.2f}", (1, value)
    _note(axes, words, place, (0, 4), xycoords=("axes fraction", "data"), ha="right")


def _note(
    axes: Axes, words: str, place: tuple[float, float], offset: tuple[float, float], **look: Any
) -> None:
    """Words beside a place, ``offset`` in points."""
    axes.annotate(words, place, offset, textcoords="offset points", **{"color": FAINT} | look)


def _rounded(epsilon: float) -> float:
    """Calibrated values of one target differ in the third digit."""
    return float(f"{epsilon:.2g}")


def _joined(path: np.ndarray) -> np.ndarray:
    """A path (F, 2) from the present on, (2, F + 1)."""
    return np.vstack([np.zeros(2), path]).T


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:6]) + (f" and {len(names) - 6} more" if len(names) > 6 else "")


def _apart(heights: Sequence[float]) -> list[float]:
    """Ascending label heights, none closer than a line of type to the one below."""
    gap = max(heights, default=0.0) * 0.085
    placed: list[float] = []
    for height in heights:
        placed.append(max(height, placed[-1] + gap) if placed else height)
    return placed


@contextmanager
def _style() -> Iterator[Callable[[float, float, str], Figure]]:
    """Within it, a function that makes a figure in our style (width and height in inches, heading)."""
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise NotReadyError(
            "pictures",
            got="matplotlib is not installed",
            expected="the extra that draws",
            hint="pip install 'fedfsd[pictures]'",
        ) from None

    def figure_of(width: float, height: float, heading: str) -> Figure:
        figure = Figure(figsize=(width, height), layout="constrained")
        if heading:
            figure.suptitle(heading, size=11, color=FAINT)
        return figure

    with rc_context(_STYLE):
        yield figure_of


def _svg(figure: Figure) -> str:
    """The figure as SVG text without a date."""
    out = StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
