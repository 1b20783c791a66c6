"""Vehicle keys: what is protected is what stands under one key."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from fedfsd.drive.check.finding import Finding
from fedfsd.drive.check.track import Index

EGO = re.compile(r"(^|[/_:-])(ego|sdc)([/_:-]|\d*$)|/av$", re.IGNORECASE)
ONE_RECORDING_SHARE = 0.9


def keys(index: Index) -> Iterator[Finding]:
    """Recording cars under several keys, keys of one recording only, keys in two regions."""
    ego = np.array([EGO.search(key) is not None for key in index.vehicles], bool)
    yield from _ego(index, ego)
    yield from _one_recording(index, ego)
    yield from _two_regions(index)


def _grouped(index: Index, names: Sequence[Hashable]) -> tuple[list[Any], np.ndarray, np.ndarray, np.ndarray]:
    """Places by a name of each: the distinct names; group, vehicle and places of each distinct pair, (M,)."""
    numbers: dict[Any, int] = {}
    group = np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64)
    place, vehicle = index.seen.T
    pairs, places = np.unique(group[place] * len(index.vehicles) + vehicle, return_counts=True)
    return list(numbers), *np.divmod(pairs, len(index.vehicles)), places


def _ego(index: Index, ego: np.ndarray) -> Iterator[Finding]:
    names = [(place.region, place.source, place.city) for place in index.places]
    groups, group, vehicle, _ = _grouped(index, names)
    total = np.bincount(group, minlength=len(groups))
    cars = np.bincount(group[ego[vehicle]], minlength=len(groups))
    for number in sorted(np.flatnonzero(cars > 1).tolist(), key=groups.__getitem__):
        region, source, city = groups[number]
        yield Finding(
            "repeated-ego-key",
            "error",
            region,
            source,
            None,
            int(cars[number]),
            int(total[number]),
            "vehicles",
            f"one car, and its owner, stands under {cars[number]} keys in {city or 'this source'}: "
            f"give all its tracks the key {source}/{city or region}/ego",
        )


def _one_recording(index: Index, ego: np.ndarray) -> Iterator[Finding]:
    names = [(place.region, place.source) for place in index.places]
    groups, group, vehicle, places = _grouped(index, names)
    recordings, others = Counter(names), ~ego[vehicle]
    total = np.bincount(group[others], minlength=len(groups))
    once = np.bincount(group[others & (places == 1)], minlength=len(groups))
    for number in sorted(np.flatnonzero(total).tolist(), key=groups.__getitem__):
        region, source = groups[number]
        identity, origin = index.declared[source]
        # A simulated vehicle lives in one episode; nobody meets it again.
        few = recordings[region, source] < 2 or once[number] < ONE_RECORDING_SHARE * total[number]
        if origin == "synthetic" or few:
            continue
        physical = identity == "physical"
        yield Finding(
            "key-in-one-recording",
            "warning" if physical else "note",
            region,
            source,
            None,
            int(once[number]),
            int(total[number]),
            "vehicles",
            "identity is declared physical, yet no key comes back: declare identity = recording"
            if physical
            else "as declared, the guarantee is for a recorded track: a vehicle met twice counts as two",
        )


def _two_regions(index: Index) -> Iterator[Finding]:
    groups, group, vehicle, _ = _grouped(index, [place.region for place in index.places])
    total = dict(zip(groups, np.bincount(group, minlength=len(groups)).tolist(), strict=True))
    both = np.flatnonzero(np.bincount(vehicle, minlength=len(index.vehicles)) > 1)
    places: dict[int, set[int]] = defaultdict(set)
    for place, key in index.seen[np.isin(index.seen[:, 1], both)].tolist():
        places[key].add(place)
    shared = Counter(
        tuple(
            tuple(sorted({getattr(index.places[place], name) for place in found}))
            for name in ("region", "source")
        )
        for found in places.values()
    )
    for (regions, sources), count in sorted(shared.items()):
        yield Finding(
            "key-in-two-regions",
            "error",
            ", ".join(regions),
            ", ".join(sources),
            None,
            count,
            sum(total[region] for region in regions),
            "vehicles",
            "two regions would each spend a budget on it: where they are different vehicles, import each "
            "region with a --source of its own; else state the composed epsilon",
        )
