"""What camera drives get wrong: frames, and frames against poses; nothing is repaired here.

Time against pose: a car that turns left sees its picture move to the right. The shift between two frames is
found by phase correlation (Kuglin and Hines 1975) of their columns' brightness, and held against the yaw rate
at every lag; that needs a recording with frames that follow each other closely and with bends.

Shapes: R rows of a recording, in time order.
"""

from __future__ import annotations

import hashlib
import io
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from fedfsd.drive.check.finding import Finding, FrameName, Severity, Unit
from fedfsd.drive.table import Table
from fedfsd.task.camera import drives
from fedfsd.task.camera.render import HEIGHT, WIDTH

_FOLLOWING = 0.3  # s: frames this close show the same scene
_LEAST_PAIRS, _MOST_LAG = 30, 1.0  # frames that follow each other; s
_SURE, _BETTER = 0.6, 0.05  # a correlation that says something, and how much more than at no lag
_TURNING = 0.02  # rad/s, one sigma: without bends nothing is said
_DARK, _FLAT = 4.0, 2.0  # of 255: the mean and the spread of a black frame
_MOVING = 1.0  # m/s
_ACCELERATION = 12.0  # m/s^2: no car's

SAID: dict[FrameName, tuple[Severity, str]] = {
    "frame-unreadable": ("error", "left out: not JPEG or PNG, or damaged; export these frames again"),
    "frame-16-bit": ("error", "left out: 16 bits a channel; convert to 8 bits as the camera's driver does"),
    "frame-bomb": ("error", "left out: its header names more than 40 megapixels; scale the frames down"),
    "frame-outside": (
        "error",
        "left out: the path leaves the table's folder or follows a link; put the file there",
    ),
    "frame-flat": ("error", "left out: wider than 5 to 2; crop the sides"),
    "frame-size": ("warning", "frames of several sizes in one recording: another camera, or cut twice?"),
    "frame-grey": ("note", "grey among coloured frames: a camera at night, or one of several?"),
    "frame-black": ("warning", "nothing to see: leave them out, or mend the camera"),
    "frame-frozen": (
        "warning",
        "the same picture again while the car moves: the camera stood still; leave them out",
    ),
    "frame-repeated": ("warning", "pictures of another recording of the same car: imported twice?"),
    "frame-two-keys": (
        "error",
        "one picture under two cars: one car with two keys is protected half; give it one",
    ),
    "car-two-regions": ("error", "a car belongs to one region, or its epsilons add up: choose one"),
    "car-without-frames": ("note", "it counts in the roster and contributes nothing"),
    "pose-jump": ("warning", "faster than any car: cut the recording there, or smooth the poses"),
    "label-in-past": (
        "error",
        "the path begins where the car was before: the times of poses and frames differ",
    ),
    "frame-lag": ("error", "move the times of the frames by this much"),
    "yaw-sign": (
        "error",
        "the picture turns against the poses: heading must grow to the left, counter-clockwise",
    ),
    "faces-and-plates": (
        "note",
        "faces and number plates are not blurred here: the operator must, before import",
    ),
}


Place = tuple[str, str, str | None]
"""Region, source and recording."""


@dataclass
class _Tally:
    """Counts by finding and place, and what is compared between recordings."""

    counts: Counter[tuple[FrameName, Place]] = field(default_factory=Counter)
    totals: Counter[Place] = field(default_factory=Counter)
    more: dict[tuple[FrameName, Place], str] = field(default_factory=dict)
    seen: dict[bytes, tuple[str, str]] = field(default_factory=dict)
    """Car and recording by a picture's hash."""
    regions: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    framed: dict[str, bool] = field(default_factory=dict)

    def findings(self) -> list[Finding]:
        found = []
        for (name, place), count in self.counts.items():
            severity, fix = SAID[name]
            cars = name.startswith("car-")
            unit: Unit = "vehicles" if cars else "frames"
            total = len(self.framed) if cars else self.totals[place] or count
            if more := self.more.get((name, place)):
                fix = f"{more}: {fix}"
            found.append(Finding(name, severity, *place, count, total, unit, fix))
        return found


