"""Names to models: the built-in ones, and those that other packages register as ``fedfsd.models``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from fedfsd.config.load import load, within
from fedfsd.gate.policy import OWN_MODELS, ModelPin
from fedfsd.task.forecasting.window import WindowSpec
from fedfsd.task.registry import registered

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
    with within("model.options"):
        chosen = load(kind, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builder(chosen, spec)


def _entry(name: str, reviewed: ModelPin | None) -> Entry:
    if name in OWN_MODELS["forecasting"]:
        # A module of that name beside this one, with the same ENTRY that another package registers.
        own: Entry = import_module(f"{__package__}.{name}").ENTRY
        return own
    found: Entry = registered("fedfsd.models", name, OWN_MODELS["forecasting"], "model.name", reviewed)
    return found
