"""Generated traffic: highway-env's IDM and MOBIL drivers, with a profile for each region.

Nobody drove it, so it needs no protection and may ship with the package; it is the embedded default
(`fedfsd.drive.embedded`) and what public pre-training uses. Only making tables needs highway-env, which the
extra ``generate`` installs. A recording is drawn from its own
random stream, named by seed, region and number: a smaller table is the beginning of a larger one.
"""

from __future__ import annotations

import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing, contextmanager
from itertools import count
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import pyarrow as pa

from fedfsd.drive.table import Table, of_rows
from fedfsd.drive.traffic.profile import PROFILES, Profile
from fedfsd.errors import NotReadyError, UsageError, install

if TYPE_CHECKING:
    from fedfsd.drive.traffic.recording import Track

GOLDEN = (5**0.5 - 1) / 2
_ALONE = 2000  # vehicles that are made before other processes have started
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
    _simulator()  # refused before anything runs
    columns: dict[str, list[np.ndarray]] = {}
    names = _Names()
    with _numbered_recordings(vehicles * len(regions)) as recordings:
        for region in regions:
            _add_region(columns, names, recordings, PROFILES[region], vehicles, seed, progress)
    return of_rows(
        names.columns() | {name: np.concatenate(parts, dtype=np.float32) for name, parts in columns.items()},
        licence="CC0-1.0 (generated)",
        identity="physical",
        origin="synthetic",
    )


class _Names:
    """The text columns of tracks, one after the other: each text once, however many rows have it."""

    def __init__(self) -> None:
        self._texts: dict[str, list[str]] = {}
        self._rows: list[int] = []

    def add(self, texts: Mapping[str, str], rows: int) -> None:
        """A track of so many rows."""
        for name, text in texts.items():
            self._texts.setdefault(name, []).append(text)
        self._rows.append(rows)

    def columns(self) -> dict[str, object]:
        """By name."""
        row = np.repeat(np.arange(len(self._rows)), self._rows)
        return {
            name: pa.array(texts).dictionary_encode().take(pa.array(row))
            for name, texts in self._texts.items()
        }


Recordings = Callable[[Profile, int], Generator[tuple["Track", ...]]]


@contextmanager
def _numbered_recordings(vehicles: int) -> Iterator[Recordings]:
    """The recordings of a profile and seed, one after the other; for many vehicles on every processor.

    Each has a random stream of its own, so it does not matter who simulates it.
    """
    workers = len(os.sched_getaffinity(0)) if vehicles > _ALONE else 1
    if workers < 2:
        yield lambda profile, seed: (_recorded(profile, seed, number) for number in count())
        return
    # Neither threads nor locks of this process are copied into a worker.
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:

        def ahead(profile: Profile, seed: int) -> Generator[tuple[Track, ...]]:
            numbers = count()
            waiting = deque(pool.submit(_recorded, profile, seed, next(numbers)) for _ in range(3 * workers))
            try:
                while True:
                    yield waiting.popleft().result()
                    waiting.append(pool.submit(_recorded, profile, seed, next(numbers)))
            finally:
                for one in waiting:
                    one.cancel()

        yield ahead


def _recorded(profile: Profile, seed: int, number: int) -> tuple[Track, ...]:
    stream = [seed, crc32(profile.name.encode()), number]
    return _simulator()(profile, _scene(profile, number), np.random.default_rng(stream))


def _add_region(
    columns: dict[str, list[np.ndarray]],
    names: _Names,
    recordings: Recordings,
    profile: Profile,
    vehicles: int,
    seed: int,
    progress: Progress | None,
) -> None:
    """Append recordings until the region has its vehicles; the last one is cut short."""
    done = 0
    with closing(recordings(profile, seed)) as found:
        for number, tracks in enumerate(found):
            for place, track in enumerate(tracks[: vehicles - done]):
                texts = {
                    "region": profile.name,
                    "source": "highway-env",
                    "recording": f"{profile.name}-{seed}-{number:04d}-{_scene(profile, number)}",
                    "vehicle": f"{profile.name}-{seed}-{number:04d}-{place:03d}",
                    "type": track.type,
                }
                names.add(texts, len(track.t))
                x, y, vx, vy, heading = np.round(track.state, 3).T
                row = {"t": track.t, "x": x, "y": y, "vx": vx, "vy": vy, "heading": heading}
                same = {"length": round(track.length, 1), "width": round(track.width, 1), "hz": profile.hz}
                row |= {name: np.full(len(track.t), value) for name, value in same.items()}
                for name, values in row.items():
                    columns.setdefault(name, []).append(values.astype(np.float32))
            done += len(tracks)
            if progress:
                progress(profile.name, min(done, vehicles), vehicles)
            if done >= vehicles:
                return


def _scene(profile: Profile, number: int) -> str:
    """Scenes in the profile's shares, evenly spread over any run of recordings."""
    names, shares = zip(*profile.scenes, strict=True)
    place = (number * GOLDEN) % 1.0 * sum(shares)
    return str(names[int(np.searchsorted(np.cumsum(shares), place, side="right"))])


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
