"""The coordinator's strategy: any Flower strategy, kept to the plan.

Weights are the plan's, never a client's. A region that fails, stalls or sends rubbish is named and
skipped; the round counts at quorum. What comes after its round's end is recorded, and by the plan's rule
used with less weight or dropped.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import ceil

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedfsd.errors import NotReadyError
from fedfsd.federation import reply
from fedfsd.federation.exchange import Post, Roll
from fedfsd.federation.reply import RegionOutcome
from fedfsd.flower import held
from fedfsd.gate.outcome import BUSY, LATE_DROPPED, LATE_USED, LOST, RELEASED, TIMEOUT, UNUSUAL
from fedfsd.gate.watch import Watcher
from fedfsd.plan.plan import Arrays, Plan

# A region that is away when a run starts is waited for this long, if enough others are there.
PATIENCE_SECONDS = 30.0


@dataclass(frozen=True)
class Task:
    """What is asked of one region: its part of one round."""

    region: str
    round: int


@dataclass(frozen=True)
class Round:
    """One finished round: the new global arrays and what each region did."""

    number: int
    arrays: dict[str, np.ndarray]
    """What the next round starts from."""
    model: dict[str, np.ndarray]
    """What would be released now: the mean over the plan's last rounds once they have begun."""
    outcomes: dict[str, RegionOutcome]
    seconds: float
    late: dict[Task, RegionOutcome] = field(default_factory=dict)
    """What came in this round of earlier ones."""


