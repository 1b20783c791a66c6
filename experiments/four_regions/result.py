"""results.csv: a row for each rung, region (or all of them pooled) and seed, and one for the mean.

| column | meaning |
|---|---|
| rung, region, seed | seed is a number or ``mean``; region is a name or ``pooled`` (all test windows) |
| fde_m, ade_m, miss_rate | on the test vehicles; end point, path, share of end points over 2 m off |
| fde_m_low, fde_m_high | 95% interval of fde_m when test vehicles are drawn again |
| fde_m_sd | standard deviation over seeds, in mean rows |
| epsilon | of this rung's run: 0 where no drive of the region is used, ``inf`` where nothing is promised |
| epsilon_search | of all private runs ever made on these vehicles, composed; see ``spent`` |
| delta, noise_multiplier | of this rung's run; empty where there is none |
| vehicles, identity | training vehicles of the region, and what one vehicle key stands for |
| note | the predictor that was chosen |
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import mean, stdev

from experiments.four_regions.drives import POOLED
from experiments.four_regions.rung import Rung
from experiments.four_regions.spent import Spent
from experiments.four_regions.study import Measured, Privacy, Study
from fedfsd.errors import NotReadyError
from fedfsd.task import score

MEAN = "mean"
_TEXT = ("rung", "region", "seed", "identity", "note")


@dataclass(frozen=True)
class Row:
    """One line of results.csv; None is an empty cell, and infinite where the column is ``epsilon``."""

    rung: str
    region: str
    seed: str
    fde_m: float
    fde_m_low: float
    fde_m_high: float
    fde_m_sd: float | None
    ade_m: float
    miss_rate: float
    epsilon: float
    epsilon_search: float
    delta: float | None
    noise_multiplier: float | None
    vehicles: int
    identity: str
    note: str


def rows(
    study: Study, measured: Mapping[Rung, Mapping[int, Measured]], spent: Mapping[str, Spent]
) -> list[Row]:
    """All rows in the order of the rungs; a rung that no seed changes has its mean row alone."""
    found = []
    for rung, by_seed in measured.items():
        lines = {
            seed: [_row(study, spent, rung, seed, one, region) for region in (*study.tests, POOLED)]
            for seed, one in by_seed.items()
        }
        if rung.seeded:
            found += [row for one in lines.values() for row in one]
        found += [_mean(same) for same in zip(*lines.values(), strict=True)]
    return found


def write(found: Iterable[Row], path: Path) -> None:
    """Write results.csv, whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(field.name for field in fields(Row))
        writer.writerows([_cell(value) for value in asdict(row).values()] for row in found)
    part.replace(path)


def read(path: Path) -> list[Row]:
    """The rows of a results.csv. NotReadyError where there is none of this form."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            return [
                Row(**{name: _value(name, text) for name, text in row.items()})
                for row in csv.DictReader(file)
            ]
    except (OSError, TypeError, ValueError):
        raise NotReadyError(
            str(path),
            got="no readable results",
            expected="a results.csv of this version",
            hint="python -m experiments.four_regions",
        ) from None


def _row(study: Study, spent: Mapping[str, Spent], rung: Rung, seed: int, one: Measured, region: str) -> Row:
    names = list(study.tests) if region == POOLED else [region]
    summary = score.summary(study.task.metrics, score.pool(one.errors[name] for name in names))
    privacies = [one.privacy[name] for name in names]
    events = [privacy.event for privacy in privacies if privacy.event is not None]
    return Row(
        rung=rung.name,
        region=region,
        seed=str(seed),
        fde_m=summary["fde_m"],
        fde_m_low=summary["fde_m_95"][0],
        fde_m_high=summary["fde_m_95"][1],
        fde_m_sd=None,
        ade_m=summary["ade_m"],
        miss_rate=summary["miss_rate"],
        epsilon=max(_epsilon(privacy) for privacy in privacies),
        epsilon_search=max(spent[name].epsilon for name in names),
        delta=max((p.delta for p in privacies if p.delta is not None), default=None),
        noise_multiplier=min((event.noise_multiplier for event in events), default=None),
        vehicles=sum(study.rosters[name].size for name in names),
        identity=" and ".join(sorted({study.rosters[name].identity for name in names})),
        note=one.note.get(region, ""),
    )


def _epsilon(privacy: Privacy) -> float:
    return float("inf") if privacy.epsilon is None else privacy.epsilon


def _mean(same: Sequence[Row]) -> Row:
    """Rows that differ in their seed as one."""
    averaged = ("fde_m", "fde_m_low", "fde_m_high", "ade_m", "miss_rate")
    fde = [row.fde_m for row in same]
    return Row(
        **asdict(same[0])
        | {name: mean(getattr(row, name) for row in same) for name in averaged}
        | {"seed": MEAN, "fde_m_sd": stdev(fde) if len(fde) > 1 else None}
    )


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _value(name: str, text: str) -> str | int | float | None:
    if name in _TEXT:
        return text
    if name == "vehicles":
        return int(text)
    return float(text) if text else None
