"""The benchmark's ratios as a picture: ``python -m experiments.benchmark.figure RESULT.json > FIGURE.svg``.

RESULT.json is what ``python -m experiments.benchmark --json`` prints. Only figures that were measured beside
a peer in one run are drawn: a time alone says more of the machine than of this program.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fedfsd.canvas import COLOURS, FAINT, INK, as_svg, note, style

_UNIT = "times"


def figure(document: Mapping[str, Any]) -> str:
    """SVG: each ratio, and the limit that it is held against."""
    rows = ratios(document["rows"])
    heading = ", ".join(str(document[key]) for key in ("cpu", "cores") if key in document)
    with style() as figure_of:
        drawn = figure_of(10, 0.9 + 0.36 * len(rows), heading)
        axes = drawn.add_subplot()
        axes.axvline(1, color=FAINT, linewidth=1)
        for height, (measured, limit) in enumerate(reversed([row[1:] for row in rows])):
            kept = measured <= limit
            axes.plot([1, measured], [height, height], color=COLOURS[0 if kept else 1], linewidth=5)
            axes.plot([limit], [height], color=INK, marker="|", markersize=13, linestyle="none")
            note(axes, f"{measured:.2g}", (max(1, measured, limit), height), (8, -4), color=INK)
        axes.set_yticks(range(len(rows)), [name.replace("_", " ") for name, _, _ in reversed(rows)])
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.set_xscale("log")
        axes.set_xticks([0.1, 0.2, 0.5, 1, 2, 5, 10], ["0.1", "0.2", "0.5", "1", "2", "5", "10"])
        axes.minorticks_off()
        axes.set_xlabel("times the peer in the same run (1: as much); | the limit")
        axes.margins(x=0.08)
        return as_svg(drawn)


def ratios(rows: Sequence[Mapping[str, Any]]) -> list[tuple[str, float, float]]:
    """(name, measured, limit) of the rows that are ratios to a peer, and were measured."""
    found = []
    for row in rows:
        relation, limit, *unit = row["target"].split(maxsplit=2)
        if unit == [_UNIT] and relation.startswith("<") and row["measured"] is not None:
            found.append((str(row["name"]), float(row["measured"]), float(limit)))
    return found


if __name__ == "__main__":
    print(figure(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))), end="")
