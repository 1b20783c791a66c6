"""How many of the windows that a step computes are somebody's, packed and as by default.

Over regions of real tables (``--data``), else of the embedded one, for a transformer of 171,316 parameters
and up to eight windows a vehicle. Counted, not timed: the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from experiments.benchmark.row import Row
from fedfsd.engine.gradient import micro_batch
from fedfsd.engine.sampler import lanes, pack
from fedfsd.errors import FedfsdError
from fedfsd.task import registry
from fedfsd.task.gather import gather

PARAMETERS, PLACES = 171_316, 8
_LEAST = {1.0: 0.8, 0.1: 0.5}
"""By sample rate: what packing promises."""


def windows(data: str | None, *, quick: bool) -> list[Row]:
    """The region with the smallest share, at each sample rate."""
    draws = 5 if quick else 40
    counts = dict(_counts(data or "embedded"))
    rows = []
    for rate, least in _LEAST.items():
        shares = {name: _shares(mine, rate, draws) for name, mine in counts.items()}
        name = min(shares, key=lambda one: shares[one][0])
        detail = ", ".join(f"{one} {packed:.2f} ({usual:.2f})" for one, (packed, usual) in shares.items())
        rows.append(
            Row(
                f"windows_somebodys_q{rate:g}",
                shares[name][0],
                least,
                "of those computed, in the worst region",
                ">=",
                f"packed (by default): {detail}",
            )
        )
    return rows


def _counts(path: str) -> Iterator[tuple[str, np.ndarray]]:
    """Each region's name and the number of windows of each of its training vehicles."""
    task = registry.of("forecasting", {})
    tables = task.tables(path)
    for name in sorted({region for part in tables for region in part.regions}):
        try:
            examples, _ = gather(task, tables, name)
        except FedfsdError:
            continue
        yield name, np.bincount(examples.owner, minlength=len(examples.vehicles))


def _shares(counts: np.ndarray, rate: float, draws: int) -> tuple[float, float]:
    """Of the windows computed, those that are somebody's: packed, and by default."""
    random, roster = np.random.default_rng(0), len(counts)
    shapes = lanes(roster, rate, PLACES, PARAMETERS)
    size = micro_batch(roster, rate, PLACES, PARAMETERS, PLACES * PARAMETERS)
    used = packed = usual = 0
    for _ in range(draws):
        drawn = counts[random.random(roster) < rate]
        taken = np.arange(PLACES) < drawn[:, None]
        used += int(taken.sum())
        for lane, chosen in pack(shapes, taken):
            packed += -(-len(chosen) // lane.vehicles) * lane.vehicles * lane.places
        usual += -(-len(drawn) // size) * size * PLACES
    return used / max(1, packed), used / max(1, usual)
