"""The page of a run folder: the run as it goes, then its report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from fedfsd.canvas import themed
from fedfsd.cli.page.site import Address, Page, read
from fedfsd.errors import AccountingError
from fedfsd.gate.outcome import MEANINGS, RELEASED
from fedfsd.language import say
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.plan.plan import Plan
from fedfsd.report import figure
from fedfsd.report.page import WrittenRun, amount, duration, read_run, title
from fedfsd.report.run_folder import seconds_left

SHOWN = 12
"""Rounds that the page lists, the newest first."""


def addresses(folder: Path) -> list[Address]:
    """The run, and its report once there is one."""

    def run() -> Page:
        return Page("run.html", values(folder), live=not read_run(folder).folder.complete)

    def report() -> Page:
        text = read(folder / "report.html")
        return Page(whole=text) if text else run()

    return [Address("/", run), Address("/report", report)]


def values(folder: Path) -> dict[str, Any]:
    """What the template needs of a run."""
    run = read_run(folder)
    done = max([0, *(line["round"] for line in run.rounds)])
    left = seconds_left([line["seconds"] for line in run.rounds if line["round"]], run.plan.num_rounds - done)
    return {
        "title": title(run) if run.folder.complete else run.plan.name,
        "heading": " · ".join(map(say, run.heading.split(" · "))),
        "run": run,
        "done": done,
        "left": None if left is None else duration(left),
        "headline": run.headline,
        "amount": lambda value: amount(value, run.headline.unit),
        "epsilon": {name: _spent(run.plan, name, done) for name in run.plan.regions},
        "curve": _curve(run),
        "rounds": [_round(line) for line in reversed(run.rounds[-SHOWN:]) if line["round"]],
        "report": (folder / "report.html").is_file(),
        "evidence": any((folder / "bundles").glob("*.zip")),
    }


def _curve(run: WrittenRun) -> Markup | None:
    """The learning curve by region; None where there is none to draw."""
    if not run.rounds:
        return None
    svg = figure.learning(run.rounds, run.regions, run.task, heading=run.heading)
    return Markup(themed(svg, "learning"))


def _round(line: Mapping[str, Any]) -> dict[str, Any]:
    """A round's number, how long it took, and who was missing or late."""
    outcomes = {name: found.get("outcome", RELEASED) for name, found in line["regions"].items()}
    told = [f"{name} {say(MEANINGS.get(code, code))}" for name, code in outcomes.items() if code != RELEASED]
    told += [
        say(
            "{region}'s update of round {round} {what}",
            region=one["region"],
            round=one["round"],
            what=say(MEANINGS.get(one["outcome"], one["outcome"])),
        )
        for one in line.get("late", ())
    ]
    return {"round": line["round"], "seconds": duration(line["seconds"]), "told": told}


def _spent(plan: Plan, name: str, done: int) -> float | None:
    """Epsilon of the rounds so far; None where nothing is promised."""
    mine = plan.region(name)
    if mine.epsilon is None or plan.mode != "private":
        return None
    try:
        return epsilon_pld(plan.events(name, done), mine.target_delta) if done else 0.0
    except AccountingError:
        return None
