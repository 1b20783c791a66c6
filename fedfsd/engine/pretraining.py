"""Public pre-training: supervised training on generated or published drives, before any private data.

It costs no privacy because the tables are public: a table of recorded origin is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from fedfsd.config.experiment import Pretraining
from fedfsd.drive.table import Table
from fedfsd.errors import DataError
from fedfsd.task.forecasting import sensor, window
from fedfsd.task.forecasting.loss import window_loss
from fedfsd.task.forecasting.window import WindowSpec


def pretrain(
    model: nn.Module, tables: Sequence[Table], spec: WindowSpec, chosen: Pretraining, *, seed: int
) -> None:
    """Train ``model`` in place by Adam with a cosine schedule, each batch seen through some sensor.

    Raises:
        DataError: a table of recorded origin, or no window to train on.
    """
    if any(table.origin == "recorded" for table in tables):
        raise DataError(
            "pretraining.path",
            got="a table of recorded origin",
            expected="origin synthetic or published",
            hint='set pretraining.path = "public" or "none"',
        )
    points = window.cut(tables, spec, test=False).points
    if not len(points):
        raise DataError("pretraining.path", got="no usable window", expected="drives of moving vehicles")
    random = np.random.default_rng(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=chosen.learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, chosen.steps)
    model.train()
    for _ in range(chosen.steps):
        seen = sensor.observe(
            points[random.integers(len(points), size=chosen.batch_size)],
            random,
            period_seconds=spec.period_seconds,
            max_error_m=chosen.augmentation.get("max_error_m", 1.5),
            max_delay_seconds=chosen.augmentation.get("max_delay_seconds", 0.2),
        )
        history, future = window.agent_frame(seen, spec.history)
        loss = window_loss(*model(torch.from_numpy(history)), torch.from_numpy(future)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
