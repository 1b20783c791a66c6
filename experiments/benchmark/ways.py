"""A training step by several ways to the same sum, on any device; ``step`` and ``accelerator`` measure them.

A step is what a region does: weights set, vehicles drawn, windows chosen, gradients clipped and summed, noise
added, the update moved; plain is the same model on the same windows by autograd and SGD. The other ways get
the same vehicles and give the same kind of sum: *hooks*, opacus's ``GradSampleModule``, and *vmap*,
``torch.func.vmap`` of a vehicle's gradient, both clipped in float32 with torch's ordinary noise (which is not
fit for a release).
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from fedfsd.config.experiment import Precision
from fedfsd.engine import backbone, trunk
from fedfsd.engine.gradient import VehicleGradient
from fedfsd.engine.local import model_on, train
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.shared import Shared
from fedfsd.engine.vehicle import VehicleData
from fedfsd.plan.plan import ArraySchema, ModelPlan, OptimizerPlan, Plan, RegionPlan, TaskPlan
from fedfsd.task.forecasting.loss import window_loss
from fedfsd.task.forecasting.window import WindowSpec
from fedfsd.task.task import Examples, Tensors

CLIP, NOISE, RATE = 0.3, 1.0, 1e-3
REGION = "EU"
WAYS = ("plain", "private", "hooks", "vmap")
CPU = torch.device("cpu")
Loss = Callable[[Any, Tensors], Tensor]
_TRANSFORMERS = {
    "transformer of 171k": {"width": 76, "heads": 4, "layers": 3},
    "transformer of 1.5M": {"width": 192, "heads": 4, "layers": 5},
}


@dataclass(frozen=True)
class Case:
    """A model and how many vehicles with how many windows."""

    model: str
    vehicles: int
    windows: int
    trained: str = "all"
    """What learns, as ``model.trainable`` says it; the rest is frozen."""

    @property
    def name(self) -> str:
        """For people."""
        part = "" if self.trained == "all" else f", {self.trained} alone"
        return f"{self.model}{part}, {self.vehicles} vehicles of {self.windows}"


class PilotNet(nn.Module):
    """A picture (B, 3, 66, 200) to a steering angle (B,), after Bojarski et al. 2016: 252k parameters."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 24, 5, 2), (24, 36, 5, 2), (36, 48, 5, 2), (48, 64, 3, 1), (64, 64, 3, 1))
        convolutions = [layer for size in sizes for layer in (nn.Conv2d(*size), nn.ReLU())]
        widths = ((1152, 100), (100, 50), (50, 10))
        lines = [layer for width in widths for layer in (nn.Linear(*width), nn.ReLU())]
        self.layers = nn.Sequential(*convolutions, nn.Flatten(), *lines, nn.Linear(10, 1))

    def forward(self, picture: Tensor) -> Tensor:
        """The angle."""
        angle: Tensor = self.layers(picture)
        return angle.squeeze(1)


class ResNet18(nn.Module):
    """A picture (B, 3, 96, 96) to an angle (B,), after He et al. 2016 with GroupNorm of 32 groups: 11.2M."""

    def __init__(self) -> None:
        super().__init__()
        first = nn.Conv2d(3, 64, 7, 2, 3, bias=False)
        widths = ((64, 64, 1), (64, 128, 2), (128, 256, 2), (256, 512, 2))
        blocks = [
            block
            for before, after, stride in widths
            for block in (_Block(before, after, stride), _Block(after, after, 1))
        ]
        start = (first, nn.GroupNorm(32, 64), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.layers = nn.Sequential(*start, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1))
        self.parts = {"head": (f"layers.{len(self.layers) - 1}",)}

    def trunk(self, picture: Tensor) -> Tensor:
        """The features (B, 512)."""
        features: Tensor = self.layers[:-1](picture)
        return features

    def head(self, features: Tensor) -> Tensor:
        """The angle."""
        angle: Tensor = self.layers[-1](features)
        return angle.squeeze(1)

    def forward(self, picture: Tensor) -> Tensor:
        """The angle."""
        return self.head(self.trunk(picture))