class PlannedStrategy:
    """Runs a plan over a grid; ``inner`` decides how good updates become the next global arrays."""

    def __init__(
        self,
        inner: Strategy,
        plan: Plan,
        *,
        round_timeout_seconds: float,
        watcher: Watcher | None = None,
        keep: Callable[[str, int, Arrays], None] = lambda *_: None,
    ) -> None:
        """``watcher`` judges each update together with those before it; ``keep`` is given every good one."""
        self.inner, self.plan, self.round_timeout_seconds = inner, plan, round_timeout_seconds
        self._watcher, self._keep = watcher, keep
        self.total: dict[str, np.ndarray] = {}
        """Sum of the arrays of the rounds to be averaged, float64; empty before the first of them."""
        self.ended: dict[str, str] = {}
        """Regions that take no further part, and what was found in their updates."""

    def quorum(self, number: int) -> int:
        """How many good updates make a round count."""
        return ceil(self.plan.quorum * len(self.plan.asked(number)))

    def start(
        self,
        grid: Grid,
        arrays: Arrays,
        *,
        first_round: int = 1,
        on_round: Callable[[Round], None],
    ) -> dict[str, np.ndarray]:
        """Run rounds ``first_round`` to the plan's last and return the model to release.

        Raises:
            NotReadyError: fewer regions than quorum answered with a good update in a round.
        """
        post: Post[Task] = Post(grid)
        roll = Roll(grid, self.plan.regions)
        first = self.quorum(min(first_round, self.plan.num_rounds))
        roll.call(quorum=first, timeout=self.round_timeout_seconds, patience=PATIENCE_SECONDS)
        current = model = dict(arrays)
        for number in range(first_round, self.plan.num_rounds + 1):
            started = time.monotonic()
            current, outcomes, late = self._round(post, roll, current, number)
            model = self._average(current, number)
            on_round(Round(number, current, model, outcomes, time.monotonic() - started, late))
        return model

    def _average(self, current: Arrays, number: int) -> dict[str, np.ndarray]:
        """The mean over the last rounds so far: less noise in the model, at no cost in privacy."""
        if number >= self._first_averaged:
            for name, array in current.items():
                self.total[name] = self.total.get(name, 0.0) + array.astype(np.float64)
        return self.released(current, number)

    def released(self, current: Arrays, number: int) -> dict[str, np.ndarray]:
        """What would be released after round ``number``, which ended with ``current``."""
        count = number - self._first_averaged + 1
        if count < 1:
            return dict(current)
        return {name: (total / count).astype(np.float32) for name, total in self.total.items()}

    @property
    def _first_averaged(self) -> int:
        return self.plan.num_rounds - max(1, round(self.plan.average_last * self.plan.num_rounds)) + 1

    def _round(
        self, post: Post[Task], roll: Roll, current: Arrays, number: int
    ) -> tuple[dict[str, np.ndarray], dict[str, RegionOutcome], dict[Task, RegionOutcome]]:
        record = held.record(current)
        # The inner strategy's own messages are not sent: it only learns where the round starts from.
        self.inner.configure_train(number, record, ConfigRecord({}), post.grid)
        outcomes, tasks = self._send(post, roll, record, number)
        replies = post.collect(self.round_timeout_seconds, tasks.issubset)
        if self.plan.late_updates == "drop":
            post.abandon()
        late: dict[Task, RegionOutcome] = {}
        good: dict[str, Message] = {}
        for task, message in replies.items():
            own = self.plan.rounds_of(task.region, task.round)
            outcome, update = reply.read(message, self.plan, task.region, own, self._watcher)
            if outcome.code == UNUSUAL:
                self.ended[task.region] = outcome.finding or ""
            if update is not None:
                self._keep(task.region, own, update)
            if task.round == number:
                outcomes[task.region] = outcome
            else:
                late[task] = self._late(outcome, task)
            if update is not None and (task.round == number or late[task].code == LATE_USED):
                good[task.region] = self._as_model(message, current, update, task, number)
        self._demand_quorum(outcomes, number)
        # Sums of floats depend on their order, so replies are taken in the order of the plan.
        aggregated, _ = self.inner.aggregate_train(number, [good[name] for name in sorted(good)])
        if aggregated is None:
            return dict(current), outcomes, late
        means = held.arrays_of(aggregated)
        return (
            {
                entry.name: means[entry.name].astype(np.float32, copy=False).reshape(entry.shape)
                for entry in self.plan.model.arrays
            },
            outcomes,
            late,
        )

    def _send(
        self, post: Post[Task], roll: Roll, record: ArrayRecord, number: int
    ) -> tuple[dict[str, RegionOutcome], set[Task]]:
        """Send the round; what becomes of each region if no reply comes, and the tasks sent."""
        asked, document = self.plan.asked(number), self.plan.document()
        contents = {
            own: RecordDict({"arrays": record, "config": ConfigRecord({"plan": document, "round": own})})
            for own in set(asked.values())
        }
        nodes = roll.call(quorum=self.quorum(number), timeout=self.round_timeout_seconds)
        # A region whose late update will count is left to finish it.
        owing = {task.region for task in post.expected} if self.plan.late_updates == "use" else set()
        outcomes = {
            region: RegionOutcome(BUSY if region in owing else TIMEOUT if region in nodes else LOST)
            for region in asked
        } | {
            region: RegionOutcome(UNUSUAL, finding=finding)
            for region, finding in self.ended.items()
            if region in asked
        }
        messages = {
            Task(region, number): Message(
                contents[asked[region]], node, MessageType.TRAIN, group_id=str(number)
            )
            for region, node in sorted(nodes.items(), key=lambda found: found[1])
            if region in asked and region not in owing and region not in self.ended
        }
        post.send(messages)
        return outcomes, set(messages)

    def _late(self, outcome: RegionOutcome, task: Task) -> RegionOutcome:
        """A good update that comes late, under the code of the plan's rule; anything else as it is."""
        if outcome.code != RELEASED:
            return outcome
        # Moments are of no use in a round of gradients.
        used = self.plan.late_updates == "use" and not self.plan.collects(task.round)
        return replace(outcome, code=LATE_USED if used else LATE_DROPPED)

    def _demand_quorum(self, outcomes: dict[str, RegionOutcome], number: int) -> None:
        """Late updates do not make a quorum."""
        failed = {name: out.code for name, out in sorted(outcomes.items()) if out.code != RELEASED}
        if len(outcomes) - len(failed) < self.quorum(number):
            listed = ", ".join(f"{name}: {code}" for name, code in failed.items())
            raise NotReadyError(
                f"round {number}",
                got=f"{len(outcomes) - len(failed)} of {len(outcomes)} regions ({listed})",
                expected=f"at least {self.plan.quorum:.0%}",
                hint="read region.log of the regions named, fix the cause, then continue with --resume",
            )

    def _as_model(
        self, message: Message, current: Arrays, update: Arrays, task: Task, number: int
    ) -> Message:
        """The reply as Flower's strategies expect it: a whole model, and the weight the plan declares."""
        scale = np.float32(self.plan.scale(task.region))
        weight = self.plan.region(task.region).weight / (1 + number - task.round)
        arrays = ArrayRecord()
        for name, array in current.items():
            arrays[name] = held.Moved(array, update[name], scale)
        message.content = RecordDict({"arrays": arrays, "metrics": MetricRecord({"num-examples": weight})})
        return message
