"""A run as one page for a person: what was trained, how good it is, what it cost in privacy.

The page is made from the run folder alone, holds everything it shows, and runs no script. Text from
data and configuration is escaped; the only markup taken over are our own pictures, whose words come
from the plan.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedfsd.config.experiment import Experiment
from fedfsd.errors import NotReadyError
from fedfsd.gate.outcome import MEANINGS, RELEASED
from fedfsd.mechanism.statement import best_guess, sentence
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Plan, RegionPlan
from fedfsd.report import figure
from fedfsd.report.run_folder import Folder, releases

HEADINGS = {"private": "", "rehearsal": "rehearsal, no guarantee", "none": "not private"}
_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WEAK = 0.99  # from here on an attacker may guess almost always right
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class WrittenRun:
    """What a run folder says. ``metrics`` is empty while the run is incomplete."""

    folder: Folder
    plan: Plan
    experiment: Figures
    metrics: Figures
    rounds: Sequence[Figures]

    @property
    def heading(self) -> str:
        """What must stand at the head of every page; empty for a complete private run."""
        unfinished = "" if self.metrics.get("complete") else "incomplete run"
        return " · ".join(filter(None, (HEADINGS[self.plan.mode], unfinished)))

    @property
    def regions(self) -> dict[str, Figures]:
        """Each region's figures in plan order; of an incomplete run what plan and rounds tell."""
        found = self.metrics.get("regions") or {}
        return {name: found.get(name) or self._so_far(name) for name in self.plan.regions}

    def _so_far(self, name: str) -> Figures:
        mine = self.plan.region(name)
        lines = [line["regions"].get(name) or {} for line in self.rounds]
        curve = [line["fde_m"] for line in lines if line.get("fde_m") is not None]
        return {
            "fde_m": curve[-1] if curve else None,
            "start_fde_m": curve[0] if curve else None,
            "rounds_released": sum(one == name for line in self.rounds for one, _, _ in releases(line)),
            "vehicles": mine.roster,
            "delta": None if mine.epsilon is None else mine.target_delta,
            **mine.model_dump(
                include={"epsilon", "identity", "noise_multiplier", "sample_rate", "max_grad_norm", "weight"}
            ),
        }


def read_run(path: str | Path) -> WrittenRun:
    """The run in a folder, complete or not.

    Raises:
        NotReadyError: not a run folder, or a file of it is unreadable.
        PlanError: plan.json is no plan of this version.
    """
    folder = Folder(Path(path))
    folder.read("plan.json")  # for its error
    return WrittenRun(
        folder=folder,
        plan=plans.read((folder.path / "plan.json").read_text(encoding="utf-8")),
        experiment=Experiment.resolved(folder.read("experiment.json")).model_dump(mode="json"),
        metrics=folder.read("metrics.json") if folder.complete else {},
        rounds=folder.rounds(),
    )


