"""One run over real regions: the plan on offer, the regions' answers, the engine's run, until its end.

The run itself is conducted by a ServerApp in the engine; here is what waits for it. It ends with the run
complete, or with an error after which the same run can be continued.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from typing import Protocol

from fedfsd.coordinator import up
from fedfsd.coordinator.folder import Coordinator
from fedfsd.coordinator.offer import TOO_OLD
from fedfsd.errors import FedfsdError, NotReadyError, RefusedError, UsageError
from fedfsd.ledger.disk import write_whole
from fedfsd.plan.plan import Plan
from fedfsd.service import patience
from fedfsd.service.patience import Patience, Progress
from fedfsd.service.supervise import standing

SERVER_APP = "fedfsd.simulation.apps:server"
# In the run folder: which run of the engine conducts it.
RUN_ID = "engine.json"
_LOOK_SECONDS = 0.1
_REMIND_SECONDS = 30.0
# An engine that restarts is waited for until it was idle for so long; one that is up, to answer at first.
_AWAY_SECONDS, _ANSWER_SECONDS = 120.0, 10.0
# A ServerApp that ended holds no lock, and says why within this. Flower waits a minute for a killed one.
_DEAD_SECONDS = 5.0
# A ServerApp that dies is started again as long as it gets further; without progress, this often.
_ATTEMPTS = 3


class AppEngine(Protocol):
    """What is needed of the engine; see ``fedfsd.flower.engine.Engine``."""

    def ready(self) -> bool: ...

    def submit(self, app: str, config: Mapping[str, str | int | float | bool]) -> int: ...

    def state(self, run_id: int) -> str: ...

    def stop(self, run_id: int) -> None: ...


@dataclass(frozen=True)
class Conductor:
    """Whoever conducts the run in ``folder``: how far it is, whether complete, or why it stopped."""

    folder: Path
    complete: Callable[[], bool]
    stopped: Callable[[], FedfsdError | None]
    rounds: Callable[[], int]
    """How many rounds are on record."""
    watch: Callable[[], None] = lambda: None
    """Called again and again meanwhile."""
    alive: Callable[[], bool] = lambda: False
    """Whether a process conducts it now; one that did and is gone was killed."""


def demand_up(coordinator: Coordinator, engine: AppEngine) -> None:
    """NotReadyError unless the coordinator's gate and engine run."""
    settings, pids = coordinator.settings, _processes(coordinator)

    def answer() -> bool:
        return up.answers(settings.listen, settings.port) and engine.ready()

    if not answer() and not (pids() and patience.until(answer, seconds=_ANSWER_SECONDS, pids=pids)):
        gate = up.answers(settings.listen, settings.port)
        raise NotReadyError(
            str(coordinator.folder),
            got="no answer from the engine" if gate else "no gate listening",
            expected="a running coordinator",
            hint=f"start it: fedfsd coordinator up --coordinator {coordinator.folder}",
        )


def demand_joined(coordinator: Coordinator, names: list[str]) -> None:
    """NotReadyError unless every region of the run has a certificate."""
    missing = [name for name in names if name not in coordinator.regions()]
    if missing:
        raise NotReadyError(
            f"region {missing[0]}",
            got="a region that has not joined",
            expected=f"one of {', '.join(coordinator.regions()) or 'no region yet'}",
            hint=f"fedfsd coordinator invite {missing[0]}",
        )


@contextmanager
def offered(coordinator: Coordinator, plan: Plan) -> Iterator[None]:
    """Meanwhile ``plan`` is on offer; regions that refused it before are asked again."""
    for path, answer in _answers(coordinator, plan).items():
        if answer is not None and not answer["approved"]:
            path.unlink()
    offer = coordinator.offers / f"{plan.hash}.json"
    write_whole(offer, plan.document().encode())
    try:
        yield
    finally:
        offer.unlink(missing_ok=True)


def await_answers(
    coordinator: Coordinator, plan: Plan, *, timeout: float, say: Callable[[str], None]
) -> None:
    """Until every region has answered: at least the plan's quorum must approve.

    Raises:
        NotReadyError: some have not answered after ``timeout`` seconds.
        RefusedError: too many refused.
    """
    start, told, last = time.monotonic(), None, 0.0
    while True:
        answers = {path.stem: answer for path, answer in _answers(coordinator, plan).items()}
        pending = [name for name, answer in answers.items() if answer is None]
        refused = {
            name: str(answer["code"]) for name, answer in answers.items() if answer and not answer["approved"]
        }
        enough = ceil(plan.quorum * len(answers))
        if len(answers) - len(refused) < enough:
            hint = "ask the regions named; there fedfsd region status and log/gate.jsonl say why"
            if old := [name for name, code in refused.items() if code == TOO_OLD]:
                hint = f"upgrade fedfsd at {', '.join(old)}: their release cannot read this plan"
            raise RefusedError(
                f"plan {plan.hash[:8]}",
                got=", ".join(f"{name}: {code}" for name, code in refused.items()),
                expected=f"{enough} of {len(answers)} regions that approve",
                hint=hint,
            )
        now = time.monotonic()
        if pending and (pending != told or now - last > _REMIND_SECONDS):
            say(f"plan {plan.hash[:16]}: waiting for the approval of {', '.join(pending)}")
            told, last = pending, now
        if not pending:
            say(f"plan {plan.hash[:8]}: approved" + (f", without {_listed(refused)}" if refused else ""))
            return
        if now - start >= timeout:
            raise NotReadyError(
                f"plan {plan.hash[:8]}",
                got=f"no answer from {', '.join(pending)}",
                expected=f"an answer of every region within {timeout:g} s",
                hint="the regions approve with fedfsd region approve; then continue with --resume",
            )
        time.sleep(_LOOK_SECONDS)


