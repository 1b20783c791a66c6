"""Between Flower and the desks: one thread per region runs that region's node in Flower's fleet.

An instruction of the ServerApp is put on the region's desk; the region's answer is sent back, repeatedly,
until SuperLink has it. The next instruction is requested only when the desk is clear: a region works on one
round at a time, and one that returns late finds the newest round, not a queue of old ones.
"""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol, cast

import numpy as np

from fedfsd.coordinator.desk import DeskTask
from fedfsd.coordinator.hall import Hall, RegionStation
from fedfsd.coordinator.shelf import Filed, size_of
from fedfsd.errors import FedfsdError, NotReadyError, PlanError, RefusedError, UnusualNoiseError
from fedfsd.flower.answer import StaleReplyError
from fedfsd.flower.fleet import QUERY, TRAIN, Instruction
from fedfsd.gate import arrays as gate_arrays
from fedfsd.gate import outcome
from fedfsd.gate.outcome import REFUSALS, Word
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Plan

POLL_SECONDS = 0.03
BEAT_SECONDS = 25.0
IDLE_SECONDS = 0.5
_FIRST_WAIT, _LONGEST_WAIT = 0.05, 2.0


class Fleet(Protocol):
    """A node of Flower's fleet; ``flower.fleet.FleetNode`` is one."""

    def activate(self, known: int | None) -> int:
        """Come online; the node's id."""

    def beat(self) -> None:
        """Stay online."""

    def pull(self) -> Instruction | None:
        """The next instruction."""

    def reply(self, envelope: bytes, arrays: Mapping[str, np.ndarray], entry_hash: str, sha256: str) -> None:
        """Answer with a release."""

    def identify(self, envelope: bytes, region: str) -> None:
        """Answer with the region's name."""

    def fail(self, envelope: bytes, code: int, word: str) -> None:
        """Answer that there is no release."""

    def close(self) -> None:
        """Let go of the connections."""


