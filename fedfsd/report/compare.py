"""Several runs side by side: utility against epsilon, and what all of them together cost the vehicles.

A search costs what its runs cost together, whichever of them is kept. Every run is counted as if on the
same vehicles of its region and at its whole plan, also one that stopped early: never too little.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from fedfsd.config.load import dotted
from fedfsd.errors import UsageError
from fedfsd.mechanism import renyi
from fedfsd.mechanism.accountant import compose
from fedfsd.report import figure
from fedfsd.report.figure import Point
from fedfsd.report.page import WrittenRun, number, read_run, upwards
from fedfsd.report.run_folder import Folder
from fedfsd.report.words import HEADINGS, amount
from fedfsd.task.task import ALONE, START, STAYS_HOME, Metric, Task, described, headline, key_of

POOLED = "pooled"
NONE_PROMISED = "none promised"
_LABELS = {"name", "seed", "sweep"}  # what runs of one setting may differ in


def compare(folders: Sequence[Path], output: Path | None) -> dict[str, Any]:
    """Settings by region and pooled, with what the whole sweep would have cost real regions.

    Returns ``{"task": {...}, "runs": [...], "settings": [...], "cost": {...}}`` of plain JSON values: what
    was measured; under the key of its headline the mean, under that key with ``_sd`` the sample standard
    deviation over the runs that differ only in seed (None for a single run). An epsilon of None is
    infinite, or nobody guarantees one. With ``output``, also writes compare.json, compare.md and
    compare.svg there.

    Raises:
        UsageError: no folder, or runs that measure different things, or on different test vehicles.
        NotReadyError: not a run folder; matplotlib is missing.
        PlanError, ConfigError: as of ``read_run``.
    """
    runs = [read_run(path) for path in {os.path.realpath(path): path for path in folders}.values()]
    if not runs:
        raise UsageError("compare", got="no run", expected="run folders", hint="fedfsd compare runs/*")
    task = _common_task(runs)
    _demand_same_data(runs)
    groups: dict[str, list[WrittenRun]] = {}
    for run in runs:
        groups.setdefault(json.dumps(_setting(run), sort_keys=True), []).append(run)
    changed = _changed([_setting(group[0]) for group in groups.values()])
    found: dict[str, Any] = {
        "task": described(task),
        "runs": [_run(run) for run in runs],
        "settings": [_summary(group, what) for group, what in zip(groups.values(), changed, strict=True)],
        "cost": cost(runs),
    }
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        folder = Folder(output)
        folder.write("compare.json", found)
        folder.write_text("compare.svg", _picture(found["settings"], task))
        folder.write_text("compare.md", _markdown(found, headline(task)))
    return found


def _common_task(runs: Sequence[WrittenRun]) -> Task:
    """The task of all runs; figures of different tasks cannot stand in one column."""
    kinds = {f"{run.plan.task.name} ({run.headline.name})": run for run in runs}
    if len(kinds) > 1:
        raise UsageError(
            "compare",
            got=f"runs of {len(kinds)} tasks: {', '.join(sorted(kinds))}",
            expected="runs of one task, with one headline",
            hint="compare the runs of each task by themselves",
        )
    return runs[0].task


def _demand_same_data(runs: Sequence[WrittenRun]) -> None:
    """Refuse figures of different test vehicles in one column.

    What needs no learning has the same error in every run on the same examples, whatever was trained.
    """
    seen: dict[str, tuple[float, WrittenRun]] = {}
    for run in runs:
        for name, one in run.regions.items():
            value = one.get(run.baseline_key)
            if value is None:  # not at its end, or measured nowhere
                continue
            first, other = seen.setdefault(name, (value, run))
            if not math.isclose(first, value, rel_tol=1e-6):
                unit = run.headline.unit
                raise UsageError(
                    "compare",
                    got=f"runs on different data: in {name}, {run.task.baseline} reaches "
                    f"{amount(first, unit)} in {other.folder.path}, "
                    f"{amount(value, unit)} in {run.folder.path}",
                    expected="runs on the same test vehicles and examples",
                    hint="compare the runs on each data set by themselves",
                )


def cost(runs: Sequence[WrittenRun]) -> dict[str, Any]:
    """What all ``runs`` together cost a vehicle of each region, and the worst over regions.

    ``epsilon_search`` composes all plans by PLD as if fixed before the first began;
    ``epsilon_adaptive`` is a Renyi filter's answer at its best order, which also holds where later
    plans were chosen from earlier results. Both are None (infinite) as soon as one run protects
    nobody; ``epsilon_private_runs`` composes the others alone. Delta is the smallest of the runs'.
    """
    names = sorted({name for run in runs for name in run.plan.regions})
    regions = {name: _cost([run for run in runs if name in run.plan.regions], name) for name in names}
    spent = [region["epsilon_search"] for region in regions.values()]
    # The worst region speaks for all: vehicles are declared to be in one region only.
    return {"regions": regions, "joint": None if None in spent else max(spent)}


def _cost(runs: Sequence[WrittenRun], name: str) -> dict[str, Any]:
    private = [run for run in runs if run.plan.mode == "private"]
    events = [run.plan.events(name) for run in private]
    together = [event for one in events for event in one]
    delta = min((run.plan.region(name).target_delta for run in private), default=None)
    epsilon = compose(events, delta) if delta else None
    adaptive = None
    if delta:
        order = renyi.best_order(together, delta)
        adaptive = renyi.epsilon_lifetime(renyi.nano_nats(together, order), alpha=order, delta=delta)
    protected = len(private) == len(runs)
    return {
        "runs": len(runs),
        "unprotected_runs": len(runs) - len(private),
        "epsilon_search": epsilon if protected else None,
        "epsilon_adaptive": adaptive if protected else None,
        "epsilon_private_runs": epsilon,
        "delta": delta,
    }


def _run(run: WrittenRun) -> dict[str, Any]:
    """One run as compare.json lists it."""
    keys = (run.headline.key, run.baseline_key, run.start_key, "epsilon", "delta")
    return {
        "run": str(run.folder.path),
        "name": run.plan.name,
        "mode": run.plan.mode,
        "complete": run.folder.complete,
        "seed": run.plan.seed,
        "plan": run.plan.hash,
        "regions": {name: {key: one.get(key) for key in keys} for name, one in run.regions.items()},
        POOLED: {key: run.pooled.get(key) for key in keys[:3]},
    }


def _summary(runs: Sequence[WrittenRun], changed: Mapping[str, Any]) -> dict[str, Any]:
    """Runs that differ only in seed as one; an incomplete one has no figures to add."""
    done = [run.metrics for run in runs if run.folder.complete]
    plan, task = runs[0].plan, runs[0].task
    stated = [run.plan.region(name).epsilon for run in runs for name in plan.regions]
    epsilons = [epsilon for epsilon in stated if epsilon is not None]
    return {
        "name": " ".join(sorted({run.plan.name for run in runs})),
        "changed": dict(changed),
        "mode": plan.mode,
        "guaranteed": plan.mode == "private",
        "runs": len(done),
        "incomplete": len(runs) - len(done),
        "seeds": sorted(run.plan.seed for run in runs),
        "epsilon": max(epsilons) if len(epsilons) == len(stated) else None,
        "regions": {
            name: _spread((one["regions"][name] for one in done), task)
            | {"epsilon": plan.region(name).epsilon, "delta": plan.region(name).target_delta}
            for name in plan.regions
        },
        POOLED: _spread((one[POOLED] for one in done), task),
    }


def _spread(figures: Iterable[Mapping[str, Any]], task: Task) -> dict[str, float | None]:
    key = headline(task).key
    simple = key_of(task.baseline, headline(task))
    found = [one for one in figures if one.get(key) is not None]
    values = [one[key] for one in found]
    beside = {what: key_of(what, headline(task)) for what in (START, STAYS_HOME, ALONE)}
    seen = {at: [one[at] for one in found if one.get(at) is not None] for at in beside.values()}
    return {
        key: mean(values) if values else None,
        f"{key}_sd": stdev(values) if len(values) > 1 else None,
        simple: found[0].get(simple) if found else None,
        **{
            at: mean(values) if values else None
            for at, values in seen.items()
            if values or at == beside[START]
        },
    }


def _setting(run: WrittenRun) -> dict[str, Any]:
    """The experiment as dotted keys, without what runs of one setting may differ in."""
    return dotted({key: value for key, value in run.experiment.items() if key not in _LABELS})


def _changed(settings: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Of each setting the keys in which not all settings agree."""
    keys = sorted({key for setting in settings for key in setting})
    seen = {key: Counter(json.dumps(setting.get(key)) for setting in settings) for key in keys}
    return [{key: setting.get(key) for key in keys if len(seen[key]) > 1} for setting in settings]


