"""Make the embedded tables again: ``python -m fedfsd.drive.embedded``."""

from __future__ import annotations

import sys
from pathlib import Path

from fedfsd.drive.embedded import RECIPES
from fedfsd.drive.table import write
from fedfsd.drive.traffic import generate


def main(folder: Path) -> None:
    """Write each recipe's table into ``folder``."""
    for name, recipe in RECIPES.items():
        table = generate(
            recipe.regions,
            vehicles=recipe.vehicles,
            seed=recipe.seed,
            progress=lambda region, done, of: print(f"\r{region} {done}/{of}", end="", file=sys.stderr),
        )
        write(table, folder / f"{name}.parquet")
        print(f"\n{name}.parquet: {table.rows.num_rows} rows", file=sys.stderr)


if __name__ == "__main__":
    main(Path(__file__).parent)
