"""Vehicle keys: what is protected is what stands under one key."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator

from fedfsd.drive.check.finding import Finding
from fedfsd.drive.check.track import Index

EGO = re.compile(r"(^|[/_:-])(ego|sdc)([/_:-]|\d*$)|/av$", re.IGNORECASE)
ONE_RECORDING_SHARE = 0.9


def keys(index: Index) -> Iterator[Finding]:
    """Recording cars under several keys, keys of one recording only, keys in two regions."""
    places: dict[str, set[int]] = defaultdict(set)
    for place, vehicle in index.seen.tolist():
        places[index.vehicles[vehicle]].add(place)
    yield from _ego(index, places)
    yield from _one_recording(index, places)
    yield from _two_regions(index, places)


def _ego(index: Index, places: dict[str, set[int]]) -> Iterator[Finding]:
    cars: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    total: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for key, found in places.items():
        for number in found:
            place = index.places[number]
            group = (place.region, place.source, place.city)
            total[group].add(key)
            if EGO.search(key):
                cars[group].add(key)
    for group, found_keys in sorted(cars.items()):
        if len(found_keys) < 2:
            continue
        region, source, city = group
        yield Finding(
            "repeated-ego-key",
            "error",
            region,
            source,
            None,
            len(found_keys),
            len(total[group]),
            "vehicles",
            f"one car, and its owner, stands under {len(found_keys)} keys in {city or 'this source'}: "
            f"give all its tracks the key {source}/{city or region}/ego",
        )


def _one_recording(index: Index, places: dict[str, set[int]]) -> Iterator[Finding]:
    recordings: dict[tuple[str, str], set[int]] = defaultdict(set)
    for number, place in enumerate(index.places):
        recordings[place.region, place.source].add(number)
    count: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for key, found in places.items():
        for group in {(index.places[i].region, index.places[i].source) for i in found}:
            if not EGO.search(key):
                count[group][0] += len(found & recordings[group]) == 1
                count[group][1] += 1
    for (region, source), (once, total) in sorted(count.items()):
        identity, origin = index.declared[source]
        # A simulated vehicle lives in one episode; nobody meets it again.
        if origin == "synthetic" or len(recordings[region, source]) < 2 or once < ONE_RECORDING_SHARE * total:
            continue
        physical = identity == "physical"
        yield Finding(
            "key-in-one-recording",
            "warning" if physical else "note",
            region,
            source,
            None,
            once,
            total,
            "vehicles",
            "identity is declared physical, yet no key comes back: declare identity = recording"
            if physical
            else "as declared, the guarantee is for a recorded track: a vehicle met twice counts as two",
        )


def _two_regions(index: Index, places: dict[str, set[int]]) -> Iterator[Finding]:
    shared: dict[tuple[tuple[str, ...], tuple[str, ...]], int] = defaultdict(int)
    total: dict[str, int] = defaultdict(int)
    for found in places.values():
        regions = tuple(sorted({index.places[i].region for i in found}))
        for region in regions:
            total[region] += 1
        if len(regions) > 1:
            shared[regions, tuple(sorted({index.places[i].source for i in found}))] += 1
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
