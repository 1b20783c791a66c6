"""What the study's README says in numbers, put between markers so that it is never older than they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from experiments.four_regions.drives import POOLED
from experiments.four_regions.result import MEAN, Row
from experiments.four_regions.rung import CONSTANT_VELOCITY, FEDERATED_8, LADDER, START
from experiments.four_regions.spent import Spent
from fedfsd.errors import NotReadyError


@dataclass(frozen=True)
class Gain:
    """How much smaller the pooled FDE of the federation at epsilon 8 is than that of its own start, m."""

    by_seed: Mapping[str, float]
    deviation: float
    """The largest of the standard deviations over seeds: of the gain, of the model, of the start."""

    @property
    def mean(self) -> float:
        """Over seeds."""
        return mean(self.by_seed.values())

    @property
    def clear(self) -> bool:
        """Whether it is more than twice the standard deviation."""
        return self.mean > 2 * self.deviation


def gain(rows: Sequence[Row]) -> Gain | None:
    """None with fewer than two seeds, which have no standard deviation."""
    start, model = (
        {
            row.seed: row.fde_m
            for row in rows
            if row.rung == rung.name and row.region == POOLED and row.seed != MEAN
        }
        for rung in (START, FEDERATED_8)
    )
    if len(model) < 2 or start.keys() != model.keys():
        return None
    gained = {seed: start[seed] - model[seed] for seed in model}
    return Gain(gained, max(stdev(each.values()) for each in (gained, model, start)))


def lead(rows: Sequence[Row], spent: Mapping[str, Spent]) -> str:
    """The first sentences: what the study cost, and whether training on the drives helped at all."""
    worst = max(spent.values(), key=lambda one: one.epsilon)
    runs = [f"{worst.ladder} of this ladder"]
    runs += [f"{worst.search} of the search for its settings"] if worst.search else []
    runs += [f"about {worst.before} before them"] if worst.before else []
    found = gain(rows)
    unclear = (
        ", and at epsilon 8 the federation did not beat its own public start by more than twice the standard "
        "deviation over seeds"
        if found is not None and not found.clear
        else ""
    )
    return (
        f"As protection of these vehicles this study as a whole is worth nothing: its runs with noise "
        f"({' and '.join(runs)}) compose to **epsilon_search = {upwards(worst.epsilon)}** at delta "
        f"{worst.delta:g}, and its rungs without noise promise nothing at all{unclear}. The epsilon of a "
        f"rung (8, 4, 2, 1) is what a region pays that adopts the recipe unchanged, on vehicles on which "
        f"nothing else was tried."
    )


def ladder_table(rows: Sequence[Row]) -> str:
    """FDE by rung and region, with the figures of privacy beside it."""
    means = {(row.rung, row.region): row for row in rows if row.seed == MEAN}
    regions = list(dict.fromkeys(row.region for row in rows))
    lines = [
        ["rung", *regions, "missed", "epsilon", "epsilon_search"],
        ["---"] * (len(regions) + 4),
    ]
    for rung in LADDER:
        pooled = means.get((rung.name, POOLED))
        if pooled is None:
            continue
        mine = [means[rung.name, region] for region in regions]
        lines.append(
            [
                rung.title,
                *(_figure(row) for row in mine),
                f"{pooled.miss_rate:.0%}",
                *(
                    "none promised" if math.isinf(one) else upwards(one)
                    for one in (pooled.epsilon, pooled.epsilon_search)
                ),
            ]
        )
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def verdict(rows: Sequence[Row]) -> str:
    """The federation at epsilon 8 against constant velocity and against its own start."""
    means = {(row.rung, row.region): row for row in rows if row.seed == MEAN}
    regions = [region for region in dict.fromkeys(row.region for row in rows) if region != POOLED]
    against = [
        f"{region} {change(means[FEDERATED_8.name, region], means[CONSTANT_VELOCITY.name, region])}"
        for region in regions
    ]
    text = f"At epsilon 8 the federation's FDE against constant velocity's: {', '.join(against)}."
    found = gain(rows)
    if found is None:
        return text
    by_seed = ", ".join(f"{one:.3f}" for one in found.by_seed.values())
    return (
        f"{text} Pooled over all test windows it is {found.mean:.3f} m better than its own start on public "
        f"traffic (by seed: {by_seed}), {'more' if found.clear else 'NOT more'} than twice the standard "
        f"deviation over seeds (2 x {found.deviation:.3f} m, the largest of gain's, model's and start's)."
    )


def put(page: Path, name: str, text: str) -> None:
    """Put ``text`` between the markers ``name`` of ``page``."""
    old = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    if old.count(begin) != 1 or old.count(end) != 1:
        raise NotReadyError(str(page), got=f"no markers for {name}", expected=f"{begin} and {end}")
    head, rest = old.split(begin)
    new = f"{head}{begin}\n{text}\n{end}{rest.split(end)[1]}"
    part = page.with_name(page.name + ".part")
    part.write_text(new, encoding="utf-8")
    part.replace(page)


def upwards(epsilon: float) -> str:
    """Never shown smaller than it is: whole from 100 on, else two decimals.

    >>> upwards(7.9912), upwards(1432.64), upwards(0.0)
    ('8.00', '1,433', '0')
    """
    if not epsilon:
        return "0"
    if epsilon >= 100:
        return f"{math.ceil(epsilon):,}"
    return f"{math.ceil(round(epsilon * 100, 6)) / 100:.2f}"


def _figure(row: Row) -> str:
    text = f"{row.fde_m:.2f}"
    text += f" ± {row.fde_m_sd:.2f}" if row.fde_m_sd is not None else ""
    return f"{text} ({row.note})" if row.note else text


def change(mine: Row, other: Row) -> str:
    """How much smaller one FDE is than another."""
    return f"{mine.fde_m / other.fde_m - 1:+.1%}".replace("-", "−")