class _Block(nn.Module):
    """Two convolutions around which the input is carried."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv2d(before, after, 3, stride, 1, bias=False),
            nn.GroupNorm(32, after),
            nn.ReLU(),
            nn.Conv2d(after, after, 3, 1, 1, bias=False),
            nn.GroupNorm(32, after),
        )
        shorter = (nn.Conv2d(before, after, 1, stride, bias=False), nn.GroupNorm(32, after))
        self.past = nn.Sequential(*(shorter if before != after else ()))

    def forward(self, image: Tensor) -> Tensor:
        return torch.relu(self.main(image) + self.past(image))


PICTURES: dict[str, tuple[type[nn.Module], tuple[int, int, int]]] = {
    "PilotNet": (PilotNet, (3, 66, 200)),
    "ResNet-18": (ResNet18, (3, 96, 96)),
}


class Steps:
    """The ways of one case; a call of one is ``steps`` steps."""

    def __init__(
        self, case: Case, device: torch.device = CPU, precision: Precision = "float32", steps: int = 1
    ) -> None:
        torch.manual_seed(0)
        self.case, self.device, self.precision, self.steps = case, device, precision, steps
        model, self.loss = _model(case.model)
        self.model = model.to(device)
        backbone.freeze(model, backbone.trained(model, case.trained))
        self.inputs, self.targets = (
            {name: values.to(device) for name, values in part.items()} for part in _examples(case)
        )
        self._done = 0

    @property
    def size(self) -> int:
        """Parameters of the model."""
        return sum(parameter.numel() for parameter in self.model.parameters())

    def way(self, name: str) -> Callable[[], object]:
        """``plain``, ``private``, ``hooks`` or ``vmap``."""
        made: Callable[[nn.Module], Callable[[], object]] = getattr(self, f"_{name}")
        return made(copy.deepcopy(self.model))

    def engine(self) -> tuple[VehicleGradient, VehicleData]:
        """The engine's model with the case's vehicles."""
        case = self.case
        counts = np.full(case.vehicles, case.windows)
        inputs, targets = (
            {name: torch.cat([values, torch.zeros_like(values[:1])]) for name, values in part.items()}
            for part in (self.inputs, self.targets)
        )
        data = VehicleData(inputs, targets, np.cumsum(counts) - counts, counts, self.device)
        model = copy.deepcopy(self.model)
        behind = case.trained == "head" and hasattr(model, "trunk")
        gradient = model_on(model, self.loss, self.device, self.precision, behind_trunk=behind)
        if behind:  # computed once, and kept
            owner = np.repeat(np.arange(case.vehicles), case.windows)
            here = [
                {name: one.cpu().numpy() for name, one in part.items()}
                for part in (self.inputs, self.targets)
            ]
            examples = Examples(tuple(map(str, range(case.vehicles))), owner, *here)
            data = trunk.place_behind(model, examples, roster=case.vehicles, device=self.device)
        return gradient, data

    def _private(self, _: nn.Module) -> Callable[[], object]:
        return self.rounds(*self.engine())

    def rounds(self, gradient: VehicleGradient | Shared, data: VehicleData) -> Callable[[], object]:
        """Rounds of the engine, by ``gradient``."""
        plan = self._plan()
        plan_hash = plan.hash
        arrays = {name: value.detach().cpu().numpy() for name, value in _learning(self.model).items()}

        def round() -> object:
            self._done += 1
            return train(gradient, data, arrays, plan, RoundKey(bytes(32), REGION, plan_hash, self._done, ""))

        return round

    def _plain(self, model: nn.Module) -> Callable[[], object]:
        optimizer = torch.optim.SGD(_learning(model).values(), lr=RATE, momentum=0.9)

        def step() -> None:
            optimizer.zero_grad()
            inputs, targets = self._drawn(flat=True)
            with self.autocast():
                losses = self.loss(model(*inputs.values()), targets)
            losses.mean().backward()
            optimizer.step()

        return self._repeated(step)

    def _hooks(self, model: nn.Module) -> Callable[[], object]:
        module = import_module("opacus").GradSampleModule(model.train(), loss_reduction="sum")
        parameters = list(_learning(model).values())

        def step() -> object:
            inputs, targets = self._drawn(flat=True)
            with self.autocast():
                losses = self.loss(module(*inputs.values()), targets)
            losses.sum().backward()
            shape = (self.case.vehicles, self.case.windows)
            samples = []
            for parameter in parameters:
                sample: Tensor = parameter.grad_sample  # type: ignore[attr-defined]
                samples.append(sample.unflatten(0, shape).mean(dim=1) if shape[1] > 1 else sample)
                parameter.grad_sample = parameter.grad = None  # type: ignore[attr-defined]
            return _move(parameters, samples)

        return self._repeated(step)

    def _vmap(self, model: nn.Module) -> Callable[[], object]:
        parameters = _learning(model)
        frozen = {name: one for name, one in model.named_parameters() if name not in parameters}
        buffers = {**dict(model.named_buffers()), **frozen}

        def loss(values: dict[str, Tensor], inputs: Tensors, targets: Tensors) -> Tensor:
            with self.autocast():
                output = torch.func.functional_call(model, (values, buffers), tuple(inputs.values()))
                return self.loss(output, targets).mean()

        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

        def step() -> object:
            samples = each({name: one.detach() for name, one in parameters.items()}, *self._drawn(flat=False))
            return _move(list(parameters.values()), [samples[name] for name in parameters])

        return self._repeated(step)

    def _repeated(self, step: Callable[[], object]) -> Callable[[], object]:
        def steps() -> object:
            for _ in range(self.steps - 1):
                step()
            return step()

        return steps

    def autocast(self, *, enabled: bool = True) -> AbstractContextManager[object]:
        """Around a forward pass; it does something where the precision is bfloat16."""
        short = enabled and self.precision == "bfloat16"
        return torch.autocast(self.device.type, torch.bfloat16, enabled=short)

    def _drawn(self, *, flat: bool) -> tuple[Tensors, Tensors]:
        """All windows, copied as a draw's are: (V k, ...) or (V, k, ...)."""
        shape = (self.case.vehicles, self.case.windows)
        index = torch.arange(shape[0] * shape[1], device=self.device)
        index = index if flat else index.view(shape)
        inputs, targets = (
            {name: values[index] for name, values in part.items()} for part in (self.inputs, self.targets)
        )
        return inputs, targets

    def _plan(self) -> Plan:
        """Rounds of ``steps`` steps of every vehicle."""
        arrays = ((name, tuple(value.shape)) for name, value in _learning(self.model).items())
        region = RegionPlan(
            roster=self.case.vehicles,
            identity="physical",
            sample_rate=1.0,
            noise_multiplier=NOISE,
            max_grad_norm=CLIP,
            local_steps=self.steps,
            windows_per_vehicle=self.case.windows,
            weight=1.0,
            target_delta=1e-5,
            target_epsilon=None,
            epsilon=1e6,
        )
        return Plan(
            name="benchmark",
            mode="private",
            num_rounds=100_000,
            regions={REGION: region},
            model=ModelPlan(
                name="model",
                options={},
                arrays=tuple(ArraySchema(name=name, shape=shape) for name, shape in arrays),
                witness_size=0,
                initial_sha256="0" * 64,
            ),
            task=TaskPlan(name="forecasting", options={}),
            optimizer=OptimizerPlan(learning_rate=RATE, momentum=0.9, schedule="constant"),
            seed=0,
            strategy="FedAvg",
            strategy_options={},
            quorum=0.5,
            late_updates="drop",
            average_last=0.0,
        )