def check(tables: Iterable[Table]) -> list[Finding]:
    """Everything found, but for what the files themselves have wrong (``drive.check.files``).

    What is held is one recording's poses, and 50 bytes a frame.
    """
    tally = _Tally()
    for one in tables:
        folder = Path(one.name).parent
        for rows in _recordings(one):
            _recording(rows, folder, tally)
    for key, regions in tally.regions.items():
        if len(regions) > 1:
            tally.counts["car-two-regions", (", ".join(sorted(regions)), "", None)] += 1
        if not tally.framed[key]:
            tally.counts["car-without-frames", (min(regions), "", None)] += 1
    every = sorted({region for found in tally.regions.values() for region in found})
    if every:
        place = (", ".join(every), "", None)
        tally.counts["faces-and-plates", place] = sum(tally.totals.values())
        tally.totals[place] = sum(tally.totals.values())
    return tally.findings()


def _recordings(one: Table) -> Iterator[pa.Table]:
    """The rows of each car's recording, in time order."""
    vehicle, recording = one.coded("vehicle"), one.coded("recording")
    codes = vehicle.codes.astype(np.int64) * max(len(recording.names), 1) + recording.codes
    order = np.lexsort((one.number("t"), codes))
    for chosen in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
        if len(chosen):
            yield one.rows.take(pa.array(chosen))