def write_report(path: str | Path) -> Path:
    """Write figures/*.svg and report.html into a run folder; returns the page's path.

    Raises:
        NotReadyError: not a run folder, or matplotlib is missing.
        PlanError: plan.json is no plan of this version.
    """
    from jinja2 import Environment, PackageLoader
    from markupsafe import Markup

    run = read_run(path)
    figures = _figures(run)
    (run.folder.path / "figures").mkdir(exist_ok=True)
    for name, svg in figures.items():
        run.folder.write_text(f"figures/{name}.svg", svg)
    environment = Environment(
        loader=PackageLoader("fedfsd.report", "."), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {
        format.__name__: format
        for format in (metres, percent, count, upwards, number, duration, word, listed)
    }
    page = environment.get_template("report.html").render(
        run=run,
        plan=run.plan,
        metrics=run.metrics,
        regions=run.regions,
        pooled=run.metrics.get("pooled") or {},
        title=title(run),
        gain=gain,
        statements={} if run.plan.mode == "none" else _by_text(run, _statement),
        identities=_by_text(run, lambda mine: mine.identity),
        failures={name: _failures(run.rounds, name) for name in run.plan.regions},
        figures={name: Markup(figure.themed(svg, name)) for name, svg in figures.items()},
        colours=figure.colours(list(run.plan.regions)),
        palette=figure.COLOURS,
        shown=figure.SHOWN,
    )
    run.folder.write_text("report.html", page)
    return run.folder.path / "report.html"


def title(run: WrittenRun) -> str:
    """The run in one line of plain words."""
    size = len(run.plan.regions)
    who = f"{word(size).capitalize()} region{'s' if size > 1 else ''}, one driving model"
    better = gain(run.metrics.get("pooled") or {}, "constant_velocity_fde_m")
    if better is None:
        return who
    how = f"{percent(abs(better))} {'closer to' if better >= 0 else 'further from'} the truth"
    spent = [mine.epsilon for mine in run.plan.regions.values() if mine.epsilon is not None]
    at = f", at ε = {upwards(max(spent))} per vehicle" if spent and run.plan.mode == "private" else ""
    where = " on the coordinator's own table" if run.folder.real else ""
    return f"{who}: {how} than constant velocity{where}{at}"


def gain(one: Figures, beside: str) -> float | None:
    """How much smaller the FDE of ``one`` is than its figure ``beside``, as a share of that."""
    mine, theirs = one.get("fde_m"), one.get(beside)
    return None if mine is None or not theirs else 1 - mine / theirs


def metres(value: float | None) -> str:
    """Two decimals, with the unit."""
    return "–" if value is None else f"{value:.2f} m"


def percent(value: float | None) -> str:
    """One decimal, with a real minus."""
    return "–" if value is None else f"{value:.1%}".replace("-", "−")


def count(value: int | None) -> str:
    """Thousands apart."""
    return "–" if value is None else f"{value:,}"


def upwards(value: float | None) -> str:
    """An epsilon with two decimals, never shown smaller than it is.

    >>> upwards(7.9912)
    '8.00'
    """
    return "–" if value is None else f"{math.ceil(round(value * 100, 6)) / 100:.2f}"


def number(value: float | None) -> str:
    """A constant as a person writes it."""
    return "–" if value is None else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Minutes and seconds."""
    minutes, rest = divmod(round(seconds, 1), 60)
    return f"{minutes:.0f} min {rest:.0f} s" if minutes else f"{rest:.1f} s"


def word(size: int) -> str:
    """Small numbers as words."""
    return _NUMBERS[size] if size < len(_NUMBERS) else count(size)


def listed(names: Sequence[str], most: int = 12) -> str:
    """a, b and c."""
    names = [*names[:most], f"{len(names) - most} more"] if len(names) > most else list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _figures(run: WrittenRun) -> dict[str, str]:
    """The pictures that this run has something to show in, by name."""
    names, heading = list(run.plan.regions), run.heading
    figures = {"learning": figure.learning(run.rounds, run.regions, heading=heading)}
    if any(region.get("epsilon_by_round") for region in run.regions.values()):
        targets = {name: region.target_epsilon for name, region in run.plan.regions.items()}
        figures["privacy"] = figure.privacy(run.regions, targets, heading=heading)
    if (run.folder.path / "examples.npz").exists() and (
        examples := _arrays(run.folder.path / "examples.npz")
    ):
        figures["paths"] = figure.paths(examples, names, heading=heading)
    return figures


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError):
        raise NotReadyError(
            str(path), got="unreadable", expected="arrays of example windows", hint="delete it, or run again"
        ) from None


def _statement(mine: RegionPlan) -> str:
    """What the region's epsilon means; a large one is called weak."""
    if mine.epsilon is None:
        return "No epsilon is stated."
    text = sentence(mine.epsilon, mine.target_delta)
    if best_guess(mine.epsilon, mine.target_delta) >= _WEAK:
        text += " In the worst case that alone rules out little; a smaller epsilon rules out more."
    return text


def _by_text(run: WrittenRun, say: Callable[[RegionPlan], str]) -> dict[str, list[str]]:
    """What there is to say about regions, each thing once with the regions it is true of."""
    found: dict[str, list[str]] = {}
    for name, mine in run.plan.regions.items():
        found.setdefault(say(mine), []).append(name)
    return found


def _failures(rounds: Sequence[Figures], name: str) -> list[tuple[str, int]]:
    """(what happened, how often) for the rounds without the region's update, and what came of it later."""
    codes = Counter((line["regions"].get(name) or {}).get("outcome", "released") for line in rounds)
    codes += Counter(
        one["outcome"] for line in rounds for one in line.get("late", ()) if one["region"] == name
    )
    return [(MEANINGS.get(code, code), times) for code, times in codes.most_common() if code != RELEASED]