class Bridge:
    """One region's thread between ``start`` and ``stop``."""

    def __init__(
        self,
        hall: Hall,
        station: RegionStation,
        connect: Callable[[str], Fleet],
        *,
        poll: float = POLL_SECONDS,
        beat: float = BEAT_SECONDS,
    ) -> None:
        """``connect`` makes the region's node, registered and with the certificate of the SuperLink."""
        self._hall, self._station, self._connect = hall, station, connect
        self._poll, self._beat = poll, beat
        self._fleet: Fleet | None = None
        self._beaten = 0.0
        self._wait = 0.0
        self._thread = threading.Thread(target=self._run, name=f"bridge {station.name}", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def join(self, seconds: float) -> None:
        """Wait for the end, after ``hall.stopping`` was set."""
        self._thread.join(seconds)

    def _run(self) -> None:
        while not self._hall.stopping.is_set():
            try:
                if self._is_needed():
                    self._turn(self._online())
                else:
                    self._offline()
                    self._pause(IDLE_SECONDS)
                self._wait = 0.0
            except NotReadyError as error:
                self._trouble("superlink_away", error)
            except Exception as error:  # one region's trouble must not end its thread
                self._trouble("bridge", error)
        self._offline()

    def _is_needed(self) -> bool:
        """Whether a plan is open for the region, or a reply waits to be forwarded."""
        task = self._station.desk.task
        named = any(self._station.name in plan.regions for plan in self._hall.board.plans.values())
        return named or task is not None

    def _online(self) -> Fleet:
        if self._fleet is None:
            self._fleet, self._beaten = self._connect(self._station.name), time.monotonic()
        elif time.monotonic() - self._beaten >= self._beat:
            self._fleet.beat()
            self._beaten = time.monotonic()
        return self._fleet

    def _offline(self) -> None:
        if self._fleet is not None:
            self._fleet.close()
            self._fleet = None

    def _turn(self, fleet: Fleet) -> None:
        """Whatever is next: forward a reply, wait for the region, or ask for an instruction."""
        desk = self._station.desk
        task = desk.task
        if task is None:
            if not self._ask(fleet):
                self._pause(self._poll)
        elif (plan := self._hall.board.plan(task.plan)) is None:  # the run is over
            desk.clear(task)
            self._hall.note("dropped", self._station, plan=task.plan, round=task.round)
            self._hall.tidy()
        elif task.stage == "open":
            self._pause(IDLE_SECONDS)
        else:
            self._forward(fleet, task, plan)

    def _ask(self, fleet: Fleet) -> bool:
        """Take instructions until there are none; the newest round stays. Whether there were any."""
        found = False
        while self._take(fleet):
            found = True
        if found:
            self._station.desk.reveal()
            self._hall.tidy()
        return found

    def _take(self, fleet: Fleet) -> bool:
        """One instruction from Flower to the desk, or answered at once; False where there is none."""
        earlier = self._station.desk.task
        word: Word | None = None
        with self._hall.turn():
            instruction = fleet.pull()
            if instruction is None:
                return False
            envelope, kind = instruction.envelope, instruction.kind
            try:
                if kind != QUERY:
                    self._lay(instruction)
            except FedfsdError as error:
                word = outcome.of(error)  # a full disk is region_unavailable: the strategy need not wait
                self._hall.refused(self._station, word, str(error))
            del instruction
            gc.collect()
        if kind == QUERY:
            self._surely(lambda: fleet.identify(envelope, self._station.name))
        elif word is not None:
            self._surely(lambda: _fail(fleet, envelope, word))
        elif earlier is not None:
            self._hall.outcome(self._station, earlier.plan, earlier.round, "superseded")
            late = bytes.fromhex(earlier.envelope)
            self._surely(lambda: _fail(fleet, late, "region_unavailable"))
        return True

    def _lay(self, instruction: Instruction) -> None:
        """Put a training instruction on the desk, on disk, not yet shown.

        Raises PlanError for a plan that is not on offer or not approved, RefusedError for anything else.
        """
        if instruction.kind != TRAIN or instruction.plan is None or instruction.arrays is None:
            raise RefusedError("instruction", got="another kind", expected="a round")
        plan = plans.read(instruction.plan)
        board, name, round = self._hall.board, self._station.name, instruction.round
        board.look()
        if board.plan(plan.hash) is None or not board.is_approved(name, plan.hash):
            raise PlanError("plan", got="one not on offer or not approved", expected="an approved one")
        if finding := self._hall.book.ended(name, plan.hash):
            got = "a plan that ended for the region"
            raise UnusualNoiseError("plan", got=got, expected="one that is open", finding=finding)
        if type(round) is not int or not 1 <= round <= plan.rounds_of(name):
            raise RefusedError("round", got="another one", expected=f"1 to {plan.rounds_of(name)}")
        gate_arrays.check(instruction.arrays, plan.model.arrays)
        schema, envelope = plan.model.arrays, instruction.envelope.hex()

        def task(sha256: str) -> DeskTask:
            return DeskTask(
                plan=plan.hash, round=round, arrays=sha256, size=size_of(schema), envelope=envelope
            )

        self._hall.lay(self._station, instruction.arrays, schema, task)

    def _forward(self, fleet: Fleet, task: DeskTask, plan: Plan) -> None:
        envelope = bytes.fromhex(task.envelope)
        if task.stage == "failed":
            self._answer(lambda: _fail(fleet, envelope, cast(Word, task.code)))
        else:
            with self._hall.turn():
                arrays = Filed(self._station.desk.update(task), plan.model.arrays)
                self._answer(lambda: fleet.reply(envelope, arrays, str(task.entry), str(task.sha256)))
                gc.collect()  # Flower's messages hold each other; the next update needs the room
        self._station.desk.clear(task)
        self._hall.tidy()

    def _surely(self, send: Callable[[], None]) -> None:
        """Send an answer that is kept nowhere else: again until it is there."""
        wait = _FIRST_WAIT
        while not self._hall.stopping.is_set():
            try:
                self._answer(send)
                break
            except NotReadyError:
                self._hall.stopping.wait(wait)
                wait = min(2 * wait, _LONGEST_WAIT)

    def _answer(self, send: Callable[[], None]) -> None:
        """Send an answer, unless it is no longer wanted."""
        try:
            send()
        except StaleReplyError:
            self._hall.note("late", self._station)

    def _pause(self, seconds: float) -> None:
        """Wait, but return at once when a reply is ready to be forwarded or the process ends."""
        desk, stopping = self._station.desk, self._hall.stopping
        before = desk.task is None

        def look() -> bool:
            task = desk.task
            ready = task is not None and task.stage != "open"
            return ready or stopping.is_set() or before != (task is None)

        desk.wait(look, seconds)

    def _trouble(self, event: str, error: Exception) -> None:
        if self._wait == 0.0:
            kind = str(error) if isinstance(error, FedfsdError) else type(error).__name__
            self._hall.note(event, self._station, warn=True, line=kind)
        if not isinstance(error, NotReadyError):
            self._offline()
        self._wait = min(max(2 * self._wait, _FIRST_WAIT), _LONGEST_WAIT)
        self._hall.stopping.wait(self._wait)


def _fail(fleet: Fleet, envelope: bytes, word: Word) -> None:
    fleet.fail(envelope, REFUSALS[word].flower, word)
