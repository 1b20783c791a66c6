"""Before the first step: is each vehicle's gradient in a batch its gradient alone?

Clipping bounds one vehicle's influence only if its windows touch no other vehicle's gradient. Opacus's
module validation looks at layer types; ``x - x.mean(0)`` in a forward passes it. So every model is
also tried on synthetic vehicles, extreme neighbours included.
"""

from __future__ import annotations

import copy
import traceback
from collections.abc import Collection, Iterable
from pathlib import Path

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from fedfsd.config.experiment import GradientEngine, Precision
from fedfsd.engine import layer, trunk
from fedfsd.engine.gradient import VehicleGradient
from fedfsd.engine.local import lanes_of, model_on
from fedfsd.errors import ModelError
from fedfsd.plain_text import plain
from fedfsd.plan.plan import RegionPlan
from fedfsd.task import moments
from fedfsd.task.task import Task, Tensors

_TORCH = Path(torch.__file__).parent
_LIBRARIES = (_TORCH, _TORCH.with_name("opacus"), Path(__file__).parents[1])
"""Whose code is not a model's own."""
_TOLERANCE = 1e-4  # of the gradient's norm; float32 sums in another order stay far below
_CPU = torch.device("cpu")
_ORDINARY = 2  # synthetic vehicles, the first ones


def probe(
    model: nn.Module,
    task: Task,
    trained: Collection[str] | None = None,
    *,
    engine: GradientEngine = "auto",
) -> None:
    """Refuse a model that cannot be trained with per-vehicle clipping. ``model`` itself is not touched.

    Args:
        trained: the parameters that learn; by default all. engine: what computes their gradients.

    Raises:
        ModelError: a layer that opacus refuses, a parameter that should learn frozen, a buffer that moves in
            forward, an output of another shape, or a vehicle whose gradient depends on the others.
    """
    for name, module in model.named_modules():
        if is_parametrized(module) and any(one.requires_grad for one in module.parameters()):
            raise ModelError(
                f"model layer {name}",
                got="a weight that is computed from others (a parametrization)",
                expected="weights that are used as they are: opacus gets such a gradient wrong",
                hint="write an adapter as a layer beside the frozen one, or freeze this layer",
            )
    for name, parameter in model.named_parameters():
        if parameter.dtype != torch.float32:
            raise ModelError(
                f"model parameter {name}",
                got=f"parameters are {_dtype(parameter)}",
                expected="float32",
                hint='leave them in float32; training.precision = "bfloat16" computes the passes by autocast',
            )
    by_opacus = engine == "hooks" or (engine == "auto" and bool(layer.unknown(model)))
    faults = _refused(model) if by_opacus else []
    if faults:
        raise ModelError(
            "model",
            got=str(faults[0]).splitlines()[0],
            expected="layers with per-sample gradients",
            hint="replace the layer, for example BatchNorm by LayerNorm",
        )
    frozen = [
        name
        for name, parameter in model.named_parameters()
        if not parameter.requires_grad and (trained is None or name in trained)
    ]
    if frozen:
        raise ModelError(
            f"model parameter {frozen[0]}",
            got="frozen",
            expected="every parameter trainable",
            hint="name what is trained in model.trainable, or keep constants in buffers",
        )
    generator = torch.Generator().manual_seed(0)
    # As initialised a zero head can hide what happens before it: the second try has random weights.
    for scramble in (False, True):
        trial = copy.deepcopy(model)
        if scramble:
            with torch.no_grad():
                for parameter in trial.parameters():
                    if not parameter.requires_grad:
                        continue
                    parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
        buffers = {name: buffer.clone() for name, buffer in trial.named_buffers()}
        try:
            _compare(trial, task, *task.synthetic(generator), engine=engine)
        except ModelError:
            raise
        except Exception as error:  # whatever somebody's model may raise
            raise ModelError(
                "model",
                got=f"a forward or backward pass that fails: {failure(error)}",
                expected="one that works for each window alone",
                hint="see fedfsd/task/task.py for the contract",
            ) from error
        for name, buffer in trial.named_buffers():
            if name not in buffers or not torch.equal(buffer, buffers[name]):
                raise ModelError(
                    f"model buffer {name}",
                    got="a buffer that moves in forward",
                    expected="buffers that stay",
                    hint="its values would leave without noise",
                )


