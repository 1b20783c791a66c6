"""A strategy: FedAvg that goes only part of the way to the mean of the regions' updates.

An entry of ``fedfsd.strategies`` is a class like those of ``flwr.serverapp.strategy``. ``server.options``
become its arguments; fedfsd sets the four that say who takes part. What reaches it was clipped and
noised in the regions: whatever a strategy computes costs no privacy.
"""

from __future__ import annotations

from collections.abc import Iterable

from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg


class Damped(FedAvg):
    """``new = old + step * (mean - old)``."""

    def __init__(
        self,
        *,
        fraction_train: float = 1.0,
        fraction_evaluate: float = 1.0,
        min_train_nodes: int = 2,
        min_available_nodes: int = 2,
        step: float = 0.5,
    ) -> None:
        super().__init__(
            fraction_train=fraction_train,
            fraction_evaluate=fraction_evaluate,
            min_train_nodes=min_train_nodes,
            min_available_nodes=min_available_nodes,
        )
        if not 0 < step <= 1:
            raise ValueError(f"step {step}, expected more than 0 and at most 1")
        self.step = step
        self._sent = ArrayRecord()

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Remember what the round starts from."""
        self._sent = arrays
        return super().configure_train(server_round, arrays, config, grid)

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The mean, moved back towards the start of the round."""
        mean, metrics = super().aggregate_train(server_round, replies)
        if mean is None:
            return mean, metrics
        moved = {}
        for name, array in mean.items():
            old = self._sent[name].numpy()
            moved[name] = Array((old + self.step * (array.numpy() - old)).astype(old.dtype))
        return ArrayRecord(moved), metrics