def follow(
    engine: AppEngine, conductor: Conductor, *, coordinator: Coordinator, say: Callable[[str], None]
) -> None:
    """Start the run in the engine, or find it running, and stay until it is complete.

    A ServerApp that was killed is restarted and resumes from its checkpoint. Ctrl-C stops the run.

    Raises:
        FedfsdError: what ended the run; it can be continued.
    """
    config = {"run": str(conductor.folder.resolve()), "coordinator": str(coordinator.folder.resolve())}
    number, away = _running(engine, conductor.folder), Progress(_processes(coordinator))
    attempts, rounds = 1, conductor.rounds()
    try:
        while True:
            if number is None:
                number = _submit(engine, config, away)
                write_whole(conductor.folder / RUN_ID, json.dumps({"run_id": str(number)}).encode())
            ended = _wait(engine, conductor, number, away)
            if ended == "finished:completed" and conductor.complete():
                return
            if (error := conductor.stopped()) is not None:
                raise error
            attempts = 1 if conductor.rounds() > rounds else attempts + 1
            rounds = conductor.rounds()
            if ended == "finished:stopped" or attempts > _ATTEMPTS:
                raise NotReadyError(
                    str(conductor.folder),
                    got=f"a run that ended as {ended} after {rounds} rounds",
                    expected="a complete run",
                    hint="read server.log there, then continue with --resume",
                )
            say(f"the run was interrupted after {rounds} rounds and continues")
            number = None
    except BaseException:
        if number is not None:
            with suppress(FedfsdError):
                engine.stop(number)
        raise


def _processes(coordinator: Coordinator) -> Callable[[], list[int]]:
    """What ``coordinator up`` runs now, for whoever waits for it."""
    return lambda: [
        one["pid"] for one in (standing(coordinator.folder) or {"processes": []})["processes"] if one["pid"]
    ]


def _submit(engine: AppEngine, config: Mapping[str, str], away: Progress) -> int:
    """The number of a new run; an engine that is away, as after a crash of all, is waited for."""
    waiting = Patience(_AWAY_SECONDS, away)
    while True:
        try:
            return engine.submit(SERVER_APP, config)
        except NotReadyError:
            if waiting.over():
                raise
        time.sleep(_LOOK_SECONDS)


def _wait(engine: AppEngine, conductor: Conductor, number: int, away: Progress) -> str:
    """The state in which a run of the engine ended."""
    asked = alive = time.monotonic()
    waiting = Patience(_AWAY_SECONDS, away)
    begun = False
    while True:
        conductor.watch()
        now = time.monotonic()
        if conductor.alive():
            begun, alive = True, now
        elif begun and now - alive > _DEAD_SECONDS:
            with suppress(FedfsdError):
                engine.stop(number)
            return "finished:completed" if conductor.complete() else "killed"
        if now - asked >= 1.0 or conductor.complete():
            asked = now
            try:
                state = engine.state(number)
                waiting = Patience(_AWAY_SECONDS, away)
            except UsageError:
                return "lost"
            except NotReadyError:  # it is restarted by whoever watches over it
                if waiting.over():
                    raise
                state = ""
            if state.startswith("finished"):
                conductor.watch()
                return state
        time.sleep(_LOOK_SECONDS)


def _running(engine: AppEngine, folder: Path) -> int | None:
    """The engine's run that already conducts this folder, if the process that followed it was killed."""
    path = folder / RUN_ID
    if not path.exists():
        return None
    number = int(json.loads(path.read_bytes())["run_id"])
    with suppress(UsageError):
        return None if engine.state(number).startswith("finished") else number
    return None


def _answers(coordinator: Coordinator, plan: Plan) -> dict[Path, dict[str, object] | None]:
    """What each region answered, in its file; None where it has not yet."""
    folder = coordinator.offers / plan.hash
    found: dict[Path, dict[str, object] | None] = {}
    for name in sorted(plan.regions):
        path = folder / f"{name}.json"
        try:
            found[path] = json.loads(path.read_bytes())
        except FileNotFoundError:
            found[path] = None
    return found


def _listed(refused: Mapping[str, str]) -> str:
    return ", ".join(f"{name} ({code})" for name, code in refused.items())
