"""The statistics of ``mechanism.watch`` at a gate: what is planned, and a state that survives a restart.

A folder keeps, for every plan and region, the state after the newest release and after the one before it, so
that a release that is judged again after a crash is judged from the same state and counts once. Everything in
it is computed from released bytes and the plan.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path

import numpy as np

from fedfsd.errors import UnusualNoiseError
from fedfsd.ledger.disk import write_whole
from fedfsd.mechanism import watch
from fedfsd.mechanism.kind import Mechanism, gains
from fedfsd.mechanism.watch import Sight, State
from fedfsd.plan.plan import WITNESS, Arrays, Plan

MOST_GROUPS = 32
"""Arrays of the model that are watched one by one, the largest; the others together."""
GROUP_SAMPLE = 2048
"""Entries of each that are looked at."""
OTHER_ROUNDS = 2
"""Of every other region's newest witness blocks, how many a release is compared with."""


@dataclass(frozen=True)
class Watcher:
    """Watches the releases of one or several regions, with its memory in ``folder``."""

    folder: Path

    def look(self, arrays: Arrays, plan: Plan, region: str, round: int) -> None:
        """Judge a release that ``judge`` let pass, together with those before it, and remember it.

        Raises:
            UnusualNoiseError: noise that a correct region releases once in a thousand plans.
            NotReadyError: the disk is full.
        """
        mine = plan.region(region)
        if mine.noise is None:
            return
        found = sight(
            arrays,
            mine.noise,
            round,
            rate=plan.learning_rate(plan.round_of(region, round)),
            momentum=plan.optimizer.momentum,
            divisor=mine.divisor,
        )
        plan_hash = plan.hash
        before = self._newest(plan_hash, region, before=round) or State()
        others = [block for name in plan.regions if name != region for block in self._blocks(plan_hash, name)]
        after, alarm = watch.look(
            before, found, rounds=plan.rounds_of(region), regions=len(plan.regions), others=others
        )
        if alarm is not None:
            raise UnusualNoiseError(
                f"noise of {region}, round {round}",
                got=alarm.text,
                expected="the plan's noise",
                finding=alarm.code,
            )
        self._keep(plan_hash, region, round, after)

    def _blocks(self, plan_hash: str, region: str) -> Iterator[np.ndarray]:
        state = self._newest(plan_hash, region)
        if state is not None:
            yield from (block for _, block in state.blocks[-OTHER_ROUNDS:])

    def _newest(self, plan_hash: str, region: str, *, before: int | None = None) -> State | None:
        """The state after the newest release (before a round); None where there is none that can be read."""
        for number in sorted(self._rounds(plan_hash, region), reverse=True):
            if before is None or number < before:
                with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
                    path = self._path(plan_hash, region, number)
                    found = path.stat()
                    return _as_kept(path, (found.st_ino, found.st_mtime_ns, found.st_size))
        return None

    def _keep(self, plan_hash: str, region: str, round: int, state: State) -> None:
        path = self._path(plan_hash, region, round)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, _written(state))
        for number in sorted(self._rounds(plan_hash, region))[:-2]:
            self._path(plan_hash, region, number).unlink(missing_ok=True)

    def _rounds(self, plan_hash: str, region: str) -> list[int]:
        found = (self.folder / plan_hash).glob(f"{region}.*.npz")
        return [int(number) for path in found if (number := path.name.split(".")[1]).isdigit()]

    def _path(self, plan_hash: str, region: str, round: int) -> Path:
        return self.folder / plan_hash / f"{region}.{round}.npz"


def sight(
    arrays: Arrays, noise: Mechanism, round: int, *, rate: float, momentum: float, divisor: float
) -> Sight:
    """What the statistics see of a release: its entries in units of the noise that the plan adds to each."""
    moved = gains(learning_rate=rate, momentum=momentum, local_steps=noise.local_steps)
    std = noise.witness_std(round, moved, divisor=divisor)
    last = noise.witness_std(round, moved[-1:], divisor=divisor)
    size = sum(array.size for array in arrays.values())
    lattice = noise.witness_lattice(round, moved, divisor=divisor, size=size)
    return seen(arrays, round, std=std, last=last, lattice=lattice)


def seen(arrays: Arrays, round: int, *, std: float, last: float, lattice: float | None) -> Sight:
    """The same from the planned standard deviation of an entry's noise and the lattice of witness values.

    ``last``: that of the noise of the last step alone. A gradient may take back what the noise of earlier
    steps has moved, so in the model nothing more is certain.
    """
    names = [name for name, array in arrays.items() if name != WITNESS and array.size]
    large = set(sorted(names, key=lambda name: -arrays[name].size)[:MOST_GROUPS])
    small = [name for name in names if name not in large]
    groups = [(name, _sample(arrays[name], GROUP_SAMPLE) / last) for name in names if name in large]
    if small:
        few = max(1, GROUP_SAMPLE // len(small))
        groups.append((watch.REST, np.concatenate([_sample(arrays[name], few) for name in small]) / last))
    block = arrays[WITNESS].astype(np.float64) / std if WITNESS in arrays else np.empty(0)
    return Sight(round, block, tuple(groups), None if lattice is None else lattice / std)


def _sample(array: np.ndarray, count: int) -> np.ndarray:
    """Evenly spaced entries, the same ones in every round."""
    flat = array.reshape(-1)
    found: np.ndarray = flat[:: max(1, -(-flat.size // count))].astype(np.float64)
    return found


def _written(state: State) -> bytes:
    """A state as the bytes of its file; blocks are float32, as they were released."""
    content = io.BytesIO()
    numbers = np.array([number for number, _ in state.blocks], np.int64)
    blocks = np.array([block for _, block in state.blocks], np.float32)
    np.savez(
        content,
        looks=np.int64(state.looks),
        numbers=numbers,
        blocks=blocks,
        **{name: getattr(state, name) for name in _ARRAYS},
    )
    return content.getvalue()


@lru_cache(maxsize=64)
def _as_kept(path: Path, _: tuple[int, ...]) -> State:
    """The state in a file; read once, since every region's look reads those of all others again."""
    return _read(path.read_bytes())


def _read(content: bytes) -> State:
    with np.load(io.BytesIO(content), allow_pickle=False) as found:
        blocks = tuple(
            (int(number), block.astype(np.float64))
            for number, block in zip(found["numbers"], found["blocks"], strict=True)
        )
        return State(looks=int(found["looks"]), blocks=blocks, **{name: found[name] for name in _ARRAYS})


_ARRAYS = tuple(one.name for one in fields(State) if one.name not in ("looks", "blocks"))
