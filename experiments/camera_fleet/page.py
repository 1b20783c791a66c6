"""The study's tables and its figure, from its rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from experiments.camera_fleet.fleets import REGIONS
from fedfsd.canvas import COLOURS, FAINT, as_svg, note, style

Rows = Sequence[Mapping[str, Any]]
NONE = float("inf")
_EVEN = 0.005  # m: less than this is no difference


def write(rows: Rows, folder: Path) -> None:
    """``study.md`` and ``study.svg``."""
    (folder / "study.md").write_text(text(rows), encoding="utf-8")
    (folder / "study.svg").write_text(picture(rows), encoding="utf-8")


def publish(rows: Rows, folder: Path, *, plain: bool = False) -> None:
    """Put tables and figure into the README of ``folder``, between their marks; of ``plain`` the tables."""
    readme = folder / "README.md"
    mark = "plain" if plain else "study"
    found = re.sub(
        f"(?s)(<!-- {mark} -->).*(<!-- end of {mark} -->)",
        lambda marks: f"{marks[1]}\n{text(rows)}\n{marks[2]}",
        readme.read_text(encoding="utf-8"),
    )
    readme.write_text(found, encoding="utf-8")
    if not plain:
        (folder / "study.svg").write_text(picture(rows), encoding="utf-8")


def text(rows: Rows) -> str:
    """All tables in Markdown, and what follows from them."""
    blocks = []
    for public, head in (("public", "randomised styles"), ("generic", "one generic style")):
        if some := _of(rows, public=public, part="head", what="ladder"):
            blocks += [f"### The head alone, public set of {head}", _ladder(rows, some), _said(rows, public)]
    if any(row["part"] not in ("", "head") for row in rows):
        blocks += ["### What is trained", _parts(rows)]
    if sizes := _of(rows, what="size", public="public"):
        blocks += ["### Fleets of other sizes", _sizes(rows, sizes)]
    return "\n\n".join(blocks)


def _of(rows: Rows, **wanted: Any) -> list[Mapping[str, Any]]:
    return [row for row in rows if all(row[name] == value for name, value in wanted.items())]


def _mean(row: Mapping[str, Any]) -> float:
    return mean(row["fde"].values())


def _value(rows: Rows, **wanted: Any) -> float | None:
    """Mean over regions and seeds; None where nothing was trained."""
    found = [_mean(row) for row in _of(rows, **wanted)]
    return mean(found) if found else None


def _line(name: str, rows: Rows) -> str:
    """One rung: its figure in each region and on the mean, with the spread over seeds."""
    cells = [mean(row["fde"][region] for row in rows) for region in REGIONS]
    means = [_mean(row) for row in rows]
    spread = f" ± {stdev(means):.3f}" if len(means) > 1 else ""
    return f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} | {mean(means):.3f}{spread} |"


def _name(rung: str, epsilon: float) -> str:
    if rung not in ("federated", "alone"):
        return {"start": "public start", "pooled": "pooled, Adam, no noise"}.get(rung, rung)
    if epsilon == NONE:
        return f"{rung}, no noise" if rung == "federated" else "alone, Adam, no noise"
    return f"{rung}, epsilon {epsilon:g}"


def _rungs_of(rows: Rows) -> list[tuple[str, float]]:
    """Rung and epsilon, from no learning to the least private."""
    order = ["straight on", "constant yaw rate", "start", "alone", "federated", "pooled"]
    found = {(row["rung"], row["epsilon"]) for row in rows}
    return sorted(found, key=lambda one: (order.index(one[0]), one[1]))


def _ladder(rows: Rows, some: Rows) -> str:
    lines = [f"| rung | {' | '.join(REGIONS)} | mean |", f"|---|{'---|' * (len(REGIONS) + 1)}"]
    lines += [_line(row["rung"], [row]) for row in _of(rows, public="", what="ladder")]
    for rung, epsilon in _rungs_of(some):
        lines.append(_line(_name(rung, epsilon), _of(some, rung=rung, epsilon=epsilon)))
    return "\n".join(lines)


def _said(rows: Rows, public: str) -> str:
    """Shares of what is gained, and where a rung is worse than it should be."""
    some = _of(rows, public=public, part="head", what="ladder")
    start, exact = _value(some, rung="start"), _value(some, rung="federated", epsilon=NONE)
    pooled = _value(some, rung="pooled")
    lines = []
    for epsilon in sorted(
        {row["epsilon"] for row in some if row["rung"] == "federated"} - {NONE}, reverse=True
    ):
        found = _value(some, rung="federated", epsilon=epsilon)
        if found is None or start is None or exact is None or pooled is None:
            continue
        worse = _worse(_regions(some, "federated", epsilon), _regions(some, "start", 0.0))
        alone = _worse(_regions(some, "federated", epsilon), _regions(some, "alone", epsilon))
        lines.append(
            f"- epsilon {epsilon:g}: {_share(start - found, start - exact)} of what the same training gains"
            f" without noise, {_share(start - found, start - pooled)} of what pooled training gains; worse"
            f" than the public start in {worse}; worse than the region alone at this epsilon in {alone}."
        )
    return "\n".join(lines)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole > _EVEN else "no share (nothing was gained)"


def _regions(rows: Rows, rung: str, epsilon: float) -> dict[str, float]:
    some = _of(rows, rung=rung, epsilon=epsilon)
    return {name: mean(row["fde"][name] for row in some) for name in REGIONS} if some else {}


def _worse(found: Mapping[str, float], beside: Mapping[str, float]) -> str:
    if not beside:
        return "(not run)"
    return ", ".join(name for name in found if found[name] > beside[name] + _EVEN) or "none"


def _parts(rows: Rows) -> str:
    """Head, norms, adapters and all of the same start and fleet, beside each other."""
    some = _of(rows, what="ladder", public="public")
    parts = list(dict.fromkeys(row["part"] for row in some))
    rungs = [("start", 0.0), ("pooled", NONE), ("alone", NONE), ("federated", NONE)]
    rungs += [("federated", 4.0)]
    lines = [
        f"| mean FDE at 3 s, m | {' | '.join(parts)} |",
        f"|---|{'---|' * len(parts)}",
        "| cars a region | "
        + " | ".join(str(max(row["cars"] for row in _of(some, part=part))) for part in parts)
        + " |",
    ]
    for rung, epsilon in rungs:
        cells = [_value(some, part=part, rung=rung, epsilon=epsilon) for part in parts]
        lines.append(
            f"| {_name(rung, epsilon)} | {' | '.join('-' if c is None else f'{c:.3f}' for c in cells)} |"
        )
    return "\n".join(lines)


def _sizes(rows: Rows, sizes: Rows) -> str:
    epsilons = sorted({row["epsilon"] for row in sizes})
    lines = [
        f"| cars a region | {' | '.join('no noise' if e == NONE else f'epsilon {e:g}' for e in epsilons)} |",
        f"|---|{'---|' * len(epsilons)}",
    ]
    for cars in sorted({row["cars"] for row in sizes}):
        cells = [_value(sizes, cars=cars, epsilon=epsilon) for epsilon in epsilons]
        lines.append(f"| {cars} | {' | '.join('-' if cell is None else f'{cell:.3f}' for cell in cells)} |")
    start = _value(rows, what="ladder", public="public", part="head", rung="start")
    return "\n".join([*lines, "", f"Public start: {start:.3f} m. {_rule(sizes, start)}"])


def _rule(sizes: Rows, start: float | None) -> str:
    """The rule of thumb: from how many cars on noise takes less than a fifth of the gain."""
    said = []
    for epsilon in sorted({row["epsilon"] for row in sizes} - {NONE}, reverse=True):
        enough = []
        for cars in sorted({row["cars"] for row in sizes}):
            found, exact = (_value(sizes, cars=cars, epsilon=one) for one in (epsilon, NONE))
            if found is not None and exact is not None and start is not None and start - exact > _EVEN:
                enough += [cars] if (start - found) / (start - exact) >= 0.8 else []
        said.append(f"epsilon {epsilon:g}: {f'{enough[0]} cars' if enough else 'more cars than were tried'}")
    return (
        "Four fifths of the gain without noise are kept from so many cars a region on: "
        + ", ".join(said)
        + "."
    )


def picture(rows: Rows) -> str:
    """Left: the ladder's means. Right: error against epsilon by number of cars."""
    sized = bool(_of(rows, what="size", public="public"))
    with style() as figure_of:
        figure = figure_of(11 if sized else 6.5, 4.6, "")
        panels = figure.subplots(1, 1 + sized, squeeze=False)[0]
        _rungs(panels[0], rows)
        if sized:
            _curves(panels[1], rows)
        return as_svg(figure)


