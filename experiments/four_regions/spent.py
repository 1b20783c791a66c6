"""What everything ever run on a study's vehicles costs them together: ``epsilon_search``.

A search costs what its runs cost together, whichever of them is kept. Noiseless runs promise nothing,
and no noise elsewhere makes up for that: what is computed here is the part that has a number.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from experiments.four_regions.study import SETTINGS, Privacy, Study
from fedfsd.mechanism.accountant import compose
from fedfsd.mechanism.calibration import noise_multiplier
from fedfsd.mechanism.event import Event

SEARCH = Path(__file__).with_name("search.csv")


@dataclass(frozen=True)
class Spent:
    """The private runs that one region's training vehicles were in, and their epsilon composed."""

    epsilon: float
    delta: float
    ladder: int
    search: int
    before: int

    @property
    def runs(self) -> int:
        """All of them."""
        return self.ladder + self.search + self.before


def spent(study: Study, privacies: Iterable[Mapping[str, Privacy]]) -> dict[str, Spent]:
    """By region: the ladder's own runs, the search for its settings, and what went before it.

    ``privacies`` are those of every rung and seed. Search and exploration count for the recordings
    that study.toml knows; on other drives a search of one's own is found beside the results.
    """
    known = {name: roster.size for name, roster in study.rosters.items()} == SETTINGS["recordings"]["rosters"]
    table = study.output / "search.csv"
    searched = searched_events(table if table.exists() else SEARCH) if known or table.exists() else []
    privacies = list(privacies)
    found = {}
    for name in study.rosters:
        mine = [one[name] for one in privacies if one[name].event is not None]
        delta = min((one.delta for one in mine if one.delta is not None), default=1e-4)
        before = _before(delta) if known else []
        ladder = [one.event for one in mine if one.event is not None]
        epsilon = compose([[event] for event in (*ladder, *searched, *before)], delta)
        found[name] = Spent(epsilon, delta, len(ladder), len(searched), len(before))
    return found


def searched_events(path: Path) -> list[Event]:
    """The private runs of a search.csv; none where there is no such file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Event(float(row["sample_rate"]), float(row["noise_multiplier"]), int(row["steps"]))
            for row in csv.DictReader(file)
            if row["noise_multiplier"]
        ]


def _before(delta: float) -> list[Event]:
    """Earlier runs, as the same number of runs of one calibrated plan each."""
    steps = 120
    return [
        event
        for entry in SETTINGS["recordings"]["before"]
        for event in [
            Event(
                1.0,
                noise_multiplier(
                    target_epsilon=entry["epsilon"], target_delta=delta, sample_rate=1.0, steps=steps
                ),
                steps,
            )
        ]
        * entry["runs"]
    ]
