"""The study's fleets, rendered once and kept: regions, stand-ins for them, and two public sets."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fedfsd.task.camera import fleet
from fedfsd.task.camera.task import Camera
from fedfsd.task.task import Examples

REGIONS = ("CN", "EU", "SG", "US")
STAND_INS = tuple(fleet.STAND_INS)
PUBLIC = ("public", "generic")


@dataclass(frozen=True)
class Size:
    """How much is rendered; ``cars`` of them about seven in ten train."""

    cars: int
    stand_ins: int
    frames: int
    public: int
    generic: int
    """Frames of the two public sets."""


def render(size: Size, folder: Path, seed: int = 1) -> Mapping[str, Path]:
    """The file of each fleet; those that are there are taken as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = {
        **dict.fromkeys(REGIONS, (size.cars, size.frames, seed)),
        **dict.fromkeys(STAND_INS, (size.stand_ins, size.frames, seed + 1)),
        "public": (size.public // 10, 10, seed + 2),
        "generic": (size.generic // 10, 10, seed + 2),
    }
    paths = {
        name: folder / f"{name}-{cars}x{frames}-{one}-{fleet.VERSION}.parquet"
        for name, (cars, frames, one) in wanted.items()
    }
    missing = [name for name, path in paths.items() if not path.exists()]
    with ProcessPoolExecutor(2) as pool:
        list(
            pool.map(_render, missing, [wanted[name] for name in missing], [paths[name] for name in missing])
        )
    return paths


def _render(name: str, size: tuple[int, int, int], path: Path) -> None:
    cars, frames, seed = size
    fleet.write(path, [name], cars=cars, frames=frames, seed=seed)


def examples(task: Camera, path: Path, *, test: bool) -> Examples:
    """The frames of the training (or test) cars of one fleet."""
    return task.examples(task.tables(str(path)), test=test)


def first(found: Examples, cars: int) -> Examples:
    """The frames of some cars, the first in the order of their keys: a smaller fleet is part of a larger."""
    rows = np.flatnonzero(found.owner < cars)
    return Examples(
        found.vehicles[:cars],
        found.owner[rows],
        {name: array[rows] for name, array in found.inputs.items()},
        {name: array[rows] for name, array in found.targets.items()},
    )
