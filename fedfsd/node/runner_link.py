"""The gate's side of the runner's socket: hand out tasks, and check the runner's calls against its task.

The runner reads the data and is not trusted: it can only book and release the round it was given, on the
arrays it was given, with an update that the gate itself judges. Any other message closes its connection.
A failure is reported to the gate as one word.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from fedfsd.config.load import Frozen
from fedfsd.errors import FedfsdError, FormatError, NotReadyError, RefusedError, UnusualNoiseError
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate import message, outcome
from fedfsd.gate.frame import Buffer, FrameError, Frames, PeerGoneError
from fedfsd.gate.gate import Gate
from fedfsd.gate.message import (
    AskFacts,
    Commit,
    Committed,
    Done,
    Failed,
    Hello,
    Let,
    NotAllowed,
    ReleaseCall,
    ReserveCall,
    Reserved,
    RoundTask,
    RunnerFacts,
    SettleCall,
    Settled,
    Unwelcome,
    Welcome,
)
from fedfsd.ledger import booking
from fedfsd.ledger.entry import Program
from fedfsd.ledger.ledger import Released
from fedfsd.node.listener import Listener
from fedfsd.plan.plan import Arrays, Plan

# None of these counts time in which the runner works, as far as this process can see it (gate.frame).
WAIT_SECONDS = 30.0  # a runner that died is started again, and has connected, within this
TASK_SECONDS = 7 * 86_400.0  # training may take long; a runner that died is noticed at once
SHORT_SECONDS = 120.0  # for everything but training
GREETING_SECONDS = 600.0  # it connects first, and then loads what it trains with
ATTEMPTS = 3

LOG = logging.getLogger("fedfsd.runner")

M = TypeVar("M", bound=Frozen)
T = TypeVar("T")


@dataclass(frozen=True)
class _HandedOut:
    """One round that is handed out."""

    plan: Plan
    hash: str
    round: int
    arrays: Arrays
    sha256: str
    last: bool
    """Whether the plan ends with it, here."""


class Runner:
    """The warm process that trains, as the gate calls it. One task at a time; any thread may ask."""

    def __init__(
        self,
        socket: Path,
        gate: Gate,
        *,
        uid: int | None = None,
        wait_seconds: float = WAIT_SECONDS,
        task_seconds: float = TASK_SECONDS,
    ) -> None:
        """``uid``: the only user whose processes may connect; None: any that can open the socket."""
        self._gate, self._wait, self._patience = gate, wait_seconds, task_seconds
        self._listener = Listener(socket, self._greet, uid=uid)
        self._turn = threading.RLock()
        self._program: Program | None = None

    def start(self) -> None:
        """Listen on the socket."""
        self._listener.open()

    def close(self) -> None:
        """Stop at once; a task in progress ends as if the runner had died."""
        self._listener.close()

    @property
    def connected(self) -> bool:
        """Whether a runner is there."""
        return self._listener.connected

    @property
    def program(self) -> Program | None:
        """What the runner that is there trains with."""
        return self._program if self.connected else None

    def commitment(self, plan_hash: str) -> str:
        """Have the run key of a plan made, and return the commitment to it (hex)."""
        told = self._ask(Commit(plan=plan_hash), Committed, wait=self._wait)
        if told.plan != plan_hash:
            raise _disbelieved(FrameError("commit", got="another plan", expected="the plan asked for"))
        return told.commitment

    def settle(self, plan_hash: str) -> None:
        """Have the run key of a plan destroyed. NotReadyError: no runner; its next start does it too."""
        self._ask(SettleCall(plan=plan_hash), Settled, wait=0.0)

    def facts(self, *, host: str = "", port: int = 0, folder: str = "") -> dict[str, Any]:
        """What the runner's process can do: ``data``, ``device``, ``tcp`` to that address, ``gate_folder``.

        Args:
            host, port: what it should not be able to connect to.
            folder: what it should not be able to read.
        """
        told = self._ask(AskFacts(host=host, port=port, folder=folder), RunnerFacts, wait=self._wait)
        return {key: value for key, value in told.model_dump().items() if key != "op"}

    def round(self, plan: Plan, round: int, arrays: Arrays) -> Released:
        """One round through the runner: booked, trained, judged, released. What was released is not trained.

        Raises:
            RefusedError: not admitted, an update that is not let out, or a runner that is not believed.
            BudgetError: the ledger does not book it.
            PlanError: not this region's plan.
            NotReadyError: no runner in time, or a failure in its data path.
        """
        self._gate.admit(plan, round, arrays)
        sha256, last = gate_arrays.sha256(arrays, plan.model.arrays), plan.rounds_of(self._gate.region)
        work = _HandedOut(plan, plan.hash, round, arrays, sha256, round == last)
        with self._turn:
            released = self._before(work) or self._handed_out(work)
            if work.last:
                self._gate.settle(work.hash)
        if work.last:
            with suppress(FedfsdError):  # it is released; the next start of the runner destroys the key too
                self.settle(work.hash)
        return released

    def _before(self, work: _HandedOut) -> Released | None:
        """What was released of the round already; BudgetError where it cannot be sent again."""
        run = self._gate.ledger.state.runs.get(work.hash)
        booked = run and run.bookings.get(work.round)
        if not booked or booked.release is None:
            return None
        ledger = self._gate.ledger
        return self._gate.released(ledger.reserve(work.hash, work.round, work.sha256, program=self._program))

    def _handed_out(self, work: _HandedOut) -> Released:
        """Hand the task to a runner, and to the next one where it dies."""
        document = work.plan.document().encode()
        name = work.plan.task.name
        task = RoundTask(
            plan=work.hash,
            round=work.round,
            document=len(document),
            pin=self._gate.pin(work.plan.model.name, name),
            task_pin=self._gate.pin_task(name),
        )
        body: list[Buffer] = [document, *gate_arrays.parts(work.arrays, work.plan.model.arrays)]
        for _ in range(ATTEMPTS):
            try:
                with self._listener.lent(self._wait) as frames:
                    _demand_quiet(frames)
                    message.send(frames, task, *body)
                    return self._attend(frames, work)
            except PeerGoneError:
                LOG.warning("runner_gone", extra={"plan": work.hash, "round": work.round})
            except FrameError as error:
                raise _disbelieved(error, work.hash, work.round) from None
        raise NotReadyError(
            "runner", got=f"{ATTEMPTS} runners that died", expected="a runner that stays alive"
        )

    def _attend(self, frames: Frames, work: _HandedOut) -> Released:
        """Answer the runner's calls, in the only order they may have."""
        asked, _ = _hear(frames, work, ReserveCall, seconds=self._patience)
        if asked.arrays != work.sha256:
            raise FrameError("reserve", got="other arrays", expected="those handed out")
        program = self._program
        if program is None or asked.program != program.hash:
            raise FrameError("reserve", got="another program", expected="the one it connected with")
        ledger = self._gate.ledger
        booked = _allowed(
            frames, work, lambda: ledger.reserve(work.hash, work.round, work.sha256, program=program)
        )
        message.send(frames, Reserved(plan=work.hash, round=work.round))
        try:
            told, update = _hear(
                frames, work, ReleaseCall, seconds=self._patience, size=4 * work.plan.model.size
            )
        except UnusualNoiseError as error:  # its update did not even leave the runner
            self._gate.end(booked, error)
            raise
        released = _allowed(
            frames, work, lambda: self._gate.release_bytes(update, booked, work.plan, told.canaries)
        )
        try:
            self._part(frames, work, released)
        except (FrameError, PeerGoneError, NotReadyError) as error:
            # It is released, whatever becomes of the runner.
            LOG.warning("runner_failed_after_release", extra=_about(work, error=type(error).__name__))
            frames.close()
        return released

    def _part(self, frames: Frames, work: _HandedOut, released: Released) -> None:
        """The end of a round that was released."""
        let = Let(entry=released.entry, entry_hash=released.entry_hash, sha256=released.sha256)
        message.send(frames, let)
        if work.last:
            _hear(frames, work, SettleCall, seconds=SHORT_SECONDS)
            self._gate.settle(work.hash)
            message.send(frames, Settled(plan=work.hash))
        told, _ = _hear(frames, work, Done, seconds=SHORT_SECONDS)
        if (told.entry_hash, told.sha256) != (released.entry_hash, released.sha256):
            raise FrameError("done", got="another release", expected="the one of this round")

    def _ask(self, question: Frozen, kind: type[M], *, wait: float) -> M:
        """One question, one answer."""
        if not self._turn.acquire(timeout=SHORT_SECONDS):
            raise NotReadyError("runner", got="a round in progress", expected="an idle runner")
        try:
            with self._listener.lent(wait) as frames:
                _demand_quiet(frames)
                message.send(frames, question)
                told, _ = message.receive(frames, kind, Failed, seconds=SHORT_SECONDS)
        except FrameError as error:
            raise _disbelieved(error) from None
        finally:
            self._turn.release()
        if isinstance(told, Failed):
            raise _failure(told)
        return cast(M, told)

    def _greet(self, frames: Frames) -> None:
        """The greeting: what trains there, which keys it has, and which of these are of plans that ended."""
        try:
            hello, _ = message.receive(frames, Hello, seconds=GREETING_SECONDS)
        except FormatError:
            message.send(frames, Unwelcome(version=message.VERSION))
            raise
        if hello.region != self._gate.region:
            raise FrameError("hello", got="another region", expected=f"{self._gate.region}")
        if hello.program is None:
            raise FrameError("hello", got="no program", expected="what trains there")
        runs = self._gate.ledger.state.runs
        for plan, run in runs.items():
            if not run.settled and run.program not in (None, hello.program):
                LOG.warning("program_changed", extra={"plan": plan, "line": str(booking.changed(plan))})
        over = tuple(plan for plan in hello.keys if plan in runs and runs[plan].settled)
        message.send(frames, Welcome(over=over))
        self._program = hello.program


