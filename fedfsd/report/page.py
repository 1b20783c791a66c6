"""A run as one page for a person: what was trained, how good it is, what it cost in privacy.

The page is made from the run folder alone, contains everything it shows, and runs no script. What was
measured, and in which words, the plan's task says. Text from data, configuration and task is escaped; the
only markup taken over are the pictures, which are drawn through ``fedfsd.canvas``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedfsd.canvas import COLOURS, SHOWN, colours, themed
from fedfsd.config.experiment import Experiment
from fedfsd.errors import NotReadyError, PlanError
from fedfsd.gate.gate import unnoticed
from fedfsd.gate.outcome import MEANINGS, RELEASED
from fedfsd.language import ENGLISH, mark, say, spoken
from fedfsd.mechanism.statement import TWO_FIGURES, Crossing, best_guess, sentence
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Plan, RegionPlan
from fedfsd.report import figure, words
from fedfsd.report.run_folder import EXAMPLES, Folder, releases
from fedfsd.report.words import HEADINGS
from fedfsd.task import registry
from fedfsd.task.task import ALONE, START, STAYS_HOME, Metric, Task, headline, key_of

_NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WEAK = 0.99  # from here on an attacker may guess almost always right
Figures = Mapping[str, Any]


@dataclass(frozen=True)
class WrittenRun:
    """What a run folder says. ``metrics`` is empty while the run is incomplete."""

    folder: Folder
    plan: Plan
    task: Task
    experiment: Figures
    metrics: Figures
    rounds: Sequence[Figures]

    @property
    def heading(self) -> str:
        """What must stand at the head of every page; empty for a complete private run."""
        unfinished = "" if self.metrics.get("complete") else mark("incomplete run")
        return " · ".join(filter(None, (HEADINGS[self.plan.mode], unfinished)))

    @property
    def headline(self) -> Metric:
        """The figure by which the run is watched and compared."""
        return headline(self.task)

    @property
    def pooled(self) -> Figures:
        """The figures of all regions together; empty while the run is incomplete."""
        return self.metrics.get("pooled") or {}

    @property
    def baseline_key(self) -> str:
        """Of the headline of what needs no learning."""
        return key_of(self.task.baseline, self.headline)

    @property
    def start_key(self) -> str:
        """Of the headline before the first round."""
        return key_of(START, self.headline)

    @property
    def beside(self) -> dict[str, str]:
        """What else the run measured each region with: name and key; empty without [resident]."""
        keys = {name: key_of(name, self.headline) for name in (STAYS_HOME, ALONE)}
        return {name: key for name, key in keys.items() if key in self.pooled}

    @property
    def regions(self) -> dict[str, Figures]:
        """Each region's figures in plan order; of an incomplete run what plan and rounds say."""
        found = self.metrics.get("regions") or {}
        return {name: found.get(name) or self._so_far(name) for name in self.plan.regions}

    def _so_far(self, name: str) -> Figures:
        mine = self.plan.region(name)
        lines = [line["regions"].get(name) or {} for line in self.rounds]
        key = self.headline.key
        curve = [line[key] for line in lines if line.get(key) is not None]
        return {
            key: curve[-1] if curve else None,
            self.start_key: curve[0] if curve else None,
            "rounds_released": sum(one == name for line in self.rounds for one, _, _ in releases(line)),
            "vehicles": mine.roster,
            "delta": None if mine.epsilon is None else mine.target_delta,
            "noise_multiplier": self.plan.noise_multiplier(name),
            "noise": self.plan.noise_words(name),
            **mine.model_dump(include={"epsilon", "identity", "sample_rate", "max_grad_norm", "weight"}),
        }


def read_run(path: str | Path) -> WrittenRun:
    """The run in a folder, complete or not.

    Raises:
        NotReadyError: not a run folder, or a file of it is unreadable.
        PlanError: plan.json is no plan of this version.
        ConfigError: the plan's task is not installed.
    """
    folder = Folder(Path(path))
    folder.read("plan.json")  # for its error
    plan = _plan(folder.path / "plan.json")
    return WrittenRun(
        folder=folder,
        plan=plan,
        task=registry.of(plan.task.name, plan.task.options),
        experiment=Experiment.resolved(folder.read("experiment.json")).model_dump(mode="json"),
        metrics=folder.read("metrics.json") if folder.complete else {},
        rounds=folder.rounds(),
    )


def _plan(path: Path) -> Plan:
    """The plan in a file; what is wrong with it is said with the file's name."""
    try:
        return plans.read(path.read_text(encoding="utf-8"))
    except PlanError as error:
        raise PlanError(
            f"{path}: {error.place}", got=error.got, expected=error.expected, hint=error.hint
        ) from None


