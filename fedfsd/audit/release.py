"""What was released, looked at: every update that a file shows, against the noise that its plan adds.

The planned noise is worked out here a second time, from the plan's document and FORMAT.md alone: one unit
of noise is sent through the optimizer, step by step. The statistics are those that both gates run.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import cos, floor, isfinite, log2, pi, prod, sqrt
from pathlib import Path
from typing import Any

import numpy as np

from fedfsd.audit.evidence import Evidence, Ledger
from fedfsd.audit.finding import Finding, contradiction, left_out, remark, skipped, undecided
from fedfsd.audit.loss import event_of, rounds_of
from fedfsd.audit.updates import Updates
from fedfsd.errors import FedfsdError
from fedfsd.gate.watch import OTHER_ROUNDS, seen
from fedfsd.language import say
from fedfsd.ledger.entry import Incident, Release
from fedfsd.mechanism import watch
from fedfsd.mechanism.watch import Sight, State
from fedfsd.plan.plan import BLOCKS, CANARIES


def check_incidents(ledger: Ledger) -> Iterator[Finding]:
    """No update of the region was found to be something else than what its plan releases."""
    for one in ledger.entries():
        if isinstance(one, Incident) and one.round is not None:
            place = f"plan {str(one.plan)[:8]}, round {one.round}"
            yield contradiction(place, f"{one.finding}: {one.text}", say("an update as planned"))


def check_releases(ledger: Ledger, evidence: Evidence) -> Iterator[Finding]:
    """The noise in every released update is the plan's: its scale, shape and floor, and used once."""
    if evidence.releases is None:
        yield skipped(say("no --releases: nothing shows what the updates contain"))
        return
    by_plan: dict[str, dict[int, Release]] = {}
    for one in ledger.entries():
        if isinstance(one, Release) and one.plan in ledger.terms:
            by_plan.setdefault(one.plan, {}).setdefault(one.round, one)
    if not by_plan:
        yield skipped(say("the ledger has no release of a plan that can be read"))
    for plan, found in by_plan.items():
        yield from _plan(ledger, evidence, evidence.releases, plan, found)


def _plan(
    ledger: Ledger, evidence: Evidence, files: Updates, plan: str, found: Mapping[int, Release]
) -> Iterator[Finding]:
    document = ledger.plans[plan].document
    try:
        planned = Planned.of(document, ledger.region)
    except (FedfsdError, KeyError, TypeError, ValueError, IndexError, ZeroDivisionError, OverflowError):
        yield undecided(
            f"plan {plan[:8]}", say("a document from which the noise of an update cannot be worked out")
        )
        return
    state, missing = State(), []
    blocks: dict[int, list[np.ndarray]] = {}
    for name in planned.regions:
        if name != ledger.region:
            _blocks_of(name, plan, evidence, files, blocks)
    for round in sorted(found):
        path = files.find(found[round].sha256, found[round].bytes)
        sight = None if path is None else planned.sight(path, round)
        if sight is None:
            missing.append(round)
            continue
        last = planned.number(round)
        near = [
            block for number in range(last - OTHER_ROUNDS + 1, last + 1) for block in blocks.get(number, ())
        ]
        state, alarm = watch.look(
            state, sight, rounds=planned.rounds, regions=len(planned.regions), others=near
        )
        if alarm is not None:
            place = f"plan {plan[:8]}, round {round}"
            yield contradiction(place, f"{alarm.code}: {alarm.said}", say("the noise of the plan"))
            yield left_out(say("the updates after that one"))
            break
    if missing:
        shown = ", ".join(map(str, missing[:10])) + (", ..." if len(missing) > 10 else "")
        yield undecided(
            f"plan {plan[:8]}",
            say(
                "the released bytes of {missing} of {whole} rounds are not here (rounds {rounds}); the "
                "statistics are of the other {looks}",
                missing=len(missing),
                whole=len(found),
                rounds=shown,
                looks=state.looks,
            ),
        )
    elif state.looks:
        yield remark(
            say(
                "plan {plan}: {looks} updates, {power}",
                plan=plan[:8],
                looks=state.looks,
                power=planned.power,
            )
        )


def _blocks_of(
    name: str, plan: str, evidence: Evidence, files: Updates, blocks: dict[int, list[np.ndarray]]
) -> None:
    """The witness blocks of another region, by round of the plan."""
    for other in evidence.ledgers:
        if other.region != name or plan not in other.terms:
            continue
        planned = Planned.of(other.plans[plan].document, name)
        for one in other.entries():
            if isinstance(one, Release) and one.plan == plan:
                path = files.find(one.sha256, one.bytes)
                sight = None if path is None else planned.sight(path, one.round)
                if sight is not None:
                    blocks.setdefault(planned.number(one.round), []).append(sight.witness)


