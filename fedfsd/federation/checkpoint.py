"""The state of a run between two rounds: global arrays and what the inner strategy remembers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from fedfsd.errors import NotReadyError
from fedfsd.federation.strategy import PlannedStrategy, Round
from fedfsd.gate.resident import demand_shareable

_ARRAYS = "arrays/"
_TOTAL = "average/"
_STATE = "strategy/"


def save(path: Path, strategy: PlannedStrategy, done: Round, note: object = None) -> None:
    """Write the checkpoint after a round; the old one stays until the new one is on disk.

    ``note``: plain values to be kept beside it.
    """
    tensors = {_ARRAYS + name: np.ascontiguousarray(array) for name, array in done.arrays.items()}
    tensors |= {_TOTAL + name: total for name, total in strategy.total.items()}
    state = {name: _flatten(_STATE + name, value, tensors) for name, value in vars(strategy.inner).items()}
    part = path.with_suffix(".part")
    facts = {"plan": strategy.plan.hash, "round": str(done.number), "strategy": json.dumps(state)}
    if strategy.ended:
        facts["ended"] = json.dumps(strategy.ended)
    save_file(tensors, part, facts | {"note": json.dumps(note)})
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(path)


def restore(path: Path, strategy: PlannedStrategy) -> tuple[int, dict[str, np.ndarray]]:
    """The last finished round and its arrays; ``strategy`` gets its state back.

    Raises:
        NotReadyError: no readable checkpoint, or one of another plan.
        RefusedError: a region's own model.
    """
    demand_shareable(path, place=str(path))
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError):
        raise NotReadyError(
            str(path), got="no readable checkpoint", expected="a checkpoint of this run", hint="start it anew"
        ) from None
    if (metadata or {}).get("plan") != strategy.plan.hash:
        raise NotReadyError(
            str(path), got="a checkpoint of another plan", expected="this plan", hint="choose another -o"
        )
    for name, shape in json.loads(metadata["strategy"]).items():
        if shape is not None:
            setattr(strategy.inner, name, _unflatten(f"{_STATE}{name}", shape, tensors))
    strategy.ended = json.loads(metadata.get("ended", "{}"))
    names = [entry.name for entry in strategy.plan.model.arrays]
    strategy.total = {name: tensors[_TOTAL + name] for name in names if _TOTAL + name in tensors}
    arrays = {name: tensors[_ARRAYS + name] for name in names}
    return int(metadata["round"]), arrays


def note(path: Path) -> Any:
    """What ``save`` was given beside a checkpoint that can be restored; None from an earlier release."""
    with safe_open(path, "np") as file:
        return json.loads(file.metadata().get("note", "null"))


def _flatten(key: str, value: object, tensors: dict[str, np.ndarray]) -> Any:
    """Put the arrays inside ``value`` into ``tensors`` and say how to build it again; None: not state."""
    if isinstance(value, np.ndarray):
        tensors[key] = np.ascontiguousarray(value)
        return "array"
    if isinstance(value, list | tuple):
        return {"list": [_flatten(f"{key}/{index}", item, tensors) for index, item in enumerate(value)]}
    if isinstance(value, ArrayRecord):
        parts = {name: array.numpy() for name, array in value.items()}
        return {"record": _flatten(key, parts, tensors)["dict"]}
    if isinstance(value, dict):
        return {"dict": {name: _flatten(f"{key}/{name}", item, tensors) for name, item in value.items()}}
    if value is None or isinstance(value, bool | int | float | str):
        return {"value": value}
    return None  # functions and the like are made anew with the strategy


def _unflatten(key: str, shape: Any, tensors: dict[str, np.ndarray]) -> Any:
    if shape == "array":
        return tensors[key]
    kind, inner = next(iter(shape.items()))
    if kind == "value":
        return inner
    if kind == "list":
        return [_unflatten(f"{key}/{index}", item, tensors) for index, item in enumerate(inner)]
    parts = {name: _unflatten(f"{key}/{name}", item, tensors) for name, item in inner.items()}
    return ArrayRecord({name: Array(array) for name, array in parts.items()}) if kind == "record" else parts
