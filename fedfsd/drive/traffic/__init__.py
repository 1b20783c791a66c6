"""Generated traffic: highway-env's IDM and MOBIL drivers, with a profile for each region.

Nobody drove it, so it needs no protection and may ship with the package; it is the embedded default
(`fedfsd.drive.embedded`) and what public pre-training uses. Only making tables needs highway-env, which the
extra ``generate`` installs. A recording is drawn from its own
random stream, named by seed, region and number: a smaller table is the beginning of a larger one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np

from fedfsd.drive.table import Table, of_rows
from fedfsd.drive.traffic.profile import PROFILES, Profile
from fedfsd.errors import NotReadyError, UsageError, install

if TYPE_CHECKING:
    from fedfsd.drive.traffic.recording import Track

GOLDEN = (5**0.5 - 1) / 2
Progress = Callable[[str, int, int], None]


def generate(regions: Sequence[str], *, vehicles: int, seed: int, progress: Progress | None = None) -> Table:
    """Drive ``vehicles`` vehicles (standing ones included) in each of ``regions``.

    Args:
        regions: names of `fedfsd.drive.traffic.profile.PROFILES`.
        vehicles: how many vehicle keys each region gets.
        seed: equal seeds give equal tables.
        progress: called with (region, vehicles so far, vehicles) after each recording.

    Raises:
        UsageError: an unknown region, none, one named twice, or fewer than one vehicle.
        NotReadyError: highway-env is not installed.

    Source: IDM (Treiber, Hennecke, Helbing 2000) and MOBIL (Kesting, Treiber, Helbing 2007) as in
    highway-env 1.12.
    """
    unknown = sorted(set(regions) - set(PROFILES))
    if unknown or not regions or len(set(regions)) < len(regions):
        raise UsageError(
            "regions",
            got=", ".join(regions) or "none",
            expected=f"each of {', '.join(PROFILES)} at most once",
            hint="name regions that have a traffic profile",
        )
    for name, value, least in (("vehicles", vehicles, 1), ("seed", seed, 0)):
        if value < least:
            raise UsageError(name, got=value, expected=f"at least {least}", hint=f"set {name} = {least}")
    columns: dict[str, list[np.ndarray]] = {}
    for region in regions:
        _add_region(columns, PROFILES[region], vehicles, seed, progress)
    return of_rows(
        {name: _joined(parts) for name, parts in columns.items()},
        licence="CC0-1.0 (generated)",
        identity="physical",
        origin="synthetic",
    )


def _add_region(
    columns: dict[str, list[np.ndarray]],
    profile: Profile,
    vehicles: int,
    seed: int,
    progress: Progress | None,
) -> None:
    """Append recordings until the region has its vehicles; the last one is cut short."""
    record = _simulator()
    stream = crc32(profile.name.encode())
    done = number = 0
    while done < vehicles:
        kind = _scene(profile, number)
        tracks = record(profile, kind, np.random.default_rng([seed, stream, number]))
        recording = f"{profile.name}-{seed}-{number:04d}-{kind}"
        for place, track in enumerate(tracks[: vehicles - done]):
            x, y, vx, vy, heading = np.round(track.state, 3).T
            row = {
                "region": profile.name,
                "source": "highway-env",
                "recording": recording,
                "vehicle": f"{profile.name}-{seed}-{number:04d}-{place:03d}",
                "type": track.type,
                "t": track.t,
                "x": x,
                "y": y,
                "vx": vx,
                "vy": vy,
                "heading": heading,
                "length": round(track.length, 1),
                "width": round(track.width, 1),
                "hz": profile.hz,
            }
            for name, value in row.items():
                columns.setdefault(name, []).append(
                    value if isinstance(value, np.ndarray) else np.full(len(track.t), value)
                )
        done += len(tracks)
        number += 1
        if progress:
            progress(profile.name, min(done, vehicles), vehicles)


def _scene(profile: Profile, number: int) -> str:
    """Scenes in the profile's shares, evenly spread over any run of recordings."""
    names, shares = zip(*profile.scenes, strict=True)
    place = (number * GOLDEN) % 1.0 * sum(shares)
    return str(names[int(np.searchsorted(np.cumsum(shares), place, side="right"))])


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    joined = np.concatenate(parts)
    return joined if joined.dtype.kind == "U" else joined.astype(np.float32)


def _simulator() -> Callable[[Profile, str, np.random.Generator], tuple[Track, ...]]:
    """`recording.record`, or how to install what it needs."""
    try:
        from fedfsd.drive.traffic.recording import record
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("fedfsd"):
            raise
        raise NotReadyError(
            "data generate",
            got=f"no module {error.name}",
            expected="the extra generate",
            hint=install("generate"),
        ) from None
    return record
