"""Made-up images of a lane line, as tables: nobody's data, and the same bytes every time.

A row is one image: 16 x 16 grey values (bytes, the nearest row first) of a line

    x(s) = offset + angle * s + curvature * s^2 / 2        s: metres ahead, x: metres to the right

Each vehicle has a camera of its own, which looks a little sideways; each region has lines of its own width.

    python -m fedfsd_example.curve.drawing FOLDER    writes FOLDER/regions.parquet and FOLDER/public.parquet
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa

from fedfsd.drive import table
from fedfsd.drive.table import Table

PIXELS = 16
METRES_A_ROW, METRES_A_COLUMN = 2.0, 0.6
SCHEMA = pa.schema([*table.KEYS, ("image", pa.binary(PIXELS * PIXELS)), ("curvature", pa.float32())])
"""The keys of every task's table (region, vehicle, test); an image; its curvature in 1/km."""

_LINE_METRES = {"NORTH": 0.5, "SOUTH": 0.9, "PUBLIC": 0.7}
_IMAGES = 6  # of each vehicle


def draw(regions: dict[str, int], *, seed: int) -> Table:
    """A table of so many vehicles a region."""
    random = np.random.default_rng(seed)
    rows = []
    for region, vehicles in regions.items():
        for number in range(vehicles):
            vehicle = f"{region.lower()}-{number:03d}"
            camera = random.normal(0, 0.03)
            for _ in range(_IMAGES):
                curvature = random.uniform(-8, 8)
                line = (random.normal(0, 0.3), camera + random.normal(0, 0.01), curvature / 1000)
                image = _image(*line, width=_LINE_METRES[region], random=random)
                rows.append((region, vehicle, table.split_is_test(vehicle), image.tobytes(), curvature))
    columns = dict(zip(SCHEMA.names, zip(*rows, strict=True), strict=True))
    drawn = pa.table({name: pa.array(values, SCHEMA.field(name).type) for name, values in columns.items()})
    return Table(drawn, licence="CC0-1.0", identity="physical", origin="synthetic")


def _image(
    offset: float, angle: float, curvature: float, *, width: float, random: np.random.Generator
) -> np.ndarray:
    """Grey values (16, 16) of one line."""
    ahead = METRES_A_ROW * np.arange(PIXELS)
    across = METRES_A_COLUMN * (np.arange(PIXELS) - (PIXELS - 1) / 2)
    line = offset + angle * ahead + curvature * ahead**2 / 2
    bright = np.exp(-0.5 * ((across - line[:, None]) / width) ** 2)
    return (255 * np.clip(0.8 * bright + random.normal(0.08, 0.04, bright.shape), 0, 1)).astype(np.uint8)


def write(folder: Path) -> None:
    """The tables of two regions and a public one."""
    folder.mkdir(parents=True, exist_ok=True)
    regions = {"NORTH": 120, "SOUTH": 80}
    table.write(draw(regions, seed=1), folder / "regions.parquet", schema=SCHEMA)
    table.write(draw({"PUBLIC": 40}, seed=2), folder / "public.parquet", schema=SCHEMA)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
