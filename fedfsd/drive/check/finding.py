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

WHAT: dict[Name | FrameName, str] = {
    "both-sides": "A vehicle key has rows for training and rows for testing.",
    "coarse-time": (
        "The column `t` holds times of day or times since 1970. As float32 they are so coarse that "
        "samples of one track get the same time."
    ),
    "constant-size": (
        "Nine in ten vehicles of a type in a recording, and three at least, have the same length and "
        "width to the centimetre."
    ),
    "duplicate-track": (
        "A track goes through the same points, to the millimetre, as a track of another vehicle key."
    ),
    "empty-table": "A file has the right columns and no row.",
    "gap": "Some steps between two rows of a track are longer than 1.5 times its sampling period.",
    "heading-against-motion": (
        "Headings differ from the direction of travel by more than 1 rad in the median of a moving track."
    ),
    "heading-degrees": (
        "Headings fit the motion when they are read as degrees, and do not when they are read as radians."
    ),
    "heading-missing": "Rows without a heading.",
    "heading-not-wrapped": "Headings beyond a full turn.",
    "interpolated": (
        "The path of a track bends only at every n-th sample: the points between lie on straight lines."
    ),
    "jitter": (
        "Positions of moving tracks scatter about their path: by more than 0.2 m, or as if the vehicle "
        "braked and turned with more than 6 m/s²."
    ),
    "jump": (
        "Steps that no vehicle can drive: faster than 70 m/s, or unlike the steps before and after by "
        "more than 5 m and 15 m/s²."
    ),
    "key-in-one-recording": "Almost no vehicle key comes back in a second recording of its source.",
    "key-in-two-regions": "The same vehicle key is in two regions.",
    "no-key": "Rows without a region, a recording, a vehicle or a side of the split.",
    "no-window": "No training vehicle of a region has a window.",
    "not-finite": "Rows without a time or a position (`nan`, infinite).",
    "one-point": "Vehicles with a single row in a recording.",
    "position-degrees": (
        "All positions of a recording lie within a few metres, and could be longitude and latitude."
    ),
    "position-scale": "Vehicles are mostly faster than 70 m/s, or hardly a metre apart.",
    "repeated-ego-key": (
        "Several keys that look like a recording car's (`ego`, `sdc`, `av`) in one source and city."
    ),
    "repeated-time": "Two rows of one vehicle in one recording have the same time.",
    "repeated-track": (
        "A track goes through the same points, to the millimetre, as another one under the same key in "
        "another recording."
    ),
    "size-swapped": "Vehicles that are wider than long.",
    "size-unit": "Cars are as long and wide as no car is, while the motion could be in metres.",
    "stated-rate": "The column `hz` contradicts the times.",
    "unfit-value": (
        "Cells that cannot be what their column is: text where a number belongs, text that is not UTF-8."
    ),
    "velocity-frame": (
        "Velocities are off the motion in one way for all of a recording: rotated by the heading, "
        "mirrored, or with x and y exchanged."
    ),
    "velocity-off-motion": "Velocities point another way than the motion, and no single frame explains it.",
    "velocity-reversed": "Velocities point backwards.",
    "velocity-scaled": "Velocities are longer or shorter than the motion by a factor of more than 1.15.",
    "car-two-regions": "frames of one car in two regions",
    "car-without-frames": "it counts in the roster and contributes nothing",
    "faces-and-plates": "always: nothing is blurred here",
    "frame-16-bit": "16 bits a channel",
    "frame-black": "nothing to see",
    "frame-bomb": "a header of more than 40 megapixels; nothing of it is decoded",
    "frame-flat": "too wide to be cut to 64 of 160",
    "frame-frozen": "the same picture again while the car moves",
    "frame-grey": "grey among coloured frames",
    "frame-lag": "frames and poses are apart in time, with the lag",
    "frame-outside": "a path that leaves the table's folder or follows a link",
    "frame-repeated": "the same picture in two recordings of a car",
    "frame-size": "several sizes in one recording",
    "frame-two-keys": "the same picture under two cars",
    "frame-unreadable": "not JPEG or PNG, damaged, or not there",
    "label-in-past": "a path that begins behind the car",
    "pose-jump": "faster than any car",
    "yaw-sign": "the picture turns against the heading",
}
"""What each of them means, in the words of its page."""


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

    @property
    def what(self) -> str:
        """What it means."""
        return WHAT[self.name]

    def document(self) -> dict[str, Any]:
        """As plain values."""
        return {**asdict(self), "what": self.what, "page": self.page}


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