def _recording(rows: pa.Table, folder: Path, tally: _Tally) -> None:
    region, source, name, key = (
        rows[each][0].as_py() for each in ("region", "source", "recording", "vehicle")
    )
    place = (region, source, name)
    tally.regions[key].update(rows["region"].unique().to_pylist())
    images = rows["image"]
    framed = np.flatnonzero(images.is_valid().to_numpy())
    tally.framed[key] = tally.framed.get(key, False) or bool(len(framed))
    tally.totals[place] += len(framed)

    def found(what: FrameName, count: int = 1) -> None:
        if count:
            tally.counts[what, place] += count

    t, x, y, heading, speed = (
        rows[each].to_numpy(zero_copy_only=False).astype(np.float64)
        for each in ("t", "x", "y", "heading", "speed")
    )
    found("pose-jump", _jumps(t, x, y, speed))
    found("label-in-past", _past(rows, framed, speed))
    sizes: Counter[tuple[int, int]] = Counter()
    grey = 0
    before: bytes = b""
    profiles: dict[int, np.ndarray] = {}
    for row in framed:
        data = drives.picture(images[int(row)].as_py(), folder)
        fault, pixels = _looked(data)
        if fault is not None:
            found(fault)
        if pixels is None or data is None:
            continue
        sizes[pixels.shape[:2]] += 1
        if pixels.mean() < _DARK and pixels.std() < _FLAT:
            found("frame-black")
            continue
        grey += int((pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all())
        mark = hashlib.blake2b(pixels.tobytes(), digest_size=16).digest()
        if mark == before and speed[row] > _MOVING:
            found("frame-frozen")
        elif mark in tally.seen and tally.seen[mark] != (key, name):
            found("frame-repeated" if tally.seen[mark][0] == key else "frame-two-keys")
        before = mark
        tally.seen.setdefault(mark, (key, name))
        profiles[int(row)] = _profile(pixels)
    found("frame-size", sum(sizes.values()) - max(sizes.values(), default=0))
    found("frame-grey", grey if grey < sum(sizes.values()) else 0)
    for what, more in _against(t, heading, profiles):
        found(what)
        tally.more[what, place] = more


def _looked(data: bytes | None) -> tuple[FrameName | None, np.ndarray | None]:
    """What is wrong with a picture, and its pixels (rows, columns, 3) where it has any."""
    from PIL import Image

    if data is None:
        return "frame-outside", None
    image = drives.opened(data)
    if image is not None:
        if image.height * WIDTH < (HEIGHT - 0.5) * image.width:
            return "frame-flat", None
        return None, np.asarray(image)
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as header:
            if header.width * header.height > drives.MOST_PIXELS:
                return "frame-bomb", None
            sixteen = header.mode.startswith("I") or drives.deep(data)
            return "frame-16-bit" if sixteen else "frame-unreadable", None
    except Image.DecompressionBombError:
        return "frame-bomb", None
    except Exception:  # a decoder of somebody else, on whatever bytes
        return "frame-unreadable", None


def _jumps(t: np.ndarray, x: np.ndarray, y: np.ndarray, speed: np.ndarray) -> int:
    """Steps that are longer than the speeds around them and any acceleration allow."""
    step = np.diff(t)
    with np.errstate(invalid="ignore"):
        way = np.hypot(np.diff(x), np.diff(y))
        fastest = np.maximum(speed[1:], speed[:-1]) + _ACCELERATION * step
        return int(((step > 0) & (way > fastest * step + 1.0)).sum())


def _past(rows: pa.Table, framed: np.ndarray, speed: np.ndarray) -> int:
    """Frames whose path goes backwards at first, although the car drives."""
    mask = np.zeros(len(speed), bool)
    mask[framed] = True
    found = drives.followed(rows, mask)
    return int(((found.path[:, 0, 0] < 0) & (found.speed > 2 * _MOVING)).sum())


def _profile(pixels: np.ndarray) -> np.ndarray:
    """Brightness of 160 columns of the picture's middle rows, without its mean, (160,)."""
    rows = pixels[len(pixels) // 4 : -(-len(pixels) * 3 // 4)].mean(axis=(0, 2))
    places = np.linspace(0, len(rows) - 1, WIDTH)
    found = np.interp(places, np.arange(len(rows)), rows)
    return np.asarray((found - found.mean()) * np.hanning(len(found)))


def shift(first: np.ndarray, second: np.ndarray) -> float:
    """By how many columns the second profile is the first one moved to the right."""
    spectrum = np.fft.rfft(second) * np.conj(np.fft.rfft(first))
    surface = np.fft.irfft(spectrum / (np.abs(spectrum) + 1e-9), len(first))
    near = np.r_[surface[-20:], surface[:21]]
    return float(np.argmax(near) - 20)


def _against(
    t: np.ndarray, heading: np.ndarray, profiles: dict[int, np.ndarray]
) -> Iterator[tuple[FrameName, str]]:
    """What the shifts of a recording's pictures say of the times and the sign of its headings."""
    rows = np.array(sorted(profiles), np.int64)
    rows = rows[np.isfinite(t[rows]) & np.isfinite(heading[rows])]
    step = np.diff(t[rows])
    close = (step > 0) & (step < _FOLLOWING)
    if close.sum() < _LEAST_PAIRS or close.mean() < 0.9:
        return
    moved = np.array([shift(profiles[a], profiles[b]) for a, b in itertools.pairwise(rows)])
    turned = np.diff(np.unwrap(heading[rows]))
    if turned.std() / np.median(step) < _TURNING or moved.std() == 0:
        return
    period = float(np.median(step))
    most = min(int(_MOST_LAG / period), len(moved) // 3)
    lags = np.arange(-most, most + 1)
    values = np.array([_correlation(moved, turned, int(lag)) for lag in lags])
    best = int(np.abs(values).argmax())
    if abs(values[best]) < _SURE:
        return
    if lags[best] and abs(values[best]) > abs(values[most]) + _BETTER:
        yield "frame-lag", f"{lags[best] * period:+.2f} s"
    if values[best] < 0:
        yield "yaw-sign", f"correlation {values[best]:.2f}"


def _correlation(moved: np.ndarray, turned: np.ndarray, lag: int) -> float:
    """Of what the pictures show with what the poses say ``lag`` steps later."""
    first = moved[max(0, -lag) : len(moved) - max(0, lag)]
    second = turned[max(0, lag) : len(turned) - max(0, -lag)]
    if first.std() == 0 or second.std() == 0:
        return 0.0
    return float(np.corrcoef(first, second)[0, 1])