def _learning(model: nn.Module) -> dict[str, nn.Parameter]:
    return {name: one for name, one in model.named_parameters() if one.requires_grad}


def _move(parameters: list[nn.Parameter], samples: list[Tensor]) -> list[Tensor]:
    """Clip, sum, noise and step, as opacus's optimizer does it; returns what was taken off."""
    moved = []
    norms = torch.stack([sample.flatten(1).norm(dim=1) for sample in samples], dim=1).norm(dim=1)
    factors = (CLIP / (norms + 1e-6)).clamp(max=1.0)
    with torch.no_grad():
        for parameter, sample in zip(parameters, samples, strict=True):
            total = torch.einsum("v,v...", factors, sample.to(factors.dtype))
            total += torch.normal(0.0, NOISE * CLIP, total.shape, device=total.device)
            moved.append(total.mul_(RATE / len(sample)))
            parameter.sub_(moved[-1])
    return moved


def _model(name: str) -> tuple[nn.Module, Loss]:
    if name in PICTURES:
        return PICTURES[name][0](), lambda output, targets: (output - targets["angle"]).square()
    options, build = import_module(f"fedfsd.task.forecasting.model.{name.split()[0]}").ENTRY
    model: nn.Module = build(options(**_TRANSFORMERS.get(name, {})), _spec(name))
    return model, lambda output, targets: window_loss(output[0], output[1], targets["future"])


def _spec(name: str) -> WindowSpec:
    return WindowSpec(period_seconds=0.1) if name in _TRANSFORMERS else WindowSpec()


def _examples(case: Case) -> tuple[Tensors, Tensors]:
    count, random = case.vehicles * case.windows, torch.Generator().manual_seed(0)
    if case.model in PICTURES:
        pictures = torch.randn(count, *PICTURES[case.model][1], generator=random)
        return {"picture": pictures}, {"angle": torch.randn(count, generator=random)}
    spec = _spec(case.model)
    speed = torch.tensor([8.0, 0.0]) * spec.period_seconds
    steps = speed + 0.1 * torch.randn(count, spec.history + spec.future, 2, generator=random)
    track = steps.cumsum(dim=1)
    track = track - track[:, spec.history - 1 : spec.history]
    return {"history": track[:, : spec.history].clone()}, {"future": track[:, spec.history :].clone()}
