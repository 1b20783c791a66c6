"""One thing a recording gets wrong, with a count and a fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fedfsd.drive.check.track import Index, Tracks

# error: a vehicle is protected less than stated, or a column means something else than it says.
# warning: what a model learns suffers. note: worth knowing, often harmless.
Severity = Literal["error", "warning", "note"]
Unit = Literal["points", "rows", "steps", "tracks", "vehicles"]


@dataclass(frozen=True)
class Finding:
    """``count`` of ``total`` ``unit`` are affected; ``recording`` is None where it is about keys."""

    name: str
    severity: Severity
    region: str
    source: str
    recording: str | None
    count: int
    total: int
    unit: Unit
    fix: str


def per_recording(
    tracks: Tracks | Index,
    name: str,
    severity: Severity,
    unit: Unit,
    counts: np.ndarray,
    totals: np.ndarray,
    fix: str | Callable[[int], str],
) -> Iterator[Finding]:
    """A finding for each place whose count is above zero; ``fix`` may depend on the place.

    ``counts`` and ``totals`` are per place, (P,).
    """
    for index in np.flatnonzero(counts):
        place = tracks.places[index]
        yield Finding(
            name,
            severity,
            place.region,
            place.source,
            place.recording,
            int(counts[index]),
            int(totals[index]),
            unit,
            fix if isinstance(fix, str) else fix(int(index)),
        )