def failure(error: Exception) -> str:
    """What somebody's model raised on made-up inputs, and where in its own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [one for one in frames if not any(Path(one.filename).is_relative_to(at) for at in _LIBRARIES)]
    at = (own or list(frames))[-1]
    text = plain(str(error).strip().partition("\n")[0])
    return f"{type(error).__name__}: {text} ({Path(at.filename).name}, line {at.lineno})"


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _refused(model: nn.Module) -> list[Exception]:
    """What opacus has no per-sample gradients of."""
    from opacus.validators import ModuleValidator

    found: list[Exception] = ModuleValidator.validate(model, strict=False)
    return found


def _compare(
    model: nn.Module, task: Task, inputs: Tensors, targets: Tensors, *, engine: GradientEngine
) -> None:
    """Each vehicle's gradient in the batch against its gradient alone, by autograd."""
    gradient = model_on(model, task.loss, torch.device("cpu"), engine=engine)
    flat = {name: values.flatten(0, 1) for name, values in targets.items()}
    with torch.no_grad():
        task.demand_output(model(*(values.flatten(0, 1) for values in inputs.values())), flat)
    for gradient.collecting in (False, True) if moments.has(model) else (False,):
        _compare_gradients(gradient, inputs, targets)


def _compare_gradients(gradient: VehicleGradient, inputs: Tensors, targets: Tensors) -> None:
    places = next(iter(inputs.values())).shape[:2]
    taken = torch.ones(places, dtype=torch.bool)
    together = gradient.mean_by_vehicle(inputs, targets, taken)
    # In a batch of one shape, whatever the others hold must not change a bit.
    beside_still = gradient.mean_by_vehicle(_quieted(inputs), _quieted(targets), taken)
    if not torch.equal(together[:_ORDINARY], beside_still[:_ORDINARY]):
        raise _coupled()
    for vehicle in range(len(taken)):
        one = slice(vehicle, vehicle + 1)
        alone = gradient.plain_sum(_rows(inputs, one), _rows(targets, one), taken[one])
        if vehicle >= _ORDINARY and not torch.isfinite(alone).all():
            continue  # becomes zero in the step, whatever the batch made of it
        difference = torch.linalg.vector_norm(together[vehicle] - alone)
        if not difference <= _TOLERANCE * torch.linalg.vector_norm(alone) + 1e-6:
            raise _coupled()


def probe_places(
    model: nn.Module,
    task: Task,
    regions: Iterable[RegionPlan],
    *,
    device: torch.device = _CPU,
    precision: Precision = "float32",
    engine: GradientEngine = "auto",
) -> None:
    """Refuse to pack a model's windows where a vehicle's bits depend on its place in a micro-batch.

    Kernels may treat the rows at a batch's end otherwise; which do is a matter of model, shape and machine.

    Args:
        regions: who packs; the shapes of their micro-batches are tried.

    Raises:
        ModelError: they do.
    """
    generator = torch.Generator().manual_seed(0)
    trial = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in trial.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    behind = trunk.frozen(trial, task)
    gradient = model_on(trial, task.loss, device, precision, behind_trunk=behind, engine=engine)
    ordinary = [
        {name: values[:_ORDINARY].flatten(0, 1).to(device) for name, values in part.items()}
        for part in task.synthetic(generator)
    ]
    if behind:
        ordinary[0] = trunk.features(trial, ordinary[0])
    count = len(next(iter(ordinary[0].values())))
    for lane in {lane for mine in regions for lane in lanes_of(mine, gradient.through, device)}:
        window = torch.randint(count, (lane.vehicles, lane.places), generator=generator)
        taken = torch.ones(window.shape, dtype=torch.bool, device=device)
        found: list[torch.Tensor] = []
        for first in sorted({0, 1, lane.vehicles // 2, lane.vehicles - 1}):
            rows = window.roll(first, 0).to(device)
            inputs, targets = ({name: values[rows] for name, values in part.items()} for part in ordinary)
            found.append(gradient.mean_by_vehicle(inputs, targets, taken).roll(-first, 0))
        if any(not torch.equal(one, found[0]) for one in found[1:]):
            raise ModelError(
                "model",
                got=f"a vehicle's gradient that depends on its place among {lane.vehicles}",
                expected="the same bits at every place, where windows are packed",
                hint="set privacy.pack_windows = false",
            )


def _coupled() -> ModelError:
    return ModelError(
        "model",
        got="a vehicle's gradient that depends on the other vehicles in its batch",
        expected="each window computed alone",
        hint="remove operations across the batch, such as x - x.mean(0)",
    )


def _quieted(tensors: Tensors) -> Tensors:
    """All vehicles zero but the ordinary ones."""
    quiet = {name: values.clone() for name, values in tensors.items()}
    for values in quiet.values():
        values[_ORDINARY:] = 0
    return quiet


def _rows(tensors: Tensors, rows: slice) -> Tensors:
    return {name: values[rows] for name, values in tensors.items()}
