"""``fedfsd compare``: several runs beside each other, and what all of them cost together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from fedfsd.cli.answer import Answer, Json, table
from fedfsd.cli.extra import extra
from fedfsd.plain_text import plain


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Where table and figure go.")
    ] = None,
    _json: Json = False,
) -> Answer:
    """Compare run folders.

    A table and a figure of utility against epsilon for each region, and the total
    privacy cost of all the runs.
    """
    with extra("simulation"):
        from fedfsd.report.compare import compare as work
    with extra("pictures"):
        found = work(runs, output)
    return Answer(found, _text(found) + (f"\n{plain(output)}" if output else ""))


def _text(found: dict[str, Any]) -> str:
    from fedfsd.report.compare import NONE_PROMISED, rungs
    from fedfsd.report.words import HEADINGS, amount, titled
    from fedfsd.task.task import Metric

    cost = found["cost"]["regions"]
    headline = Metric(**found["task"]["headline"])
    settings = []
    for one in found["settings"]:
        what = ", ".join([one["name"], *(f"{key} = {value}" for key, value in one["changed"].items())])
        places = {**{name: one["regions"].get(name) for name in cost}, "pooled": one["pooled"]}
        shown = {what: (headline.key, _epsilon(one["epsilon"]), HEADINGS[one["mode"]])}
        for rung, key in rungs(one, headline).items():
            shown[f"{what}: {rung}"] = (key, NONE_PROMISED, "")
        for line, (key, epsilon, heading) in shown.items():
            figures = {
                name: amount((place or {}).get(key), headline.unit, bare=True)
                for name, place in places.items()
            }
            settings.append(
                {"setting": line, "runs": one["runs"], "epsilon": epsilon, **figures, "": heading}
            )
    totals = [
        {
            "region": name,
            "runs": one["runs"],
            "epsilon": _epsilon(one["epsilon_search"]),
            "adaptive": _epsilon(one["epsilon_adaptive"]),
            "delta": one["delta"],
        }
        for name, one in cost.items()
    ]
    return "\n".join(
        [
            f"{plain(titled(headline))}, mean over seeds:",
            table(settings),
            "",
            "Total privacy cost for real regions (epsilon of all runs together; adaptive: also holds"
            " where later runs were chosen from earlier results):",
            table(totals),
        ]
    )


def _epsilon(value: float | None) -> float | str:
    return "infinite" if value is None else value
