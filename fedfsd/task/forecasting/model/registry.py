"""Names to models: the built-in ones, and those that other packages register as ``fedfsd.models``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from pydantic import BaseModel
from torch import nn

from fedfsd.config.load import load, within
from fedfsd.gate.policy import ModelPin
from fedfsd.task.forecasting.model import gru, mlp, transformer
from fedfsd.task.forecasting.window import WindowSpec
from fedfsd.task.registry import registered

# name -> (options class, builder of the module from options and window spec)
Entry = tuple[type[BaseModel], Callable[[Any, WindowSpec], nn.Module]]

MODELS: dict[str, Entry] = {
    "mlp": (mlp.Options, mlp.Mlp),
    "gru": (gru.Options, gru.Gru),
    "transformer": (transformer.Options, transformer.Transformer),
}


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
    if name in MODELS:
        kind, builder = MODELS[name]
    else:
        kind, builder = registered("fedfsd.models", name, MODELS, "model.name", reviewed)
    with within("model.options"):
        chosen = load(kind, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builder(chosen, spec)
