"""The ladder as a picture: FDE of every rung, a column a region."""

from __future__ import annotations

import math
from collections.abc import Sequence
from io import StringIO

from experiments.four_regions.drives import POOLED
from experiments.four_regions.result import MEAN, Row
from experiments.four_regions.rung import CONSTANT_VELOCITY, LADDER
from fedfsd.canvas import FAINT, INK, PAPER, RULE, colours

_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "four_regions",
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": RULE,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "xtick.color": RULE,
    "xtick.labelcolor": FAINT,
    "ytick.labelcolor": INK,
    "ytick.left": False,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
}


def ladder(rows: Sequence[Row]) -> str:
    """An SVG; dots are means over seeds with their standard deviation, hollow where nothing is promised."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    means = {(row.rung, row.region): row for row in rows if row.seed == MEAN}
    rungs = [rung for rung in LADDER if (rung.name, POOLED) in means]
    regions = list(dict.fromkeys(row.region for row in rows))
    shades = colours([region for region in regions if region != POOLED]) | {POOLED: INK}
    with rc_context(_STYLE):
        figure = Figure(figsize=(2.6 + 1.75 * len(regions), 0.36 * len(rungs) + 1.3), layout="constrained")
        panels = figure.subplots(1, len(regions), sharey=True, squeeze=False)[0]
        for region, axes in zip(regions, panels, strict=True):
            base = means[CONSTANT_VELOCITY.name, region].fde_m
            axes.axvline(base, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1)
            for place, rung in enumerate(rungs):
                row = means[rung.name, region]
                axes.errorbar(
                    row.fde_m,
                    place,
                    xerr=row.fde_m_sd,
                    color=shades[region],
                    marker="o",
                    markersize=6,
                    markerfacecolor=PAPER if math.isinf(row.epsilon) else shades[region],
                    capsize=2.5,
                    zorder=3,
                )
            axes.set_title(region, color=shades[region])
            axes.set_xlabel("FDE, m", color=FAINT)
            axes.grid(axis="y")
            axes.margins(x=0.12)
        panels[0].set_yticks(range(len(rungs)), [rung.title for rung in rungs])
        panels[0].invert_yaxis()
        several = any(row.fde_m_sd is not None for row in means.values())
        figure.supxlabel(
            ("Means over seeds and their standard deviation; " if several else "One run a rung; ")
            + "hollow: trained without noise, nothing promised; dashed: constant velocity.",
            size=9,
            color=FAINT,
        )
        text = StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()
