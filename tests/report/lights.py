"""A made-up task, as far as a report asks: traffic lights, where a higher headline is better."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from test_report import REGIONS, plan_of, write_run

from fedfsd.canvas import as_svg, grid, style
from fedfsd.plan.plan import TaskPlan
from fedfsd.report.run_folder import Folder
from fedfsd.task.task import Metric, described


class Lights:
    """An image to the state that it shows."""

    name = "traffic_lights"
    metrics = (
        Metric(
            "accuracy", "accuracy", "%", "the share of lights whose state is right", lower_is_better=False
        ),
        Metric("log_loss", "log loss", "nats", "how surprised the model is by the right state"),
    )
    baseline = "the most frequent state"

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)

    def picture(
        self, shown: Mapping[str, Mapping[str, np.ndarray]], colours: Mapping[str, str], *, heading: str
    ) -> str:
        with style() as figure_of:
            figure, panels = grid(figure_of, list(shown), 2.5, heading, ("state", "probability"))
            for name, axes in panels.items():
                axes.bar(["red", "amber", "green"], shown[name]["probability"], color=colours[name])
            return as_svg(figure)

    def caption(self, *, real: bool) -> str:
        return "What the model makes of one <light>" + (" of the coordinator's." if real else ".")


def write_lights(path: Path, *, worse: float = 0.0, **changes: Any) -> Path:
    """A run folder of that task; ``worse`` is taken from every final accuracy."""
    write_run(path, task={"name": "traffic_lights"}, **changes)
    folder = Folder(path)
    chosen = json.loads((path / "plan.json").read_text(encoding="utf-8"))
    plan = plan_of_lights(seed=chosen["seed"], mode=chosen["mode"])
    folder.write_text("plan.json", plan.document())
    lines = folder.rounds()
    (path / "rounds.jsonl").unlink()
    for line in lines:
        for one in line["regions"].values():
            if "fde_m" in one:
                one["accuracy"] = 1 - one.pop("fde_m") / 10
        folder.append_round(line)
    metrics = folder.read("metrics.json")
    for one in (*metrics["regions"].values(), metrics["pooled"]):
        low, high = (1 - value / 10 - worse for value in reversed(one.pop("fde_m_95")))
        one |= {
            "accuracy": 1 - one.pop("fde_m") / 10 - worse,
            "accuracy_95": [low, high],
            "log_loss": one.pop("ade_m") / 10,
            "the_most_frequent_state_accuracy": 1 - one.pop("constant_velocity_fde_m") / 10,
            "start_accuracy": 1 - one.pop("start_fde_m") / 10,
        }
        for key in ("min_ade_k_m", "min_fde_k_m", "miss_rate"):
            del one[key]
    folder.write("metrics.json", metrics | {"plan": plan.hash, "task": described(Lights({}))})
    shown = {f"{name}_probability": np.array([0.2, 0.1, 0.7]) for name in REGIONS}
    np.savez_compressed(path / "examples.npz", **shown)
    return path


def plan_of_lights(**changes: Any) -> Any:
    """The plan of the written runs with that task."""
    from test_report import experiment

    plan = plan_of(experiment(task={"name": "traffic_lights"}, **changes))
    return plan.model_copy(
        update={"format": 2, "task": TaskPlan(name="traffic_lights", options={"size": 32})}
    )
