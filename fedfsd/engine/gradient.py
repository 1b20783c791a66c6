"""Per-vehicle mean gradients, clipped and summed.

Shapes: V vehicles in a micro-batch, k places for examples of each, P model parameters.

Every vehicle has k places, filled or not, and every micro-batch of a plan one size. So no shape depends on
the data: floating-point kernels round a row by the shape of its batch, and a coordinator who chooses the
weights could magnify that into another vehicle's gradient. Nor does the time of a step tell how many
vehicles have examples.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from math import ceil, sqrt
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedfsd.config.experiment import GradientEngine, Precision
from fedfsd.engine import layer
from fedfsd.engine.clip import MicroBatch, kept, whole_of
from fedfsd.engine.device import accelerator_memory, wide
from fedfsd.engine.sampler import BATCH_COST, BATCH_COST_ACCELERATOR
from fedfsd.engine.tape import Deliver
from fedfsd.engine.trunk import Head
from fedfsd.engine.use import Sampled, Use
from fedfsd.engine.vehicle import VehicleData
from fedfsd.errors import ModelError
from fedfsd.task import moments
from fedfsd.task.task import Tensors

# Opacus hooks every layer; that the model's input needs no gradient is as it should be.
warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)

_MEMORY = 2**30  # bytes of what is kept by vehicle
_VEHICLES, _VEHICLES_ACCELERATOR = 256, 1024  # in a micro-batch, where memory allows
_CPU = torch.device("cpu")
_LOG = logging.getLogger("fedfsd.engine")

Loss = Callable[[Any, Tensors], Tensor]
"""A model's output for a batch and its targets -> the loss of each example alone, (B,)."""
OfModel = Callable[[Any], Tensor]
"""A model, or its forward alone -> the loss of a batch, ()."""


