"""The gate of one region: it books rounds before data is read and lets updates out, judged and canonical."""

from __future__ import annotations

from functools import cached_property
from math import inf, sqrt
from pathlib import Path

import numpy as np

from fedfsd.errors import RefusedError, UnusualNoiseError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate.policy import ModelPin, Policy
from fedfsd.gate.resident import demand_shareable
from fedfsd.gate.watch import Watcher
from fedfsd.language import say
from fedfsd.ledger import program as programs
from fedfsd.ledger.ledger import Booked, Ledger, Released
from fedfsd.mechanism import canary
from fedfsd.mechanism.kind import gains
from fedfsd.plan.plan import WITNESS, Arrays, Plan

# Correct noise passes with probability 1 - exp(-18) on either side (Laurent and Massart 2000, lemma 1).
# At nine tenths of its scale it passes a witness block of the default size once in a thousand rounds.
WITNESS_Z = 6.0
USUAL_WITNESS = 1024  # the floor of a policy as fedfsd region init writes it
_BLOCK = 2**16

# In a region's folder; a real region keeps the mirror on another disk.
LEDGER = "ledger"
MIRROR = "mirror.jsonl"
WATCH = "watch"


class Gate:
    """``admit`` what comes in, ``reserve``, then ``release`` what goes out; refusals are RefusedError."""

    def __init__(self, region: str, policy: Policy, folder: Path) -> None:
        self.region, self.policy, self._folder = region, policy, folder
        self._accepted: set[str] = set()

    @cached_property
    def ledger(self) -> Ledger:
        """The region's ledger; NotReadyError where there is none or an old copy."""
        return open_ledger(self._folder)

    def admit(self, plan: Plan, round: int, arrays: Arrays) -> None:
        """Refuse a plan the policy does not allow, a round outside it, or arrays that are not its model's."""
        if plan.hash not in self._accepted:
            self.policy.demand(plan, self.region)
            self._accepted.add(plan.hash)
        if type(round) is not int or not 1 <= round <= plan.rounds_of(self.region):
            raise RefusedError(
                "round",
                got=round,
                expected=f"1 to {plan.rounds_of(self.region)}, as planned",
                hint="a longer run needs a new plan",
            )
        gate_arrays.check(arrays, plan.model.arrays, max_magnitude=self.policy.max_inbound_magnitude)

    def reserve(self, plan: Plan, round: int, arrays: Arrays) -> Booked:
        """Book the round on these arrays, for the program of this process; see ``Ledger.reserve``."""
        sha256 = gate_arrays.sha256(arrays, plan.model.arrays)
        return self.ledger.reserve(plan.hash, round, sha256, program=programs.installed())

    def released(self, booked: Booked) -> Released | None:
        """What was released of it already, to be sent again as it is; see ``Ledger.released``."""
        return self.ledger.released(booked)

    def release(self, arrays: Arrays, booked: Booked, plan: Plan, canaries: str = "") -> Released:
        """Judge the update, alone and after those before it; book its bytes; hand back what may be sent.

        Args:
            canaries: the runner's verdict on them (``mechanism.canary.verdict``), where the plan has some.
        """
        self._demand_usual(arrays, booked, plan, canaries)
        return self.ledger.release(gate_arrays.content(arrays, plan.model.arrays), booked)

    def release_bytes(
        self, content: bytes | memoryview, booked: Booked, plan: Plan, canaries: str = ""
    ) -> Released:
        """The same for an update that came as bytes; they are judged in place."""
        demand_shareable(content, place="release")
        self._demand_usual(gate_arrays.view(content, plan.model.arrays), booked, plan, canaries)
        return self.ledger.release(content, booked)

    def _demand_usual(self, arrays: Arrays, booked: Booked, plan: Plan, canaries: str) -> None:
        """Refuse what canaries, ``judge`` or the statistics over rounds refuse; that ends the plan here."""
        try:
            demand_canaries(canaries, plan, self.region)
            judge(arrays, plan, self.region, booked.round)
            Watcher(self._folder / WATCH).look(arrays, plan, self.region, booked.round)
        except UnusualNoiseError as error:
            self.end(booked, error)
            raise

    def end(self, booked: Booked, found: UnusualNoiseError) -> None:
        """Put on record what was found in an update: the plan ends here; see ``Ledger.end``."""
        self.ledger.end(booked, finding=found.finding, text=str(found.got))

    def settle(self, plan_hash: str) -> None:
        """End a plan; see ``Ledger.settle``."""
        self.ledger.settle(plan_hash)

    def demand_wanted(self) -> None:
        """Raise if the update is no longer wanted: never, in one process."""

    def pin(self, model: str, task: str) -> ModelPin | None:
        """What the policy says of a task's model of another package."""
        return self.policy.pin(model, task)

    def pin_task(self, task: str) -> ModelPin | None:
        """What the policy says of a task of another package."""
        return self.policy.pin_task(task)


def open_ledger(folder: Path) -> Ledger:
    """The ledger in a region's folder, beside its mirror."""
    return Ledger(folder / LEDGER, mirror=folder / MIRROR)


