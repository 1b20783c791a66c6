"""Strategies by name: Flower's own, or those that other packages register as ``fedfsd.strategies``."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from importlib import metadata
from typing import Any

from flwr.serverapp import strategy as flower
from flwr.serverapp.strategy import Strategy

from fedfsd.errors import ConfigError
from fedfsd.flower import held, private
from fedfsd.flower.moments import Moments
from fedfsd.plan.written import MOMENTS

# A federation of a few known regions: all take part in each round, and quorum is judged by us.
_PARTICIPATION = {
    "fraction_train": 1.0,
    "fraction_evaluate": 0.0,
    "min_train_nodes": 1,
    "min_available_nodes": 1,
}


def resolve(name: str, options: Mapping[str, Any]) -> Strategy:
    """The strategy called ``name`` with its ``options``.

    Raises:
        ConfigError: no such strategy, options it does not take, or one of Flower's DP wrappers: they
            account for another unit and mechanism than the plan states.
    """
    held.replace_mean()
    private.quiet()  # Flower warns of the participation that we set on purpose
    kind = _find(name)
    taken = inspect.signature(kind).parameters
    unknown = sorted(set(options) - set(taken))
    if unknown or (set(options) & set(_PARTICIPATION)):
        key = unknown[0] if unknown else sorted(set(options) & set(_PARTICIPATION))[0]
        raise ConfigError(
            f"server.options.{key}",
            got="an option that cannot be set",
            expected=", ".join(sorted(set(taken) - set(_PARTICIPATION) - {"kwargs", "args", "self"})),
            hint=f"see flwr.serverapp.strategy.{name}",
        )
    try:
        return kind(**{key: value for key, value in _PARTICIPATION.items() if key in taken}, **options)
    except (TypeError, ValueError) as error:
        raise ConfigError("server.options", got=error, expected=f"options of {name}") from None


def _find(name: str) -> type[Strategy]:
    builtin = {
        key: kind
        for key, kind in vars(flower).items()
        if inspect.isclass(kind)
        and issubclass(kind, Strategy)
        and kind is not Strategy
        and not key.startswith(("DifferentialPrivacy", "FedXgb"))
    } | {MOMENTS: Moments}
    if name in builtin:
        return builtin[name]
    found = {entry.name: entry for entry in metadata.entry_points(group="fedfsd.strategies")}
    if name not in found:
        raise ConfigError(
            "server.strategy",
            got=repr(name),
            expected=" | ".join(sorted({*builtin, *found})),
            hint='set server.strategy = "FedAvg"',
        )
    kind: type[Strategy] = found[name].load()
    return kind
