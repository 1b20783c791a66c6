"""Names to models: the built-in ones, and those that other packages register as ``fedfsd.models``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module, metadata
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from fedfsd.config.load import load
from fedfsd.errors import ConfigError
from fedfsd.gate.policy import OWN_MODELS, ModelPin
from fedfsd.task import pin
from fedfsd.task.forecasting.window import WindowSpec

# name -> (options class, builder of the module from options and window spec)
Entry = tuple[type[BaseModel], Callable[[Any, WindowSpec], nn.Module]]


def build(
    name: str, options: Mapping[str, Any], spec: WindowSpec, *, seed: int, reviewed: ModelPin | None = None
) -> nn.Module:
    """The model, initialised from ``seed`` alone; torch's global generator is left as it was.

    Args:
        reviewed: what a model of another package must be; without it, what is installed is believed.

    Raises:
        ConfigError: no such model, or options it does not know.
        RefusedError: not the reviewed model.
    """
    kind, builder = _entry(name, reviewed)
    try:
        chosen = load(kind, options)
    except ConfigError as error:
        raise ConfigError(
            f"model.options.{error.place}", got=error.got, expected=error.expected, hint=error.hint
        ) from None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builder(chosen, spec)


def _entry(name: str, reviewed: ModelPin | None) -> Entry:
    if name in OWN_MODELS:
        # A module of that name beside this one, with the same ENTRY that another package registers.
        entry: Entry = import_module(f"{__package__}.{name}").ENTRY
        return entry
    found = {entry.name: entry for entry in metadata.entry_points(group="fedfsd.models")}
    if name not in found:
        raise ConfigError(
            "model.name",
            got=repr(name),
            expected=" | ".join(sorted({*OWN_MODELS, *found})),
            hint="choose one of them, or install the package that registers it",
        )
    return found[name].load() if reviewed is None else pin.load(found[name], reviewed)
