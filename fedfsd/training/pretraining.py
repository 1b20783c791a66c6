"""Public pre-training: supervised training on generated or published drives, before any private data.

It costs no privacy because the tables are public: a table of recorded origin is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from fedfsd.driving import window
from fedfsd.driving.loss import window_loss
from fedfsd.driving.table import Table
from fedfsd.driving.window import WindowSpec
from fedfsd.errors import DataError


def pretrain(
    model: nn.Module,
    tables: Sequence[Table],
    spec: WindowSpec,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    jitter_m: float,
    seed: int,
) -> None:
    """Train ``model`` in place by Adam with a cosine schedule.

    Each window's history gets the noise of some sensor, of a standard deviation up to ``jitter_m``
    drawn for the window, so that the model learns to smooth what jitters and to trust what does not.

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
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    model.train()
    for _ in range(steps):
        batch = points[random.integers(len(points), size=batch_size)]
        batch[:, : spec.history] += random.normal(size=(batch_size, spec.history, 2)) * random.uniform(
            0, jitter_m, size=(batch_size, 1, 1)
        )
        history, future = window.agent_frame(batch, spec.history)
        loss = window_loss(*model(torch.from_numpy(history)), torch.from_numpy(future)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
