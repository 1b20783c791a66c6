"""One thing a recording gets wrong, with a count and a fix."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np

from fedfsd.drive.check.track import Index, Tracks

# error: a vehicle is protected less than stated, or a column means something else than it says.
# warning: what a model learns suffers. note: worth knowing, often harmless.
Severity = Literal["error", "warning", "note"]
Unit = Literal["frames", "points", "rows", "steps", "tracks", "vehicles"]


Name = Literal[
    "both-sides",
    "coarse-time",
    "constant-size",
    "duplicate-track",
    "empty-table",
    "gap",
    "heading-against-motion",
    "heading-degrees",
    "heading-missing",
    "heading-not-wrapped",
    "interpolated",
    "jitter",
    "jump",
    "key-in-one-recording",
    "key-in-two-regions",
    "no-key",
    "no-window",
    "not-finite",
    "one-point",
    "position-degrees",
    "position-scale",
    "repeated-ego-key",
    "repeated-time",
    "repeated-track",
    "size-swapped",
    "size-unit",
    "stated-rate",
    "unfit-value",
    "velocity-frame",
    "velocity-off-motion",
    "velocity-reversed",
    "velocity-scaled",
]
"""Everything that can be found of tracks; each has a page in docs/data, named after it."""
FrameName = Literal[
    "car-two-regions",
    "car-without-frames",
    "faces-and-plates",
    "frame-16-bit",
    "frame-black",
    "frame-bomb",
    "frame-flat",
    "frame-frozen",
    "frame-grey",
    "frame-lag",
    "frame-outside",
    "frame-repeated",
    "frame-size",
    "frame-two-keys",
    "frame-unreadable",
    "label-in-past",
    "pose-jump",
    "yaw-sign",
]
"""Of camera drives; all are in docs/camera.md."""


@dataclass(frozen=True)
class Finding:
    """``count`` of ``total`` ``unit`` are affected; ``recording`` is None where it is about keys."""

    name: Name | FrameName
    severity: Severity
    region: str
    source: str
    recording: str | None
    count: int
    total: int
    unit: Unit
    fix: str

    @property
    def page(self) -> str:
        """Where in the repository it is explained, with a picture."""
        return "docs/camera.md" if self.name in get_args(FrameName) else f"docs/data/{self.name}.md"

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "page": self.page}


def per_recording(
    tracks: Tracks | Index,
    name: Name,
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