@dataclass(frozen=True)
class Planned:
    """What a plan's document says of one region's updates."""

    rounds: int
    """In which the region takes part; it counts them from 1."""
    regions: tuple[str, ...]
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    document: Mapping[str, Any]
    region: str

    @classmethod
    def of(cls, document: Mapping[str, Any], region: str) -> Planned:
        """Read a document; what is missing raises KeyError or TypeError."""
        shapes = tuple((one["name"], tuple(one["shape"])) for one in document["model"]["arrays"])
        own = document["regions"][region].get("rounds")
        rounds = document["num_rounds"] if own is None else len(own)
        found = cls(rounds, tuple(document["regions"]), shapes, document, region)
        found.std(1)
        return found

    @property
    def size(self) -> int:
        """Entries of an update."""
        return sum(prod(shape) for _, shape in self.shapes)

    def number(self, round: int) -> int:
        """Which round of the plan is the region's own round ``round``."""
        own = self.document["regions"][self.region].get("rounds")
        return round if own is None else int(own[round - 1])

    def std(self, round: int) -> tuple[float, float, float | None]:
        """Standard deviations of an entry's noise, of all steps and of the last; the grid of the witness."""
        mine = self.document["regions"][self.region]
        one = rounds_of(event_of(self.document, self.region, self.rounds), self.rounds)[round]
        moved = self._moved(round)
        divisor = mine["sample_rate"] * mine["roster"]
        step_std = one.noise_multiplier * one.max_grad_norm
        std = step_std * sqrt(sum(one * one for one in moved)) / divisor
        if not (isfinite(std) and std > 0):
            raise ValueError("no noise")
        widest = min(2.0**-20 * step_std, 2.0**-11 * one.max_grad_norm / sqrt(self.size))
        grid = 2.0 ** floor(log2(widest))
        lattice = moved[0] * grid / divisor if max(moved) == min(moved) else None
        return std, step_std * moved[-1] / divisor, lattice

    def _moved(self, round: int) -> list[float]:
        """How far one unit of each step's gradient has moved the parameters by the round's end."""
        steps, optimizer = self.document["regions"][self.region]["local_steps"], self.document["optimizer"]
        rate = optimizer["learning_rate"]
        if optimizer["schedule"] == "cosine":
            rate *= (1 + cos(pi * (self.number(round) - 1) / self.document["num_rounds"])) / 2
        return [_moved(step, steps, rate, optimizer["momentum"]) for step in range(steps)]

    def pulls(self, round: int) -> list[float]:
        """By how much of an entry's planned noise a drawn canary moves its entry, step by step."""
        one = rounds_of(event_of(self.document, self.region, self.rounds), self.rounds)[round]
        moved = self._moved(round)
        return [gain / (one.noise_multiplier * sqrt(sum(all * all for all in moved))) for gain in moved]

    @property
    def looks(self) -> int:
        """How many verdicts on canaries there are, of all regions."""
        own = (one.get("rounds") for one in self.document["regions"].values())
        return sum(self.document["num_rounds"] if one is None else len(one) for one in own)

    def canaries(self, path: Path, round: int) -> np.ndarray | None:
        """The canaries' block in units of its planned noise, larger where gradients made it so."""
        parts = self._parts(path, round)
        if parts is None or CANARIES not in parts:
            return None
        block: np.ndarray = -parts[CANARIES].astype(np.float64) / self.std(round)[0]
        return block

    def sight(self, path: Path, round: int) -> Sight | None:
        """What the statistics see of the update in a file; None where it is none of this plan's."""
        parts = self._parts(path, round)
        if parts is None:
            return None
        std, last, lattice = self.std(round)
        return seen(parts, round, std=std, last=last, lattice=lattice)

    def _parts(self, path: Path, round: int) -> dict[str, np.ndarray] | None:
        if not 1 <= round <= self.rounds or path.stat().st_size != 4 * self.size:
            return None
        with path.open("rb") as file:
            flat = np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), "<f4")
        ends = np.cumsum([prod(shape) for _, shape in self.shapes])
        parts = dict(zip((name for name, _ in self.shapes), np.split(flat, ends[:-1]), strict=True))
        if not np.isfinite(flat).all():
            return None
        return parts

    @property
    def power(self) -> str:
        """Which missing noise would have been noticed, for people."""
        std, last, _ = self.std(1)
        return power(
            dict(self.shapes), rounds=self.rounds, regions=len(self.regions), earlier=(std / last) ** 2 - 1
        )


def power(shapes: Mapping[str, tuple[int, ...]], *, rounds: int, regions: int, earlier: float = 0.0) -> str:
    """What the statistics notice by a plan's end, for people.

    ``earlier``: the variance of the noise of a round's earlier steps, in units of that of the last.
    """
    size = sum(prod(shape) for name, shape in shapes.items() if name not in BLOCKS)
    witness = sum(prod(shape) for name, shape in shapes.items() if name == "noise_witness")
    shares = [share / 100 for share in range(99, 0, -1)]
    block = next(
        (one for one in shares if watch.noticed_in_witness(one, witness, rounds, regions=regions)), None
    )
    model = {
        signal: next(
            (
                one
                for one in shares
                if watch.noticed(one, size, rounds, regions=regions, signal=signal, earlier=earlier)
            ),
            None,
        )
        for signal in (0.0, 0.5)
    }

    def said(share: float | None) -> str:
        if share is None:
            return say("none")
        return say("{share:.0%} of the planned noise or less", share=share)

    return say(
        "of which these would show: in the witness block of {witness} entries {block}; in the model's {size} "
        "entries {steady} where the signal is steady, {changing} where it changes from round to round by "
        "half of the noise",
        witness=witness,
        block=said(block),
        size=size,
        steady=said(model[0.0]),
        changing=said(model[0.5]),
    )


def _moved(step: int, steps: int, rate: float, momentum: float) -> float:
    """How far one unit of a step's gradient has moved the parameters by the round's end."""
    velocity = total = 0.0
    for now in range(step, steps):
        velocity = momentum * velocity + (now == step)
        total += rate * velocity
    return total