def _picture(settings: Sequence[Mapping[str, Any]], task: Task) -> str:
    key = headline(task).key
    points: dict[str, list[Point]] = {
        name: [] for name in sorted({n for s in settings for n in s["regions"]})
    }
    simple: dict[str, float] = {}
    start: dict[str, float] = {}
    for setting in settings:
        for name, one in setting["regions"].items():
            if one[key] is None:
                continue
            point = Point(one["epsilon"], one[key], one[f"{key}_sd"], guaranteed=setting["guaranteed"])
            points[name].append(point)
            for kept, prefix in ((simple, task.baseline), (start, START)):
                if (value := one[key_of(prefix, headline(task))]) is not None:
                    kept.setdefault(name, value)
    return figure.utility(points, simple, start, task)


def _markdown(found: Mapping[str, Any], metric: Metric) -> str:
    names = sorted(found["cost"]["regions"])
    settings = []
    for one in found["settings"]:
        what = ", ".join([one["name"], *(f"{key} = {value}" for key, value in one["changed"].items())])
        runs = f"{one['runs']}" + (f" and {one['incomplete']} incomplete" if one["incomplete"] else "")
        places = [*(one["regions"].get(name) for name in names), one[POOLED]]
        epsilon = ", ".join(filter(None, (_infinite(one["epsilon"]), HEADINGS[one["mode"]])))
        settings.append((what, runs, epsilon, *(_figure(place, metric) for place in places)))
        for rung, key in rungs(one, metric).items():
            figures = (amount((place or {}).get(key), metric.unit) for place in places)
            settings.append((f"{what}: {rung}", runs, NONE_PROMISED, *figures))
    cost = [
        (
            name,
            one["runs"],
            one["unprotected_runs"],
            _infinite(one["epsilon_search"]),
            _infinite(one["epsilon_adaptive"]),
            upwards(one["epsilon_private_runs"]),
            number(one["delta"]),
        )
        for name, one in found["cost"]["regions"].items()
    ]
    return "\n".join(
        [
            "# Runs compared\n",
            f"{_cell(metric.name[:1].upper() + metric.name[1:])}, mean ± standard deviation over seeds.\n",
            *_table(("setting", "runs", "epsilon", *names, POOLED), settings),
            f"\n![{_cell(metric.name)} against epsilon](compare.svg)\n",
            "## What all of it would have cost real regions\n",
            _verdict(found["cost"]["joint"]) + "\n",
            *_table(("region", "runs", "unprotected", "epsilon", "adaptive", "private runs", "delta"), cost),
            "\nepsilon: all runs, fixed before the first began (PLD). adaptive: also holds where later runs",
            "were chosen from earlier results (Renyi filter). private runs: without the unprotected ones.\n",
        ]
    )


