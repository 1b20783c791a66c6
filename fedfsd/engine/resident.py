"""A region's own model: the shared one, trained on by the region alone, without noise and for itself alone.

Nothing protects the vehicles that it was trained on from anybody who sees the model or what it answers: its
file is marked, and marked weights are refused wherever weights are read to be shared (``gate.resident``).
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor, nn

from fedfsd.config.experiment import Resident
from fedfsd.engine import backbone
from fedfsd.engine.adam import Adam
from fedfsd.errors import NotReadyError
from fedfsd.gate.resident import CARD, FILE, MARK
from fedfsd.ledger.disk import write_whole
from fedfsd.task.task import Examples, Task

_PART = 8192  # examples whose loss is measured at a time


@dataclass(frozen=True)
class Trained:
    """The model, and how it came about."""

    model: nn.Module
    epochs: int
    """After which it was best on the vehicles held out; 0: nothing was better than the model from before."""
    vehicles: int
    """That have an example, those held out included."""
    held_out: int


def train(
    model: nn.Module,
    task: Task,
    examples: Examples,
    chosen: Resident,
    *,
    seed: int,
    device: torch.device | None = None,
) -> Trained:
    """A copy of ``model``, trained on by Adam as long as that helps vehicles that are held out.

    What of ``model`` learns (``requires_grad``) is trained, nothing else.

    Args:
        examples: of training vehicles alone.

    Raises:
        NotReadyError: fewer than two vehicles have an example, so that none can be held out.
    """
    kept, held = _parted(examples, chosen.held_out)
    inputs, targets = (
        {name: torch.from_numpy(one).to(device) for name, one in part.items()}
        for part in (examples.inputs, examples.targets)
    )
    model = copy.deepcopy(model).to(device)
    optimizer = Adam(model.parameters())
    order = torch.Generator().manual_seed(seed)
    best, least, epochs = copy.deepcopy(model.state_dict()), _loss(model, task, inputs, targets, held), 0
    for epoch in range(1, chosen.max_epochs + 1):
        backbone.still(model)
        for batch in kept[torch.randperm(len(kept), generator=order)].split(chosen.batch_size):
            loss = task.loss(model(*_rows(inputs, batch).values()), _rows(targets, batch)).mean()
            optimizer.step(loss, chosen.learning_rate)
        if (found := _loss(model, task, inputs, targets, held)) < least:
            best, least, epochs = copy.deepcopy(model.state_dict()), found, epoch
        if epoch - epochs >= chosen.patience:
            break
    model.load_state_dict(best)
    owners = [len(np.unique(examples.owner[part.numpy()])) for part in (kept, held)]
    return Trained(model.cpu().eval(), epochs, vehicles=sum(owners), held_out=owners[1])


def demand_enough(vehicles: int, *, place: str) -> None:
    """NotReadyError where so few training vehicles have an example that none can be held out."""
    if vehicles < 2:
        raise NotReadyError(
            place,
            got=f"{vehicles} training vehicles with an example",
            expected="two or more: some are held out to end the training",
            hint="import more drives; fedfsd data check says why vehicles have no example",
        )


def write(folder: Path, weights: Mapping[str, Tensor], card: Mapping[str, Any]) -> Path:
    """Write the model into a runner's ``folder``, and its card into the file and beside it; returns the file.

    Both are readable by this process's user alone, and whole or not there; an earlier model is replaced.

    Raises:
        NotReadyError: the disk is full or cannot be written.
    """
    text = json.dumps(card, indent=2, sort_keys=True)
    write_whole(folder / CARD, f"{text}\n".encode(), private=True)
    write_whole(folder / FILE, save(dict(weights), {MARK: text}), private=True)
    return folder / FILE


def _parted(examples: Examples, share: float) -> tuple[Tensor, Tensor]:
    """The rows to train on and those of the vehicles held out: by vehicle, whatever the order of the data."""
    present = [examples.vehicles[slot] for slot in np.unique(examples.owner)]
    demand_enough(len(present), place="the region's own model")
    drawn = sorted(present, key=lambda key: hashlib.sha256(key.encode()).digest())
    held = set(drawn[: min(max(1, round(share * len(drawn))), len(drawn) - 1)])
    out = torch.from_numpy(np.array([key in held for key in examples.vehicles])[examples.owner])
    return (~out).nonzero().squeeze(1), out.nonzero().squeeze(1)


def _rows(arrays: Mapping[str, Tensor], rows: Tensor) -> dict[str, Tensor]:
    return {name: one[rows] for name, one in arrays.items()}


def _loss(
    model: nn.Module, task: Task, inputs: Mapping[str, Tensor], targets: Mapping[str, Tensor], rows: Tensor
) -> float:
    """The mean over examples."""
    model.eval()
    with torch.inference_mode():
        parts = [
            task.loss(model(*_rows(inputs, part).values()), _rows(targets, part))
            for part in rows.split(_PART)
        ]
    return float(torch.cat(parts).double().mean())
