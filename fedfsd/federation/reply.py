"""What the coordinator accepts from a region: the planned arrays, judged like at the region's own gate."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from flwr.app import Message

from fedfsd.errors import RefusedError, UnusualNoiseError
from fedfsd.flower import held
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.gate import judge
from fedfsd.gate.outcome import BAD_REPLY, FINDINGS, LOST, RELEASED, UNUSUAL, from_flower
from fedfsd.gate.watch import Watcher
from fedfsd.plan.plan import Plan


@dataclass(frozen=True)
class RegionOutcome:
    """What one region did in one round: ``code`` is "released", or why there is no update."""

    code: str
    sha256: str | None = None
    bytes: int = 0
    entry: str | None = None
    """Hash of the release's entry in the region's ledger."""
    finding: str | None = None
    """What the region's own gate or the coordinator's found in it, as a stable word."""


def read(
    message: Message, plan: Plan, region: str, round: int, watcher: Watcher | None = None
) -> tuple[RegionOutcome, dict[str, np.ndarray] | None]:
    """The update of a reply, or the code under which the region is skipped this round.

    ``watcher`` judges it together with those before it.
    """
    if message.has_error():
        word = from_flower(message.error.code) or LOST
        return (RegionOutcome(UNUSUAL, finding=word) if word in FINDINGS else RegionOutcome(word)), None
    try:
        record, release = (
            message.content.array_records.get("arrays"),
            message.content.config_records.get("release"),
        )
        if record is None or release is None:
            raise RefusedError("reply", got="other records", expected="arrays and release")
        arrays = held.arrays_of(record)
        judge(arrays, plan, region, round)
        sha256 = gate_arrays.sha256(arrays, plan.model.arrays)
        if release.get("sha256") != sha256:
            raise RefusedError(
                "reply", got="another hash than the arrays have", expected="the hash of the release"
            )
        entry = str(release.get("entry"))
        if plan.mode != "none" and not re.fullmatch("[0-9a-f]{64}", entry):
            raise RefusedError("reply", got="no entry", expected="the hash of the release's entry")
        if watcher is not None:
            watcher.look(arrays, plan, region, round)
    except UnusualNoiseError as error:
        return RegionOutcome(UNUSUAL, finding=error.finding), None
    except Exception:  # a hostile reply may fail anywhere between its bytes and its arrays
        return RegionOutcome(BAD_REPLY), None
    return RegionOutcome(RELEASED, sha256, 4 * plan.model.size, entry or None), arrays
