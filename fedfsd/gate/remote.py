"""The gate as the runner sees it: the same steps, each a call over the Unix socket.

The gate's process has ledger, policy and keys and checks everything again; the checks on this side are the
runner's own, so that a faulty gate cannot make it train on a task that is not its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

from fedfsd.config.load import Frozen
from fedfsd.errors import NotReadyError, RefusedError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate import message, outcome
from fedfsd.gate.frame import FRAME_SECONDS, Frames, PeerGoneError
from fedfsd.gate.gate import content_of
from fedfsd.gate.message import RoundTask
from fedfsd.gate.policy import ModelPin, unreviewed
from fedfsd.ledger.entry import Program
from fedfsd.ledger.ledger import Booked, Released
from fedfsd.plan.plan import Arrays, Plan

# The gate judges, hashes and writes an update within this, also on a slow disk.
ANSWER_SECONDS = 10 * FRAME_SECONDS

M = TypeVar("M", bound=Frozen)


@dataclass(frozen=True)
class _Work:
    """What the gate handed out."""

    frames: Frames
    task: RoundTask


class RemoteGate:
    """Replaces ``gate.Gate`` while a task of the gate is in progress."""

    def __init__(self, region: str, program: Program, *, test_only: bool = False) -> None:
        """``program``: what trains here; every booking names it."""
        self.region, self.program = region, program
        self._modes = ("private", "rehearsal") if test_only else ("private",)
        self._work: _Work | None = None

    def begin(self, frames: Frames, task: RoundTask) -> None:
        """From now on calls go over ``frames`` and are about ``task``."""
        self._work = _Work(frames, task)

    def end(self) -> None:
        """The task is over: no call is possible."""
        self._work = None

    def admit(self, plan: Plan, round: int, arrays: Arrays) -> None:
        """Refuse what is not the task, a mode not for this runner, or arrays that are not the plan's."""
        self._demand(plan.hash, round)
        if plan.mode not in self._modes:
            raise RefusedError(
                "mode",
                got=plan.mode,
                expected=" or ".join(self._modes),
                hint="set test_only = true in train.toml to accept rehearsal plans",
            )
        name = plan.task.name
        objections = unreviewed(plan, model=self.pin(plan.model.name, name), task=self.pin_task(name))
        if objections:
            raise RefusedError("plan", got="; ".join(objections), expected="a plan within the policy")
        gate_arrays.check(arrays, plan.model.arrays)

    def reserve(self, plan: Plan, round: int, arrays: Arrays) -> Booked:
        """Have the round booked; what the gate refuses comes back as the same kind of error."""
        work = self._demand(plan.hash, round)
        sha256 = gate_arrays.sha256(arrays, plan.model.arrays)
        asked = message.ReserveCall(plan=plan.hash, round=round, arrays=sha256, program=self.program.hash)
        message.send(work.frames, asked)
        told = self._answer(work, message.Reserved)
        self._demand(told.plan, told.round)
        return Booked(plan.hash, round, sha256)

    def released(self, _: Booked) -> Released | None:
        """None: a round that was released is never handed out again."""
        return None

    def release(self, arrays: Arrays, booked: Booked, plan: Plan, canaries: str = "") -> Released:
        """Judge the update here, then hand its bytes to the gate, with what canaries show."""
        work = self._demand(plan.hash, booked.round)
        content = content_of(arrays, plan, self.region, booked.round)
        asked = message.ReleaseCall(plan=plan.hash, round=booked.round, canaries=canaries)
        message.send(work.frames, asked, content)
        told = self._answer(work, message.Let)
        return Released(told.entry, told.entry_hash, told.sha256, content)

    def settle(self, plan_hash: str) -> None:
        """Have the plan's end booked, after its last round."""
        work = self._demand(plan_hash)
        message.send(work.frames, message.SettleCall(plan=plan_hash))
        self._answer(work, message.Settled)

    def demand_wanted(self) -> None:
        """PeerGoneError where the gate has ended: the next one hands the round out again."""
        if self._work is None or not self._work.frames.quiet:
            raise PeerGoneError(
                "gate", got="a gate that has ended", expected="the one that handed the round out"
            )

    def pin(self, model: str, task: str) -> ModelPin | None:
        """What the gate's policy says of the plan's model."""
        pin = None if self._work is None else self._work.task.pin
        return pin if pin is not None and pin.name in (model, task) else None

    def pin_task(self, task: str) -> ModelPin | None:
        """What the gate's policy says of the plan's task."""
        pin = None if self._work is None else self._work.task.task_pin
        return pin if pin is not None and pin.name == task else None

    def _demand(self, plan_hash: str, round: int | None = None) -> _Work:
        """The task in progress, if the arguments match it."""
        work = self._work
        if work is None or plan_hash != work.task.plan or round not in (None, work.task.round):
            raise RefusedError(
                "round", got="a different round than the one handed out", expected="the task in progress"
            )
        return work

    def _answer(self, work: _Work, kind: type[M]) -> M:
        told, _ = message.receive(work.frames, kind, message.NotAllowed, seconds=ANSWER_SECONDS)
        if isinstance(told, message.NotAllowed):
            raise outcome.raised(
                told.code, "gate", got="a refusal", expected="the gate's consent", hint="its log says why"
            )
        if not isinstance(told, kind):
            raise NotReadyError("gate", got="another answer", expected="one to what was asked")
        return told