def _rungs(axes: Any, rows: Rows) -> None:
    some = [*_of(rows, public="", what="ladder"), *_of(rows, public="public", part="head", what="ladder")]
    rungs = _rungs_of(some)
    for place, (rung, epsilon) in enumerate(rungs):
        found = [_mean(row) for row in _of(some, rung=rung, epsilon=epsilon)]
        promised = rung in ("federated", "alone") and epsilon != NONE
        axes.plot(
            mean(found), place, "o", color=COLOURS[0], markerfacecolor=COLOURS[0] if promised else "none"
        )
        note(axes, f"{mean(found):.2f}", (mean(found), place), (8, -4))
    axes.set_yticks(range(len(rungs)), [_name(*one) for one in rungs])
    axes.invert_yaxis()
    axes.set_xlabel("mean FDE at 3 s, m (filled: under a promise)")
    axes.set_title("The head alone")


def _curves(axes: Any, rows: Rows) -> None:
    sizes = _of(rows, what="size", public="public")
    for colour, cars in zip(COLOURS, sorted({row["cars"] for row in sizes}), strict=False):
        points = sorted(
            (row["epsilon"], _mean(row)) for row in _of(sizes, cars=cars) if row["epsilon"] != NONE
        )
        axes.plot(
            [at for at, _ in points],
            [m for _, m in points],
            "o-",
            color=colour,
            label=f"{cars} cars a region",
        )
    value = _value(rows, what="ladder", public="public", part="head", rung="start")
    if value is not None:
        axes.axhline(value, color=FAINT, linewidth=1.2, linestyle=(0, (4, 3)))
        least = min(map(_mean, sizes), default=value)
        axes.set_ylim(least - 0.01 * value, 1.1 * value)  # what is far worse than the start is cut
    axes.set(xscale="log", xlabel="epsilon", ylabel="mean FDE at 3 s, m")
    axes.set_xticks([0.5, 1, 2, 4, 8], ["0.5", "1", "2", "4", "8"])
    axes.minorticks_off()
    axes.legend(frameon=False)
    axes.set_title("Cars and epsilon (dashed: public start)")