def write_report(path: str | Path) -> Path:
    """Write figures/*.svg and report.html into a run folder; returns the page's path.

    Raises:
        NotReadyError: not a run folder, or matplotlib is missing.
        PlanError, ConfigError: as of ``read_run``.
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
        for format in (amount, percent, count, upwards, number, duration, word, listed, titled)
    }
    environment.filters["gained"] = lambda better: _typeset(words.gained(run.headline, better))
    page = environment.get_template("report.html").render(
        run=run,
        plan=run.plan,
        task=run.task,
        headline=run.headline,
        metrics=run.metrics,
        regions=run.regions,
        pooled=run.pooled,
        title=title(run),
        gain=lambda one, key: words.gain(run.headline, one.get(run.headline.key), one.get(key)),
        statements={} if run.plan.mode == "none" else _by_text(run, _statement),
        identities=_by_text(run, lambda mine: mine.identity),
        crossing=crossing_of(run),
        harmed=worse_than_start(run),
        unnoticed=unnoticed(run.plan.model.witness_size),
        two_figures=TWO_FIGURES,
        failures={name: _failures(run.rounds, name) for name in run.plan.regions},
        figures={name: Markup(themed(svg, name)) for name, svg in figures.items()},
        colours=colours(list(run.plan.regions)),
        palette=COLOURS,
        shown=SHOWN,
    )
    run.folder.write_text("report.html", page)
    return run.folder.path / "report.html"


def title(run: WrittenRun) -> str:
    """The run in one line of plain words."""
    size, pooled = len(run.plan.regions), run.pooled
    what = run.task.name.replace("_", " ")
    who = (
        say("One region, one {task} model", task=what)
        if size == 1
        else say("{number} regions, one {task} model", number=word(size).capitalize(), task=what)
    )
    better = words.gain(run.headline, pooled.get(run.headline.key), pooled.get(run.baseline_key))
    if better is None:
        return who
    how = [compared(run.headline, better, say(run.task.baseline))]
    since = words.gain(run.headline, pooled.get(run.headline.key), pooled.get(run.start_key))
    if since is not None and since < 0:  # training did harm: that comes first, however good the start was
        how = [compared(run.headline, since, say("its own start")), *how]
    spent = [mine.epsilon for mine in run.plan.regions.values() if mine.epsilon is not None]
    private = spent and run.plan.mode == "private"
    at = say(", at ε = {epsilon} per vehicle", epsilon=upwards(max(spent))) if private else ""
    where = say(" on the coordinator's own table") if run.folder.real else ""
    return say("{who}: {how}", who=who, how=", ".join(how)) + where + at


def compared(metric: Metric, better: float, what: str) -> str:
    """A ``gain`` as a comparison: "7.1% better than constant velocity"."""
    gain = words.gained(metric, abs(better))
    if better >= 0:
        return say("{gain} better than {what}", gain=gain, what=what)
    return say("{gain} worse than {what}", gain=gain, what=what)


def worse_than_start(run: WrittenRun) -> list[str]:
    """The regions in which the trained model is worse than the model before the first round."""
    gains = {
        name: words.gain(run.headline, one.get(run.headline.key), one.get(run.start_key))
        for name, one in run.regions.items()
    }
    return [name for name, better in gains.items() if better is not None and better < 0]


def amount(value: float | None, unit: str, *, bare: bool = False, like: float | None = None) -> str:
    """As in ``words``, in one piece."""
    return _typeset(words.amount(value, unit, bare=bare, like=like))


def titled(metric: Metric) -> str:
    """As in ``words``, with the unit in one piece with the last word."""
    return words.titled(metric).replace(", ", ",\u00a0")


def percent(value: float | None) -> str:
    """One decimal, with a real minus."""
    return "–" if value is None else _typeset(f"{value:.1%}")


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
    """Small numbers as words, in English."""
    if spoken() != ENGLISH:
        return count(size)
    return _NUMBERS[size] if size < len(_NUMBERS) else count(size)


def listed(names: Sequence[str], most: int = 12) -> str:
    """a, b and c."""
    names = [*names[:most], f"{len(names) - most} more"] if len(names) > most else list(names)
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _typeset(text: str) -> str:
    """A figure with a real minus, and its unit on the same line."""
    return text.replace("-", "−").replace(" ", "\u00a0")


def _figures(run: WrittenRun) -> dict[str, str]:
    """The pictures that this run has something to show in, by name."""
    heading = run.heading
    figures = {"learning": figure.learning(run.rounds, run.regions, run.task, heading=heading)}
    if any(region.get("epsilon_by_round") for region in run.regions.values()):
        targets = {name: region.target_epsilon for name, region in run.plan.regions.items()}
        figures["privacy"] = figure.privacy(run.regions, targets, heading=heading)
    if examples := _examples(run):
        figures["examples"] = run.task.picture(examples, colours(list(run.plan.regions)), heading=heading)
    return figures


def _examples(run: WrittenRun) -> dict[str, dict[str, np.ndarray]]:
    """What the task showed of each region; regions without test examples are left out."""
    path = run.folder.path / EXAMPLES
    arrays = _arrays(path) if path.exists() else {}
    found: dict[str, dict[str, np.ndarray]] = {}
    for name in run.plan.regions:
        # EU_north_input is of EU_north where there is such a region, not of EU.
        longer = tuple(f"{other}_" for other in run.plan.regions if other.startswith(f"{name}_"))
        mine = {
            key.removeprefix(f"{name}_"): array
            for key, array in arrays.items()
            if key.startswith(f"{name}_") and not key.startswith(longer)
        }
        if mine and len(found) < SHOWN:
            found[name] = mine
    return found


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, ValueError):
        raise NotReadyError(
            str(path), got="unreadable", expected="arrays of examples", hint="delete it, or run again"
        ) from None


def crossing_of(run: WrittenRun) -> Crossing | None:
    """The vehicles in several regions, where the run could compare all data."""
    found = run.metrics.get("crossing")
    return Crossing(**{**found, "regions": tuple(found["regions"])}) if found else None


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
