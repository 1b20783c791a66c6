"""The strategy ``moments``: one round of moments, solved; then rounds of gradients by FedAvgM, if any."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from flwr.app import ArrayRecord, Message, MetricRecord
from flwr.serverapp.strategy import FedAvg, FedAvgM

from fedfsd.flower import held
from fedfsd.plan.plan import STATISTICS, Arrays

Solve = Callable[[Arrays, Arrays], dict[str, np.ndarray]]
"""The arrays that the round started from and the mean of what it made of them -> the solved model's."""


class Moments(FedAvgM):
    """FedAvgM whose first round is solved as a ridge regression."""

    def __init__(
        self,
        *,
        share: float = 0.5,
        ridge: float = 1.0,
        server_momentum: float = 0.9,
        fraction_train: float = 1.0,
        fraction_evaluate: float = 0.0,
        min_train_nodes: int = 1,
        min_available_nodes: int = 1,
    ) -> None:
        """As options of the experiment's server.

        Args:
            share: of the privacy loss that goes to the release of moments, where rounds follow; above 0.
            ridge: in multiples of what noise alone does to second moments.
            server_momentum: of the rounds that follow.
        """
        if not 0 < share < 1 or not ridge >= 0:
            raise ValueError("share between 0 and 1, ridge of at least 0")
        super().__init__(
            fraction_train=fraction_train,
            fraction_evaluate=fraction_evaluate,
            min_train_nodes=min_train_nodes,
            min_available_nodes=min_available_nodes,
            server_momentum=server_momentum,
        )
        self.share, self.ridge = share, ridge
        self.solve: Solve | None = None

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The mean of the replies, in the first round solved; moments stay as they were released."""
        assert self.current_arrays is not None  # of configure_train
        start = held.arrays_of(self.current_arrays)
        if server_round > 1:
            found, metrics = super().aggregate_train(server_round, replies)
            if found is not None:
                self.current_arrays = held.record(held.arrays_of(found) | {STATISTICS: start[STATISTICS]})
            return found and self.current_arrays, metrics
        found, metrics = FedAvg.aggregate_train(self, server_round, replies)
        if found is not None:
            assert self.solve is not None
            found = self.current_arrays = held.record(self.solve(start, held.arrays_of(found)))
        return found, metrics