def content_of(arrays: Arrays, plan: Plan, region: str, round: int) -> bytes | memoryview:
    """The canonical bytes of an update that may leave, or RefusedError."""
    judge(arrays, plan, region, round)
    return gate_arrays.content(arrays, plan.model.arrays)


def judge(arrays: Arrays, plan: Plan, region: str, round: int) -> None:
    """Refuse an update that is not the plan's model, not finite, or (UnusualNoiseError) off scale."""
    gate_arrays.check(arrays, plan.model.arrays)
    norm = sqrt(sum(float(np.vdot(array, array)) for array in arrays.values()))
    if norm > (limit := max_update_norm(plan, region, round)):
        got = "a norm larger than clipping and noise allow"  # its value is of the data
        raise UnusualNoiseError("update", got=got, expected=f"at most {limit:.3g}", finding="update-norm")
    if plan.mode == "none" or WITNESS not in arrays:
        return
    expected = witness_std(plan, region, round)
    if expected < np.finfo(np.float32).tiny:
        raise RefusedError(
            "noise witness",
            got="noise too small for float32",
            expected="noise large enough to measure in float32",
        )
    witness = arrays[WITNESS]
    # For n normal values, sum(z^2) has mean n and standard deviation sqrt(2 n).
    z = (_energy(witness) / expected**2 - witness.size) / sqrt(2 * witness.size)
    if not -WITNESS_Z <= z <= WITNESS_Z + WITNESS_Z**2 / sqrt(2 * witness.size):
        got = "noise of a different scale than planned"
        raise UnusualNoiseError(
            "noise witness",
            got=got,
            expected=f"a standard deviation of {expected:.3g}",
            finding="noise-scale",
        )


def demand_canaries(letters: str, plan: Plan, region: str) -> None:
    """Refuse a round whose canaries show nothing, or (UnusualNoiseError) another mechanism than planned."""
    if not plan.region(region).canaries:
        return
    if len(letters) != len(canary.FINDINGS):
        raise RefusedError("canaries", got="no verdict", expected="the runner's, as the plan has canaries")
    if found := canary.findings(letters):
        raise UnusualNoiseError(
            "canaries",
            got="canaries that show another mechanism than the plan's",
            expected="the plan's mechanism",
            finding=found[0],
        )


def _energy(values: np.ndarray) -> float:
    """The sum of squares in float64; block by block, since a copy may be larger than the update."""
    flat = values.reshape(-1)
    blocks = (flat[start : start + _BLOCK].astype(np.float64) for start in range(0, flat.size, _BLOCK))
    return sum(float(block @ block) for block in blocks)


def witness_std(plan: Plan, region: str, round: int) -> float:
    """Standard deviation of every entry of a round's update that no gradient touches."""
    mine = plan.region(region)
    if mine.noise is None:
        return 0.0
    return mine.noise.witness_std(round, _gains(plan, region, round), divisor=mine.divisor)


def least_noise_passed(witness_size: int) -> float:
    """At which share of its planned scale noise passes ``judge`` every second round; more passes more often.

    Of n witness entries with noise of the share s, sum(z^2) has mean n s^2; ``judge`` refuses below
    n - WITNESS_Z sqrt(2 n).
    """
    return sqrt(max(0.0, 1 - WITNESS_Z * sqrt(2 / witness_size))) if witness_size else 0.0


def unnoticed(witness_size: int) -> str | None:
    """What a witness block of this size does not show, for people; None for one of the usual sizes."""
    if witness_size >= USUAL_WITNESS:
        return None
    least = least_noise_passed(witness_size)
    if not least:
        if not witness_size:
            return say(
                "No noise witness block: nobody but the region itself can notice that noise is missing."
            )
        return say(
            "A noise witness block of {size} entries: nobody but the region itself can notice that noise is"
            " missing.",
            size=witness_size,
        )
    return say(
        "The noise witness block has {size} entries: noise of {least:.0%} of its planned scale passes every"
        " second round ({usual} entries: {usual_least:.0%}).",
        size=witness_size,
        least=least,
        usual=USUAL_WITNESS,
        usual_least=least_noise_passed(USUAL_WITNESS),
    )


def max_update_norm(plan: Plan, region: str, round: int) -> float:
    """No update of a region that clips and adds the planned noise is longer, but by chance exp(-18)."""
    mine = plan.region(region)
    if mine.noise is None:
        return inf
    return mine.noise.max_update_norm(
        round,
        _gains(plan, region, round),
        divisor=mine.divisor,
        roster=mine.vehicles,
        size=plan.model.size,
        z=WITNESS_Z,
    )


def _gains(plan: Plan, region: str, round: int) -> np.ndarray:
    """How far each step's mean gradient moves the parameters by the round's end, (local_steps,)."""
    return gains(
        learning_rate=plan.learning_rate(plan.round_of(region, round)),
        momentum=plan.optimizer.momentum,
        local_steps=plan.region(region).local_steps,
    )
