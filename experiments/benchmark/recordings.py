"""The promises on real recordings: from the study's published results, or trained again on a table given."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from experiments.benchmark.row import Row
from experiments.four_regions import page, result, study
from experiments.four_regions.drives import POOLED
from experiments.four_regions.result import MEAN
from experiments.four_regions.rung import CONSTANT_VELOCITY, FEDERATED_8, START
from experiments.four_regions.spent import spent

_WANTED = {"CN": 8.0}  # per cent of constant velocity's FDE; the others must only be better


def recordings(data: str | None, output: Path, *, quick: bool) -> list[Row]:
    """Gains of the federation at epsilon 8, means over seeds."""
    rungs = (CONSTANT_VELOCITY, START, FEDERATED_8)
    if data is None:
        rows = result.read(Path(study.__file__).with_name("results.csv"))
    else:
        drives = study.open_study(data, ["training.num_rounds=5"] if quick else [], output)
        seeds = (1, 2) if quick else (1, 2, 3)
        measured = {
            rung: {seed: study.measure(drives, rung, seed) for seed in (seeds if rung.seeded else (1,))}
            for rung in rungs
        }
        privacies = [one.privacy for by_seed in measured.values() for one in by_seed.values()]
        rows = result.rows(drives, measured, spent(drives, privacies))
    means: Mapping[tuple[str, str], float] = {
        (row.rung, row.region): row.fde_m for row in rows if row.seed == MEAN
    }
    regions = [region for rung, region in means if rung == FEDERATED_8.name and region != POOLED]
    found = [
        Row(
            f"recordings_{region}_gain",
            100 * (1 - means[FEDERATED_8.name, region] / means[CONSTANT_VELOCITY.name, region]),
            _WANTED.get(region, 0.0),
            "% of constant velocity's FDE",
            ">=" if region in _WANTED else ">",
        )
        for region in regions
    ]
    gain = page.gain(rows)
    if gain is not None:
        found.append(
            Row(
                "recordings_gain_over_start",
                gain.mean / gain.deviation,
                2,
                "standard deviations over seeds",
                ">",
            )
        )
    return found