def rungs(setting: Mapping[str, Any], metric: Metric) -> dict[str, str]:
    """What regions made for themselves in the runs of one setting: name and key; empty without [resident]."""
    keys = {what: key_of(what, metric) for what in (STAYS_HOME, ALONE)}
    return {what: key for what, key in keys.items() if setting[POOLED].get(key) is not None}


def _verdict(joint: float | None) -> str:
    if joint is None:
        return (
            "Infinite: not private. Some of these runs protect nobody (mode none, or a rehearsal whose noise "
            "key is known), and no noise in another run makes up for that."
        )
    return (
        f"Epsilon {upwards(joint)} for a vehicle of the worst region, if it was recorded in no other and all "
        "runs were fixed before the first began."
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines]


def _cell(value: Any) -> str:
    """Text that can neither end its cell nor become markup."""
    text = " ".join(str(value).split())
    return "".join(f"&#{ord(sign)};" if sign in "&<>|`[]\\" else sign for sign in text)


def _figure(one: Mapping[str, Any] | None, metric: Metric) -> str:
    if one is None or one[metric.key] is None:
        return "–"
    value, deviation = one[metric.key], one[f"{metric.key}_sd"]
    spread = "" if deviation is None else f" ± {amount(deviation, metric.unit, bare=True, like=value)}"
    return amount(value, metric.unit) + spread


def _infinite(epsilon: float | None) -> str:
    return "infinite" if epsilon is None else upwards(epsilon)
