"""A frozen trunk's features: computed once and kept, where the model says where its trunk ends.

A model declares it by two methods (or modules): ``trunk(*inputs)`` gives a tensor or a tuple of tensors with
a row an example, and ``head(*features)`` makes of them what the whole model makes of the inputs.

Features must depend on nothing but their own vehicle, like everything before clipping, and a floating-point
kernel may round a row by its batch's shape and its place there. So a vehicle's examples go through the trunk
in chunks of one fixed size in their own order, never beside another vehicle's. Kept or computed again at
each step, they are the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedfsd.engine import backbone
from fedfsd.engine.vehicle import VehicleData, place
from fedfsd.task.task import Examples, Task, Tensors

_CHUNK = 8  # examples
_BLOCK = 1024  # examples whose features are put away together
_KEPT = 2 * 2**30  # bytes of features; beyond, they are computed at each step


class Head(nn.Module):
    """What of a model comes behind its trunk."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, *features: Tensor) -> Any:
        return self.model.head(*features)


def frozen(model: Any, task: Task) -> bool:
    """Whether ``model`` declares where its trunk ends, and nothing in the trunk learns."""
    if not callable(getattr(model, "trunk", None)):
        return False
    backbone.still(model)
    inputs, _ = task.synthetic(torch.Generator().manual_seed(0))
    features = _parts(model.trunk(*(values.flatten(0, 1) for values in inputs.values())))
    return not any(values.requires_grad for values in features)


def features(model: Any, inputs: Tensors) -> Tensors:
    """What the trunk makes of ``inputs`` (B, ...) each."""
    with torch.no_grad():
        parts = _parts(model.trunk(*inputs.values()))
    return {str(number): values for number, values in enumerate(parts)}


def place_behind(model: nn.Module, examples: Examples, *, roster: int, device: torch.device) -> VehicleData:
    """``vehicle.place`` of what the trunk makes of the examples, kept where there is room for it."""
    bare = place(replace(examples, inputs={}), roster=roster, device=device)
    chunks = _Chunks(model, examples.inputs, _chunked(bare.counts), device)
    nothing = chunks.padding()
    if sum(values.nbytes for values in nothing.values()) * len(examples) > _KEPT:
        found = {name: getattr(bare, name) for name in ("targets", "first", "counts", "device", "surplus")}
        return _Recomputed(inputs={}, chunks=chunks, **found)
    kept = {
        name: values.expand(len(examples) + 1, *values.shape[1:]).clone() for name, values in nothing.items()
    }
    for low in range(0, len(examples), _BLOCK):
        rows = np.arange(low, min(low + _BLOCK, len(examples)))
        for to, values in zip(kept.values(), chunks.features(rows), strict=True):
            to[low : low + len(rows)] = values
    return replace(bare, inputs=kept)


@dataclass(frozen=True)
class _Chunks:
    """The examples, and which of them go through the trunk together."""

    model: Any
    inputs: Mapping[str, np.ndarray]  # (W, ...) each
    start: np.ndarray
    """(W,) the first example of each one's chunk."""
    device: torch.device

    def features(self, rows: np.ndarray) -> tuple[Tensor, ...]:
        """The features of the examples ``rows`` (B,), a row each."""
        starts, place = np.unique(self.start[rows], return_inverse=True)
        found = [self._chunk(int(start)) for start in starts]
        where = torch.from_numpy(place * _CHUNK + rows - self.start[rows]).to(self.device)
        return tuple(torch.cat(part)[where] for part in zip(*found, strict=True))

    def padding(self) -> Tensors:
        """Features of no example but the padding one."""
        return {str(number): torch.zeros_like(values[:1]) for number, values in enumerate(self._chunk(None))}

    def _chunk(self, start: int | None) -> tuple[Tensor, ...]:
        """What the trunk makes of one chunk, filled up with zeros; None: of zeros alone."""
        rows = slice(0, 0) if start is None else slice(start, np.searchsorted(self.start, start, "right"))
        with torch.no_grad():
            return _parts(self.model.trunk(*(self._filled(values[rows]) for values in self.inputs.values())))

    def _filled(self, values: np.ndarray) -> Tensor:
        full = np.zeros((_CHUNK, *values.shape[1:]), values.dtype)
        full[: len(values)] = values
        return torch.from_numpy(full).to(self.device)


@dataclass(frozen=True)
class _Recomputed(VehicleData):
    """Vehicles whose features are computed when they are asked for."""

    chunks: _Chunks = field(kw_only=True)

    def inputs_of(self, rows: Tensor) -> Tensors:
        flat = rows.cpu().numpy().ravel()
        there = flat != self.padding
        found: Tensors = {}
        parts = self.chunks.features(flat[there]) if there.any() else self.chunks.padding().values()
        mask = torch.from_numpy(there).to(self.device)
        for number, values in enumerate(parts):
            full = values.new_zeros(len(flat), *values.shape[1:])
            if there.any():
                full[mask] = values
            found[str(number)] = full.unflatten(0, rows.shape)
        return found


def _chunked(counts: np.ndarray) -> np.ndarray:
    """(W,) the first example of each one's chunk, for vehicles that own ``counts`` examples in turn."""
    first = np.repeat(np.cumsum(counts) - counts, counts)
    return np.asarray(first + (np.arange(len(first)) - first) // _CHUNK * _CHUNK)


def _parts(features: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return features if isinstance(features, tuple) else (features,)