class VehicleGradient:
    """Per-vehicle gradients of what learns of one model: the parameters that require a gradient now."""

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        precision: Precision = "float32",
        *,
        engine: GradientEngine = "auto",
    ) -> None:
        """ModelError where ``engine`` is fast and the model has a layer that it does not know."""
        self._loss, self._precision = loss, precision
        self.collecting = False
        """See ``set_parameters``."""
        self._moments = moments.has(model)
        learning = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
        self._names, self.parameters = (list(part) for part in zip(*learning, strict=True))
        self._sizes = [parameter.numel() for parameter in self.parameters]
        self._index = {parameter: index for index, parameter in enumerate(self.parameters)}
        self.size = sum(self._sizes)
        # What windows are computed through, frozen parts too: it stands for what a window takes of memory.
        self.through = (
            self.size
            if any(isinstance(one, Head) for one in model.modules())
            else sum(one.numel() for one in model.parameters())
        )
        unknown = {} if engine == "hooks" else layer.unknown(model)
        for name, kind in list(unknown.items())[:1]:
            if engine == "fast":
                raise _refused(model, name, kind)
            _LOG.warning(
                "slower gradients, by opacus: of %s (%s) the engine has none", name or "the model", kind
            )
        hooks = engine == "hooks" or bool(unknown)
        self._model: _Taped | _Hooked = _Hooked(model) if hooks else _Taped(model)
        self._kept: dict[tuple[int, bool], int] = {}

    def set_parameters(self, flat: Tensor, *, collecting: bool = False) -> None:
        """Copy (P,) values of any floating type into the model, in the order of its parameters.

        ``collecting``: what follows are the moments of its least-squares head (``task.moments``), not
        gradients of the task's loss.
        """
        self.collecting = collecting
        with torch.no_grad():
            parts = flat.split(self._sizes)
            torch._foreach_copy_(
                self.parameters, [part.view_as(to) for part, to in zip(parts, self.parameters, strict=True)]
            )

    def mean_by_vehicle(self, inputs: Tensors, targets: Tensors, taken: Tensor) -> Tensor:
        """Mean gradient over each vehicle's taken places, (V, P) float32; zero where none is taken.

        Args:
            inputs, targets: (V, k, ...) each. taken: (V, k) bool.
        """
        count = len(taken)
        parts = [torch.zeros(count, size, device=taken.device) for size in self._sizes]

        def deliver(parameter: nn.Parameter, uses: list[Use]) -> None:
            parts[self._index[parameter]] = whole_of(uses, count)

        self._model.backward(self._loss_of(inputs, targets, _shares(taken)), deliver)
        return torch.cat(parts, dim=1).masked_fill_(~taken.any(dim=1, keepdim=True), 0.0)

    def plain_sum(self, inputs: Tensors, targets: Tensors, taken: Tensor) -> Tensor:
        """The sum of the vehicles' mean gradients, (P,), by autograd alone: nothing is kept by vehicle.

        Raises:
            ModelError: a parameter that the loss does not depend on.
        """
        return self._plain(inputs, targets, _shares(taken))

    def _plain(self, inputs: Tensors, targets: Tensors, share: Tensor) -> Tensor:
        parts = []
        found = self._model.plain(self._loss_of(inputs, targets, share))
        for name, size, part in zip(self._names, self._sizes, found, strict=True):
            if part is None and self._moments:  # a round is of moments, or of the others
                part = torch.zeros(size, device=share.device)
            if part is None:
                raise ModelError(
                    f"model parameter {name}",
                    got="a loss that does not depend on it",
                    expected="every parameter trained",
                    hint="remove it, or keep a constant in a buffer",
                )
            parts.append(part.flatten())
        return torch.cat(parts)

    def clipped_sum(
        self,
        data: VehicleData,
        slots: np.ndarray,
        window: np.ndarray,
        taken: np.ndarray,
        *,
        max_grad_norm: float | None,
        sample_rate: float = 1.0,
        vehicles: int | None = None,
        processes: int = 1,
        length: int | None = None,
    ) -> Tensor:
        """Sum over vehicles of their clipped mean gradients, (P,) float64, where the device keeps sums.

        Args:
            slots: (V,) sampled vehicles. window, taken: (V, k) as from ``choose_windows``.
            max_grad_norm: None: in mode none alone; nothing is clipped.
            sample_rate: that of the plan, for the size of micro-batches.
            vehicles: how many a micro-batch has where windows are packed. Then who shares a micro-batch with
                whom depends on the others' windows, so every gradient is formed: no rounding may be shared.
            processes: how many share the roster, each with as many slots.
            length: more than P; the sum gets zeros behind it.
        """
        places, company = window.shape[1], data.company
        if company:  # canaries that are out take no place: how many are in says nothing of vehicles
            some = (slots >= company) | taken.any(axis=1)
            slots, window, taken = slots[some], window[some], taken[some]
        each = -(-(data.roster - company or company) // processes)
        values = places * self.through if max_grad_norm is None else self._kept_of(data, places)
        size = vehicles or micro_batch(each, sample_rate, places, self.through, values, data.device)
        if data.roster > company and not vehicles:  # about as many micro-batches as without them
            size += -(-size * company // (2 * (data.roster - company)))
        count = len(slots) + -len(slots) % size
        index = np.full((count, places), data.padding)
        index[: len(slots)] = data.first[slots, None] + window
        full = np.zeros(index.shape, bool)
        full[: len(slots)] = taken
        total = torch.zeros(length or self.size, dtype=torch.float64, device=wide(data.device))
        summed = total[: self.size]
        everything, filled_places = (torch.from_numpy(part).to(data.device) for part in (index, full))
        for low in range(0, len(index), size):
            rows, filled = (part[low : low + size] for part in (everything, filled_places))
            if max_grad_norm is None:
                plain = self._plain_batch(data, rows, filled)
                if plain.isfinite().all():
                    summed += plain.to(total.device)
                    continue
                # A vehicle without a finite gradient does not count; which it is, only its own says.
            inputs = data.inputs_of(rows)
            targets = data.targets_of(rows)
            batch = self._batch(inputs, targets, filled, formed=vehicles is not None)
            if total.device == data.device:
                batch.clipped_sum(max_grad_norm, filled.any(dim=1), summed)
            else:
                summed += batch.clipped_sum(max_grad_norm, filled.any(dim=1)).to(total.device)
        return total

    def _kept_of(self, data: VehicleData, places: int) -> int:
        """Values kept of a vehicle in a micro-batch, from the shapes that its windows have in the model."""
        if isinstance(self._model, _Hooked):
            return places * self.through
        what = places, self.collecting
        if what not in self._kept:
            rows = torch.full((1, places), data.padding, device=data.device)
            found = 0

            def deliver(_: nn.Parameter, uses: list[Use]) -> None:
                nonlocal found
                found += kept(uses, 1) + sum(use.gradient.numel() for use in uses)

            everyone = torch.ones(1, places, dtype=torch.bool, device=data.device)
            loss = self._loss_of(data.inputs_of(rows), data.targets_of(rows), _shares(everyone))
            self._model.backward(loss, deliver, watched=self.collecting)
            self._kept[what] = found
        return self._kept[what]

    def _plain_batch(self, data: VehicleData, rows: Tensor, taken: Tensor) -> Tensor:
        """(P,) of the windows taken and of no others: without privacy shapes may tell of the data."""
        some = rows[taken][:, None]
        if not len(some):
            return torch.zeros(self.size, device=rows.device)
        return self._plain(data.inputs_of(some), data.targets_of(some), _shares(taken)[taken][:, None])

    def _batch(self, inputs: Tensors, targets: Tensors, taken: Tensor, *, formed: bool) -> MicroBatch:
        """One micro-batch with all its gradients."""
        batch = MicroBatch(self._sizes, len(taken), taken.device, formed=formed)

        def deliver(parameter: nn.Parameter, uses: list[Use]) -> None:
            batch.take(self._index[parameter], uses)

        self._model.backward(self._loss_of(inputs, targets, _shares(taken)), deliver)
        return batch

    def _loss_of(self, inputs: Tensors, targets: Tensors, share: Tensor) -> OfModel:
        """Model -> the sum of the vehicles' mean losses; its gradient is that of their mean gradients.

        ``share``: (V, k), each example's of its vehicle's mean.
        """

        def loss(model: Any) -> Tensor:
            flat = {name: values.flatten(0, 1) for name, values in targets.items()}
            # Autocast for the model's passes alone: norms, sums and what follows them are never shortened.
            short = self._precision == "bfloat16" and not self.collecting
            given = [values.flatten(0, 1) for values in inputs.values()]
            with torch.autocast(share.device.type, torch.bfloat16, enabled=short):
                losses = _moments(model, given, flat) if self.collecting else self._loss(model(*given), flat)
            # A place that is not taken repeats one of the vehicle's own examples, so its gradient times its
            # zero share is zero unless the vehicle's gradient is not finite anyway.
            return (losses * share.flatten()).sum()

        return loss


def _shares(taken: Tensor) -> Tensor:
    """(V, k): what each place counts in its vehicle's mean."""
    return taken / taken.sum(dim=1, keepdim=True).clamp(min=1)


class _Taped:
    """A model of layers that the engine knows."""

    def __init__(self, model: nn.Module) -> None:
        self._model, self._tape = model, layer.attach(model)
        self._parameters = [one for one in model.parameters() if one.requires_grad]
        self._learn(False)

    def backward(self, loss: OfModel, deliver: Deliver, *, watched: bool = True) -> None:
        """One forward and backward pass; ``deliver`` takes each parameter's uses.

        ``watched``: hooks on the model are told of it.
        """
        with self._tape.recording(deliver):
            loss(self._model if watched else self._model.forward).backward()

    def plain(self, loss: OfModel) -> Sequence[Tensor | None]:
        """Gradients as of any model."""
        self._learn(True)
        try:
            return torch.autograd.grad(loss(self._model), self._parameters, allow_unused=True)
        finally:
            self._learn(False)

    def _learn(self, yes: bool) -> None:
        for parameter in self._parameters:
            parameter.requires_grad_(yes)


def _moments(model: Any, inputs: Sequence[Tensor], targets: Tensors) -> Tensor:
    """The loss of each example (B,) whose gradient is its moments."""
    with torch.no_grad():
        design, response = model.equations(*inputs, targets)
    return torch.as_tensor(model.moments(design, response))


class _Hooked:
    """Any model that opacus keeps each example's gradient of; never ``make_private``."""

    def __init__(self, model: nn.Module) -> None:
        from opacus import GradSampleModule  # a third of a runner's start, and seldom needed

        self._module = GradSampleModule(model, loss_reduction="sum")
        self._parameters = [one for one in model.parameters() if one.requires_grad]

    def backward(self, loss: OfModel, deliver: Deliver) -> None:
        loss(self._module).backward()
        for parameter in self._parameters:
            sample, parameter.grad_sample = parameter.grad_sample, None  # type: ignore[attr-defined]
            parameter.grad = None
            deliver(parameter, [Sampled(sample)])

    def plain(self, loss: OfModel) -> Sequence[Tensor | None]:
        self._module.disable_hooks()
        try:
            return torch.autograd.grad(loss(self._module), self._parameters, allow_unused=True)
        finally:
            self._module.enable_hooks()


def _refused(model: nn.Module, name: str, kind: str) -> ModelError:
    """Of a layer that the engine does not know."""
    own = model.get_submodule(name).named_parameters(recurse=False)
    parameter = next(one for one, value in own if value.requires_grad)
    return ModelError(
        f"model parameter {name}.{parameter}" if name else f"model parameter {parameter}",
        got=f"a layer ({kind}) of which the engine has no exact gradient of each vehicle",
        expected='with training.engine = "fast", layers that the engine knows',
        hint='set training.engine = "auto", which takes opacus for such a model, or freeze the layer',
    )


def micro_batch(
    roster: int, sample_rate: float, places: int, size: int, values: int, device: torch.device = _CPU
) -> int:
    """Vehicles in a micro-batch, from what is public alone: N, q, k, P, shapes, and the kind of device.

    Where a window costs much, small batches leave few places empty; where it costs little, one batch takes
    nearly every draw. Whole numbers throughout, so that every machine chooses alike.

    Args:
        values: kept of a vehicle until its norm is known.
    """
    memory, vehicles = _MEMORY, _VEHICLES
    if device.type != "cpu":
        memory, vehicles = accelerator_memory(device), _VEHICLES_ACCELERATOR
    largest = min(vehicles, roster, max(1, memory // (8 * max(values, 1))))
    # Sums of all parameters, once in each, cost about as much as one window.
    return _cheapest(largest, roster, sample_rate, places * size, batch_cost(device) + size)


def batch_cost(device: torch.device) -> int:
    """What a micro-batch costs on a device before its first window, in parameters of one window."""
    return BATCH_COST if device.type == "cpu" else BATCH_COST_ACCELERATOR


@lru_cache(maxsize=64)
def _cheapest(largest: int, roster: int, sample_rate: float, vehicle: int, start: int) -> int:
    """The number of vehicles, up to ``largest``, for which draws cost least; ``vehicle``: what one costs."""
    expected = roster * sample_rate
    spread = sqrt(expected * (1 - sample_rate))
    # The draws within two deviations, as if each were as frequent as its neighbours.
    draws = [min(roster, max(1, ceil(expected + step * spread / 4))) for step in range(-8, 9)]

    def cost(vehicles: int) -> int:
        return sum(-(-draw // vehicles) for draw in draws) * (vehicles * vehicle + start)

    return min(range(largest, 0, -1), key=cost)
