"""The coordinator's strategy: any Flower strategy, kept to the plan.

Weights are the plan's, never a client's. A region that fails, stalls or sends rubbish is named and
skipped; the round counts at quorum.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import ceil

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MessageType, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Strategy

from fedfsd.errors import NotReadyError
from fedfsd.federation import reply
from fedfsd.federation.exchange import exchange, roll_call
from fedfsd.federation.reply import Outcome
from fedfsd.plan.plan import Arrays, Plan


@dataclass(frozen=True)
class Round:
    """One finished round: the new global arrays and what each region did."""

    number: int
    arrays: dict[str, np.ndarray]
    """What the next round starts from."""
    model: dict[str, np.ndarray]
    """What would be released now: the mean over the plan's last rounds once they have begun."""
    outcomes: dict[str, Outcome]
    seconds: float


class PlannedStrategy:
    """Runs a plan over a grid; ``inner`` decides how good updates become the next global arrays."""

    def __init__(self, inner: Strategy, plan: Plan, *, round_timeout_seconds: float) -> None:
        self.inner, self.plan, self.round_timeout_seconds = inner, plan, round_timeout_seconds
        self.total: dict[str, np.ndarray] = {}
        """Sum of the arrays of the rounds to be averaged, float64; empty before the first of them."""

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
        nodes = roll_call(grid, nodes=len(self.plan.regions), timeout=self.round_timeout_seconds)
        current = model = dict(arrays)
        for number in range(first_round, self.plan.num_rounds + 1):
            started = time.monotonic()
            current, outcomes = self._round(grid, nodes, current, number)
            model = self._average(current, number)
            on_round(Round(number, current, model, outcomes, time.monotonic() - started))
        return model

    def _average(self, current: Arrays, number: int) -> dict[str, np.ndarray]:
        """The mean over the last rounds so far: less noise in the model, at no cost in privacy."""
        first = self.plan.num_rounds - max(1, round(self.plan.average_last * self.plan.num_rounds)) + 1
        if number < first:
            return dict(current)
        for name, array in current.items():
            self.total[name] = self.total.get(name, 0.0) + array.astype(np.float64)
        return {name: (total / (number - first + 1)).astype(np.float32) for name, total in self.total.items()}

    def _round(
        self, grid: Grid, nodes: Mapping[int, str], current: Arrays, number: int
    ) -> tuple[dict[str, np.ndarray], dict[str, Outcome]]:
        record = ArrayRecord({name: Array(array) for name, array in current.items()})
        # The inner strategy's own messages are not sent: it only learns where the round starts from.
        self.inner.configure_train(number, record, ConfigRecord({}), grid)
        content = RecordDict(
            {"arrays": record, "config": ConfigRecord({"plan": self.plan.document(), "round": number})}
        )
        wanted = {node: region for node, region in nodes.items() if region in self.plan.regions}
        messages = [
            Message(content, node, MessageType.TRAIN, group_id=str(number)) for node in sorted(wanted)
        ]
        replies = exchange(grid, messages, timeout=self.round_timeout_seconds)
        outcomes = {region: Outcome(reply.LOST) for region in self.plan.regions}
        outcomes |= {region: Outcome(reply.TIMEOUT) for region in wanted.values()}
        good: dict[str, Message] = {}
        for message in replies:
            region = wanted[message.metadata.src_node_id]
            outcomes[region], update = reply.read(message, self.plan, region, number)
            if update is not None:
                good[region] = self._as_model(message, current, update, region)
        if len(good) < ceil(self.plan.quorum * len(self.plan.regions)):
            failed = ", ".join(
                f"{name}: {out.code}" for name, out in sorted(outcomes.items()) if name not in good
            )
            raise NotReadyError(
                f"round {number}",
                got=f"{len(good)} of {len(self.plan.regions)} regions ({failed})",
                expected=f"at least {self.plan.quorum:.0%}",
                hint="read region.log of the regions named, mend them, then continue with --resume",
            )
        # Sums of floats depend on their order, so replies are taken in the order of the plan.
        aggregated, _ = self.inner.aggregate_train(number, [good[name] for name in sorted(good)])
        if aggregated is None:
            return dict(current), outcomes
        return {
            entry.name: aggregated[entry.name].numpy().astype(np.float32).reshape(entry.shape)
            for entry in self.plan.model.arrays
        }, outcomes

    def _as_model(self, message: Message, current: Arrays, update: Arrays, region: str) -> Message:
        """The reply as Flower's strategies expect it: a whole model, and the weight the plan declares."""
        arrays = ArrayRecord({name: Array(current[name] + update[name]) for name in current})
        message.content = RecordDict(
            {"arrays": arrays, "metrics": MetricRecord({"num-examples": self.plan.region(region).weight})}
        )
        return message
