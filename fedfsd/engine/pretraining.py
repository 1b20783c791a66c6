"""Public pre-training: supervised training on generated or published examples, before any private data.

It costs no privacy because the tables are public: a table of recorded origin is refused.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

import numpy as np
from torch import nn

from fedfsd.config.experiment import Pretraining
from fedfsd.drive.table import Table
from fedfsd.engine import backbone
from fedfsd.engine.adam import Adam, cosine
from fedfsd.errors import DataError
from fedfsd.task.task import Task

_PROGRESS = logging.getLogger("fedfsd.progress")
_TOLD_SECONDS = 1.0


def pretrain(
    model: nn.Module, task: Task, tables: Sequence[Table], chosen: Pretraining, *, seed: int
) -> None:
    """Train what learns of ``model`` by Adam with a cosine schedule, on public batches as the task varies
    them.

    Raises:
        DataError: a table of recorded origin, or no example to train on.
    """
    if any(table.origin == "recorded" for table in tables):
        raise DataError(
            "pretraining.path",
            got="a table of recorded origin",
            expected="origin synthetic or published",
            hint='set pretraining.path = "public" or "none"',
        )
    batches = task.public_batches(
        tables, chosen.augmentation, batch_size=chosen.batch_size, random=np.random.default_rng(seed)
    )
    optimizer = Adam(model.parameters())
    backbone.still(model)
    _PROGRESS.info("public pre-training: %d steps", chosen.steps)
    told = time.monotonic()
    rates = cosine(chosen.learning_rate, chosen.steps)
    for step, (rate, (inputs, targets)) in enumerate(zip(rates, batches, strict=False)):
        if time.monotonic() - told >= _TOLD_SECONDS:
            told = time.monotonic()
            _PROGRESS.debug("public pre-training: %d of %d steps", step, chosen.steps)
        optimizer.step(task.loss(model(*inputs.values()), targets).mean(), rate)