def _hear(
    frames: Frames, work: _HandedOut, kind: type[M], *, seconds: float, size: int = 0
) -> tuple[M, bytes]:
    """The runner's next call, which must be about the task; its failure as an error."""
    told, body = message.receive(frames, kind, Failed, seconds=seconds, max_body=size, body_of=ReleaseCall)
    if isinstance(told, Failed):
        LOG.warning("runner_failed", extra=_about(work, code=told.code))
        if told.code in outcome.FINDINGS and kind is not ReleaseCall:
            raise FrameError("failed", got="what was found in an update", expected="an update to find it in")
        raise _failure(told)
    if getattr(told, "plan", None) != work.hash or getattr(told, "round", work.round) != work.round:
        raise FrameError(
            "round", got="a different round than the one handed out", expected="the task in progress"
        )
    return cast(M, told), body


def _allowed(frames: Frames, work: _HandedOut, call: Callable[[], T]) -> T:
    """The result of ``call``; if it refuses, the runner gets one word and may finish its message."""
    try:
        return call()
    except Exception as error:  # whatever it is: the runner must not wait for an answer
        place = error.place if isinstance(error, FedfsdError) else type(error).__name__
        LOG.warning("gate_refuses", extra=_about(work, code=outcome.of(error), line=place))
        with suppress(FrameError, PeerGoneError):
            message.send(frames, NotAllowed(code=outcome.of(error)))
            message.receive(frames, Failed, seconds=SHORT_SECONDS)
            raise
        frames.close()
        raise


def _demand_quiet(frames: Frames) -> None:
    if not frames.quiet:
        raise FrameError("frame", got="a message out of turn", expected="silence")


def _failure(told: Failed) -> FedfsdError:
    found = told.code in outcome.FINDINGS
    return outcome.raised(
        told.code,
        "runner",
        got="an update that its runner did not hand over" if found else told.code,
        expected="a round",
        hint="region.log in the runner's folder says why",
    )


def _disbelieved(error: FrameError, plan_hash: str | None = None, round: int | None = None) -> RefusedError:
    """For the caller and the log: a runner that broke the protocol; ``error`` has only our own text."""
    LOG.error(
        "runner_not_believed",
        extra={"plan": plan_hash, "round": round, "line": f"{error.place}: {error.got}"},
    )
    return RefusedError(
        "runner",
        got=error.got,
        expected=error.expected,
        hint="stop this runner and check which program runs there",
    )


def _about(work: _HandedOut, **more: object) -> dict[str, object]:
    return {"plan": work.hash, "round": work.round, **more}
