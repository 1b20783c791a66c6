"""The house's pictures: one style, colours that last, SVG text whose bytes depend on the values alone.

Every room that draws does it here: report, tasks, the drives' own picture. matplotlib is an extra and is
imported with the first picture. ``themed`` turns a picture into one that follows the colours of the page
around it.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any

from fedfsd.errors import NotReadyError, install

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours: told apart with any colour vision, and by lightness in print.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
PAPER, INK, FAINT, RULE = "#ffffff", "#1b1f24", "#6b7280", "#d5d9e0"
SHOWN = 12  # more panels than this are a wall
_FIRST = ("CN", "EU", "SG", "US")  # keep their colours in runs of fewer regions
STYLE: Any = {
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

DASHED: dict[str, Any] = {"linewidth": 1.4, "linestyle": (0, (4, 3))}


def colours(regions: Sequence[str]) -> dict[str, str]:
    """One colour a region, the same in every picture."""
    ranked = [*_FIRST, *sorted(set(regions) - set(_FIRST))]
    return {name: COLOURS[ranked.index(name) % len(COLOURS)] for name in regions}


@contextmanager
def style(changes: Mapping[str, Any] | None = None) -> Iterator[Callable[[float, float, str], Figure]]:
    """Within it, a function that makes a figure in our style (width and height in inches, heading).

    Args:
        changes: what one picture does differently, as matplotlib names it.
    """
    try:
        from matplotlib import rc_context
        from matplotlib.figure import Figure
    except ImportError:
        raise NotReadyError(
            "pictures",
            got="matplotlib is not installed",
            expected="the extra that draws",
            hint=install("pictures"),
        ) from None

    def figure_of(width: float, height: float, heading: str) -> Figure:
        figure = Figure(figsize=(width, height), layout="constrained")
        if heading:
            figure.suptitle(heading, size=11, color=FAINT)
        return figure

    with rc_context(STYLE | dict(changes or {})), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes; that is no reason to stop.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield figure_of


def grid(
    figure_of: Callable[[float, float, str], Figure],
    names: Sequence[str],
    height: float,
    heading: str,
    labels: tuple[str, str],
) -> tuple[Figure, dict[str, Axes]]:
    """A figure with one titled panel a region, two or three in a row; only the outer ones are labelled."""
    across = columns(names)
    rows = max(1, -(-len(names) // across))
    figure = figure_of(10, height * rows + 0.3, heading)
    panels = {name: figure.add_subplot(rows, across, index + 1) for index, name in enumerate(names)}
    for index, (name, axes) in enumerate(panels.items()):
        axes.set_title(name, color=colours(names)[name])
        axes.set_xlabel(labels[0] if index >= len(names) - across else "")
        axes.set_ylabel(labels[1] if index % across == 0 else "")
        axes.grid(axis="y")
    return figure, panels


def columns(names: Sequence[str]) -> int:
    return 2 if len(names) in (2, 4) else min(3, max(1, len(names)))


def note(
    axes: Axes, words: str, place: tuple[float, float], offset: tuple[float, float], **look: Any
) -> None:
    """Words beside a place, ``offset`` in points."""
    axes.annotate(words, place, offset, textcoords="offset points", **{"color": FAINT} | look)


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


def as_svg(figure: Figure) -> str:
    """The figure as SVG text without a date."""
    out = StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
