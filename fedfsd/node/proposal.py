"""A plan on offer: its document kept for the operator to approve, or approved or refused by the policy."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from fedfsd import canonical
from fedfsd.border import border_pb2 as pb
from fedfsd.border import wire
from fedfsd.errors import ConfigError, FedfsdError, FormatError, NotReadyError, PlanError, RefusedError
from fedfsd.gate import outcome
from fedfsd.gate.frame import PeerGoneError
from fedfsd.ledger.disk import is_full, write_whole
from fedfsd.node.approve import approve_within_policy
from fedfsd.node.line import CoordinatorLine
from fedfsd.node.station import GateStation
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Plan

MAX_PENDING = 64
"""Documents that wait for the operator; a coordinator must not fill the disk with them."""
MAX_REMEMBERED = 1000
WITHDRAWN_SECONDS = 60.0
"""A plan that waits is offered again every few seconds; after this long it is not on offer any more."""


class Proposals:
    """Answers plans on offer. Each is judged once: what came of it is remembered. Threads share it."""

    def __init__(self, station: GateStation) -> None:
        self._station, self._lock = station, threading.Lock()
        self._refused: dict[str, str] = {}
        self._pending: dict[str, Plan] = {}
        self._by_hand: set[str] = set()
        """Those that the policy cannot approve by itself."""
        self._offered: dict[str, float] = {}
        """When each that waits was last offered (monotonic seconds)."""

    def consider(self, line: CoordinatorLine, offer: pb.PlanOffer) -> None:
        """Answer an offer; where it waits for the operator or for the runner, ``look`` answers it later.

        Raises:
            grpc.RpcError, WireError, ClosedError: the connection or the coordinator fails.
        """
        plan = offer.plan.hex()
        with self._lock:
            run = self._station.ledger.state.runs.get(plan)
            if run is None and plan not in self._refused and plan not in self._pending:
                self._judge(line, offer)
            elif run is not None and run.settled:
                self._refused.setdefault(plan, "budget")
            if plan in self._pending:
                self._offered[plan] = time.monotonic()
            self._answer(line, plan)

    def look(self, line: CoordinatorLine) -> None:
        """Answer what was approved meanwhile. Raises as ``consider``."""
        with self._lock:
            for name, plan in list(self._pending.items()):
                try:
                    self._approve(plan)
                except FedfsdError as error:
                    self._refuse(name, error)
                self._answer(line, name)

    def idle(self) -> None:
        """The coordinator has nothing to ask: forget what waits here and is not on offer any more."""
        oldest, runs = time.monotonic() - WITHDRAWN_SECONDS, self._station.ledger.state.runs
        with self._lock:
            old = [plan for plan, offered in self._offered.items() if offered < oldest]
            for plan in (plan for plan in old if plan not in runs):
                self._forget(plan)
                self._path(plan).unlink(missing_ok=True)
                self._station.log.info("plan_withdrawn", extra={"plan": plan})

    def decline(self, plan: str) -> None:
        """The operator refuses; ``look`` tells the coordinator. NotReadyError if no such plan is pending."""
        with self._lock:
            if plan not in self._pending:
                raise NotReadyError(
                    f"plan {plan[:8]}",
                    got="no such plan on offer",
                    expected="a plan on offer that is not approved",
                    hint="fedfsd region status lists them",
                )
            self._refuse(
                plan, RefusedError(f"plan {plan[:8]}", got="the operator's refusal", expected="a yes")
            )

    @property
    def pending(self) -> tuple[str, ...]:
        """Hashes of the plans that wait."""
        return tuple(self._pending)

    def _judge(self, line: CoordinatorLine, offer: pb.PlanOffer) -> None:
        station, name = self._station, offer.plan.hex()
        try:
            plan = self._read(line, offer)
            try:
                plan.region(station.region)
                station.gate.policy.demand(plan, station.region)
            except FedfsdError:
                station.ledger.refuse(name, None, "policy")
                raise
            self._pending[name] = plan
            self._approve(plan)
        except wire.WireError:
            raise
        except FedfsdError as error:
            self._refuse(name, error)
        else:
            station.log.info("plan_offered", extra={"plan": name, "kind": station.gate.policy.approve})

    def _approve(self, plan: Plan) -> None:
        """Approve a plan if the policy requires no operator. Raises a refusal."""
        station, policy = self._station, self._station.gate.policy
        ready = station.runner.connected and not station.working
        if policy.approve != "within policy" or not ready or plan.hash in self._by_hand:
            return
        if plan.hash in station.ledger.state.runs:
            return
        try:
            runner = station.runner
            made = approve_within_policy(
                station.node, plan, runner.commitment, policy=policy, program=runner.program
            )
            if made.seq is None:  # above a cap of the grant: the officer signs it
                self._by_hand.add(plan.hash)
        except PeerGoneError:
            pass  # the runner is being started again
        except (NotReadyError, ConfigError) as error:
            self._by_hand.add(plan.hash)
            event = "disk_full" if is_full(error) else "plan_waits"
            station.log.error(event, extra={"plan": plan.hash, "line": str(error)})

    def _answer(self, line: CoordinatorLine, plan: str) -> None:
        """Send what there is to say of a plan, if anything."""
        code = self._refused.get(plan)
        if code is None and plan not in self._station.ledger.state.runs:
            return
        line.answer(bytes.fromhex(plan), code)
        self._forget(plan)
        self._station.log.info("plan_answered", extra={"plan": plan, "code": code or "approved"})
        if code is not None:
            self._station.tally.refused(code)
            self._path(plan).unlink(missing_ok=True)

    def _forget(self, plan: str) -> None:
        self._pending.pop(plan, None)
        self._offered.pop(plan, None)
        self._by_hand.discard(plan)

    def _read(self, line: CoordinatorLine, offer: pb.PlanOffer) -> Plan:
        """The plan, from its file where it came before. PlanError where it is none."""
        name = offer.plan.hex()
        path = self._path(name)
        if path.exists():
            content = path.read_bytes()
        elif self._kept() >= MAX_PENDING:
            raise PlanError(
                f"plan {name[:8]}", got="too many pending plans", expected=f"at most {MAX_PENDING}"
            )
        else:
            content = line.document(offer.plan)
        if canonical.sha256(content) != name or len(content) != offer.size:
            raise PlanError(f"plan {name[:8]}", got="another document", expected="the one of that hash")
        plan = plans.read(wire.text(content, "PlanDocument.document"))
        if not path.exists():
            write_whole(path, content)
        return plan

    def _kept(self) -> int:
        """Pending documents in the folder, including those from before a restart.

        If there are too many, those not offered again since the restart are dropped.
        """
        runs = self._station.ledger.state.runs
        waiting = [path for path in self._station.folder("plans").glob("*.json") if path.stem not in runs]
        if len(waiting) >= MAX_PENDING:
            for path in waiting:
                if path.stem not in self._pending:
                    path.unlink(missing_ok=True)
            return len(self._pending)
        return len(waiting)

    def _refuse(self, plan: str, error: FedfsdError) -> None:
        while len(self._refused) >= MAX_REMEMBERED:
            self._refused.pop(next(iter(self._refused)))
        self._refused[plan] = "plan" if isinstance(error, FormatError) else outcome.of(error)
        self._station.log.warning("plan_refused", extra={"plan": plan, "line": str(error)})

    def _path(self, plan: str) -> Path:
        return self._station.folder("plans") / f"{plan}.json"
