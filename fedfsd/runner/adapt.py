"""A region's own model, made by its runner: the shared one trained on, beside what else the region could use.

The runner reads the data and has no network. What it finds goes into its own folder (``engine.resident``) and
to whoever ran ``fedfsd region adapt`` as its user or as root; the gate, and so the coordinator, is not asked,
not told and not waited for.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save
from torch import nn

from fedfsd.config.experiment import Resident
from fedfsd.config.load import load as validated
from fedfsd.drive import table
from fedfsd.engine import backbone, resident
from fedfsd.engine.device import resolve
from fedfsd.errors import ConfigError, NotReadyError
from fedfsd.formats import NEWEST
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.policy import ModelPin
from fedfsd.gate.resident import demand_shareable, weights_sha256
from fedfsd.ledger.disk import write_whole
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Arrays, Plan
from fedfsd.runner.peer import Reviewed
from fedfsd.runner.region import Region, RegionConfig
from fedfsd.task import score
from fedfsd.task.gather import gather, tables_of
from fedfsd.task.task import Examples, Task

SHARED, START = "shared.safetensors", "shared_start.safetensors"
"""In a runner's folder: the model as the last round sent it, and as the plan began."""
_NOT_PRIVATE = (
    "Trained on this region's vehicles without clipping and without noise. It is private towards nobody: "
    "whoever sees this file, what the model answers, or figures of it may learn about any of these vehicles."
)
_STAYS = (
    "It must not leave the jurisdiction, nor be sent, shown, merged or started from elsewhere. A copy "
    "without this card cannot be told from other weights."
)


@dataclass(frozen=True)
class Own:
    """What one region can use, by name."""

    trained: resident.Trained
    alone: resident.Trained | None
    """The same training from the plan's public start; None where that is not here."""


def own_models(
    task: Task,
    examples: Examples,
    shared: nn.Module,
    start: nn.Module | None,
    chosen: Resident,
    *,
    seed: int,
    device: str,
) -> Own:
    """Train the shared model on, and the start alone, on a region's training examples."""
    options: dict[str, Any] = {"seed": seed, "device": resolve(device)}
    return Own(
        resident.train(shared, task, examples, chosen, **options),
        None if start is None else resident.train(start, task, examples, chosen, **options),
    )


def keep(folder: Path, plan: Plan, arrays: Arrays, round: int) -> None:
    """Put aside the model that a round was sent, so that nobody need be asked for it later."""
    schema = list(plan.model.own)
    content = save({entry.name: np.ascontiguousarray(arrays[entry.name]) for entry in schema},
                   {"plan": plan.hash, "round": str(round)})  # fmt: skip
    write_whole(folder / SHARED, content)
    if gate_arrays.sha256(arrays, plan.model.arrays) == plan.model.initial_sha256:
        write_whole(folder / START, content)


def adapt(folder: Path, config: RegionConfig, given: BinaryIO) -> dict[str, Any]:
    """Make the region's own model; its card, which has the figures.

    Args:
        folder: the runner's.
        given: a line of JSON, then the files whose sizes it says; see ``node.own_model``.

    Raises:
        FedfsdError: what the region cannot train, or a model that is not the plan's.
    """
    asked = json.loads(given.readline())
    files = {name: given.read(size) for name, size in asked["sizes"].items()}
    plan = plans.read(asked["plan"])
    pins = {key: one and ModelPin(**one) for key, one in asked["pins"].items()}
    chosen = validated(Resident, asked["settings"])
    region, name = Region(config, Reviewed(pins)), config.name
    plan.region(name)
    task = region.task(plan)
    sent = files.get("shared") or _kept(folder / SHARED, plan)
    if sent is None:
        raise _missing(plan)
    shared = _model(region, task, plan, sent, place="the model")
    begun = files.get("start") or _kept(folder / START, plan)
    start = None if begun is None else _model(region, task, plan, begun, place="the start")
    tables = tables_of(task, config.data_path, name)
    own = own_models(
        task,
        gather(task, tables, name)[0],
        shared,
        start,
        chosen,
        seed=plan.seed,
        device=config.device,
    )
    test = task.examples(table.in_region(tables, name), test=True)
    card = _card(plan, name, own, chosen) | {"figures": _figures(task, own, shared, test)}
    names = [entry.name for entry in plan.model.own]
    card["weights_sha256"] = weights_sha256(
        {key: dict(own.trained.model.named_parameters())[key].detach().numpy() for key in names}
    )
    card["file"] = str(resident.write(folder, backbone.saved(own.trained.model), card))
    return card


def _kept(path: Path, plan: Plan) -> bytes | None:
    """A model that was put aside for ``plan``; None where there is none."""

    try:
        with safe_open(path, "np") as file:
            if (file.metadata() or {}).get("plan") == plan.hash:
                return path.read_bytes()
    except (OSError, SafetensorError):
        pass
    return None


def _missing(plan: Plan) -> NotReadyError:
    return NotReadyError(
        f"plan {plan.hash[:8]}",
        got="no model of it in the runner's folder",
        expected="one that a round sent here, or a run folder with plan.json and model.safetensors",
        hint="ask the coordinator's people for both files, and name the folder they are in",
    )


def _model(region: Region, task: Task, plan: Plan, content: bytes, *, place: str) -> nn.Module:
    """The plan's model with the weights of a file, which may have its frozen ones too."""
    demand_shareable(content, place=place)
    schema = list(plan.model.own)
    try:
        given = load(content)
        arrays = {entry.name: given[entry.name] for entry in schema}
    except (SafetensorError, KeyError):
        raise ConfigError(
            place, got="no file of this plan's weights", expected="the model.safetensors of its run",
            hint="ask the coordinator's people for plan.json and model.safetensors of one run",
        ) from None  # fmt: skip
    gate_arrays.check(arrays, schema)
    model = region.model(task, plan)
    backbone.put_arrays(model, arrays)
    return model.eval()


def _card(plan: Plan, name: str, own: Own, chosen: Resident) -> dict[str, Any]:
    return {
        "format": NEWEST["own model"],
        "what": "a region's own model: the shared one, trained on by this region alone",
        "region": name,
        "plan": plan.hash,
        "plan_name": plan.name,
        "task": plan.task.name,
        "model": plan.model.name,
        "made": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "settings": chosen.model_dump(),
        "epochs": own.trained.epochs,
        "vehicles": own.trained.vehicles,
        "held_out": own.trained.held_out,
        "not_private": _NOT_PRIVATE,
        "must_not_leave": _STAYS,
    }


def _figures(task: Task, own: Own, shared: nn.Module, test: Examples) -> dict[str, Any]:
    """Each choice's errors on the region's test vehicles; null where there is none."""
    if not len(test):
        return {}
    found = {"resident": task.scores(own.trained.model, test), "shared": task.scores(shared, test)}
    if own.alone is not None:
        found["alone"] = task.scores(own.alone.model, test)
    found[task.baseline] = task.baseline_scores(test)
    return {key: _finite(score.summary(task.metrics, one)) for key, one in found.items()}


def _finite(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in figures.items()
    }
