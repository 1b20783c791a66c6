"""Canaries in a region's real rounds: their coins, what was released of their block, and the verdict on it.

The secret of the coins comes from the run key, so the plan's entry in the ledger commits to both
(``digest``). It is kept, in a document of its own, when the run key is destroyed, so that it can be opened to
an auditor once the plan is settled. What was released of the block is kept round by round, on disk before the
verdict: a round that is trained again after a crash has the same bits and takes its own place.
"""

from __future__ import annotations

import io
import json
import zipfile
from contextlib import suppress
from pathlib import Path

import numpy as np

from fedfsd.ledger import digest
from fedfsd.ledger.disk import write_whole
from fedfsd.mechanism.canary import coins, pulls_of, verdict
from fedfsd.mechanism.kind import gains
from fedfsd.plan.plan import CANARIES, Arrays, Plan

FOLDER, KIND = "canaries", "fedfsd-coins"


def judged(folder: Path, plan: Plan, region: str, round: int, update: Arrays, run_key: bytes) -> str:
    """What canaries show by the end of ``round``, one letter a check; empty where the plan has none.

    Args:
        folder: the region's. update: of this round, before it is released.

    Raises:
        NotReadyError: the disk is full.
    """
    mine = plan.region(region)
    if not mine.canaries:
        return ""
    own = folder / FOLDER
    own.mkdir(mode=0o700, exist_ok=True)
    _keep_secret(own, plan, region, run_key)
    blocks = {number: block for number, block in _blocks(own / f"{plan.hash}.npz") if number < round}
    blocks[round] = np.array(update[CANARIES][: mine.canaries])
    _keep(own / f"{plan.hash}.npz", blocks)
    seen, pulls = zip(
        *(_in_units(plan, region, number, blocks[number]) for number in sorted(blocks)), strict=True
    )
    looks = sum(plan.rounds_of(name) for name in plan.regions)
    inside = coins(digest.coins_seed(run_key), mine.canaries)
    return verdict(np.array(seen), inside, np.array(pulls), mine.sample_rate, looks=looks)


def document(folder: Path, plan_hash: str) -> Path:
    """Where a plan's coins are, as an auditor may be given them."""
    return folder / FOLDER / f"{plan_hash}.json"


def _in_units(plan: Plan, region: str, round: int, block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(m,) the block in units of its planned noise, and (S,) what a canary moves it by."""
    mine, noise = plan.region(region), plan.mechanism(region)
    rate, momentum = plan.learning_rate(plan.round_of(region, round)), plan.optimizer.momentum
    moved = gains(learning_rate=rate, momentum=momentum, local_steps=mine.local_steps)
    std = noise.witness_std(round, moved, divisor=mine.divisor)
    return -block.astype(np.float64) / std, pulls_of(moved, noise.noise_multiplier(round))


def _keep_secret(own: Path, plan: Plan, region: str, run_key: bytes) -> None:
    path = own / f"{plan.hash}.json"
    if not path.exists():
        content = {
            "format": 1,
            "kind": KIND,
            "plan": plan.hash,
            "region": region,
            "seed": digest.coins_seed(run_key).hex(),
            "key": digest.key_hash(run_key),
        }
        write_whole(path, (json.dumps(content) + "\n").encode(), private=True)


def _blocks(path: Path) -> list[tuple[int, np.ndarray]]:
    """(round, block); none where there is no file that can be read: what it showed is then begun anew."""
    with suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile), np.load(path) as found:
        return [(int(number), block) for number, block in zip(found["rounds"], found["blocks"], strict=True)]
    return []


def _keep(path: Path, blocks: dict[int, np.ndarray]) -> None:
    content, rounds = io.BytesIO(), sorted(blocks)
    np.savez(content, rounds=np.array(rounds), blocks=np.array([blocks[number] for number in rounds]))
    write_whole(path, content.getvalue())
