"""Canaries of a plan's real rounds, once their coins are opened: what was released of them, in which rounds.

The region commits to the coins in the plan's entry, before the first round, and opens them when the plan is
settled. From then on anybody who has its ledger and the released bytes can compute what its runner did: the
checks of the mechanism's constants, and lower bounds on epsilon. It shows what the mechanism did to canaries;
only a program that treats vehicles otherwise can hide from that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fedfsd.audit import handed
from fedfsd.audit.evidence import Evidence, Ledger
from fedfsd.audit.lower_bound import Bounds, bounds_of
from fedfsd.audit.release import Planned
from fedfsd.config.load import Frozen
from fedfsd.errors import FedfsdError, NotReadyError
from fedfsd.ledger.digest import opened_commitment
from fedfsd.ledger.entry import Hex32, Region, Release
from fedfsd.mechanism.canary import Check, checks, coins, noticed, scores

MOST_BYTES = 2**16


class Coins(Frozen):
    """What a region opens: the secret of its canaries' coins, and the hash of the run key."""

    format: Literal[1] = 1
    kind: Literal["fedfsd-coins"] = "fedfsd-coins"
    plan: Hex32
    region: Region
    seed: Hex32
    key: Hex32


@dataclass(frozen=True)
class Opened:
    """What the canaries of one region's rounds show."""

    committed: bool | None
    """Whether the ledger commits to these coins; None where it commits to nothing (a rehearsal)."""
    canaries: int
    rounds: tuple[int, ...]
    missing: tuple[int, ...]
    """Rounds whose released bytes are not here."""
    steps: int
    checks: tuple[Check, ...]
    bounds: Bounds | None
    """None with fewer canaries than a bound needs."""
    noticed: float
    """From how many times C on one vehicle would have been noticed, nearly always."""


def read(paths: Sequence[Path]) -> tuple[Coins, ...]:
    """The documents in files; see ``handed.read``."""
    source = "what fedfsd region coins writes"
    return handed.read(Coins, paths, most=MOST_BYTES, what="coins", source=source)


def opened(one: Coins, evidence: Evidence) -> Opened:
    """What was released of a region's canaries, by its ledger, against the plan.

    Raises:
        NotReadyError: no ledger of the region with that plan, a plan without canaries, or no released round.
    """
    ledger = _ledger(one, evidence)
    entry = ledger.plans[one.plan]
    try:
        planned = Planned.of(entry.document, one.region)
        mine = planned.document["regions"][one.region]
        count, rate, delta = mine.get("canaries", 0), float(mine["sample_rate"]), float(mine["target_delta"])
        if type(count) is not int or not 0 <= count <= planned.size or not (0 < rate <= 1 and 0 < delta < 1):
            raise ValueError("no plan")
    except (FedfsdError, KeyError, TypeError, ValueError, IndexError, ArithmeticError):
        raise _lacking(
            one, "a plan that cannot be read", "one from which its noise can be worked out"
        ) from None
    if not count:
        raise _lacking(
            one, "a plan without canaries", "one with canaries in the experiment ([audit] canaries)"
        )
    released = {
        item.round: item for item in ledger.entries() if isinstance(item, Release) and item.plan == one.plan
    }
    blocks = {}
    for round, item in sorted(released.items()):
        path = None if evidence.releases is None else evidence.releases.find(item.sha256, item.bytes)
        block = None if path is None else planned.canaries(path, round)
        if block is not None and len(block) >= count:
            blocks[round] = block[:count]
    if not blocks:
        raise _lacking(one, "the released bytes of no round", "some of them (--releases FOLDER)")
    inside, seen = coins(bytes.fromhex(one.seed), count), np.array(list(blocks.values()))
    pulls = np.array([planned.pulls(round) for round in blocks])
    found = scores(seen, pulls)[:-1]
    regular = inside[:-1]
    said = entry.key_commitment
    return Opened(
        committed=None if said is None else said == opened_commitment(one.key, bytes.fromhex(one.seed)),
        canaries=count,
        rounds=tuple(blocks),
        missing=tuple(round for round in sorted(released) if round not in blocks),
        steps=pulls.size,
        checks=checks(seen, inside, pulls, rate),
        bounds=bounds_of(found[regular], found[~regular], delta=delta),
        noticed=noticed(pulls, rate, int(regular.sum()), looks=planned.looks),
    )


def _ledger(one: Coins, evidence: Evidence) -> Ledger:
    for ledger in evidence.ledgers:
        if ledger.region == one.region and one.plan in ledger.plans:
            return ledger
    raise _lacking(one, "no ledger that has the plan", "the region's bundle (--bundle FILE)")


def _lacking(one: Coins, got: str, expected: str) -> NotReadyError:
    return NotReadyError(f"coins of {one.region}, plan {one.plan[:8]}", got=got, expected=expected)
