"""What a private step costs over a plain one: processor time and memory, beside other ways to the same sum.

A step is what a region does: weights set, vehicles drawn, windows chosen, gradients clipped and summed, noise
added, the update moved; plain is the same model on the same windows by autograd and SGD. The other ways get
the same vehicles and give the same kind of sum: *hooks*, opacus's ``GradSampleModule``, and *vmap*,
``torch.func.vmap`` of a vehicle's gradient, both clipped in float32 with torch's ordinary noise (which is not
fit for a release). All of them take turns in one process of one thread; each ratio is of neighbours in time.
Memory is the peak of two steps over what model, data and packages take, a process for each way.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import numpy as np
import torch
from opacus import GradSampleModule
from torch import Tensor, nn

from experiments.benchmark.audit import plan_of
from experiments.benchmark.row import Row
from fedfsd.engine.local import model_on, train
from fedfsd.engine.randomness import RoundKey
from fedfsd.engine.vehicle import VehicleData
from fedfsd.plan.plan import ArraySchema, Plan
from fedfsd.task.forecasting.loss import window_loss
from fedfsd.task.forecasting.model import registry
from fedfsd.task.forecasting.window import WindowSpec
from fedfsd.task.task import Tensors

_CLIP, _NOISE, _RATE = 0.3, 1.0, 1e-3
_CPU = torch.device("cpu")
WAYS = ("plain", "private", "hooks", "vmap")
Loss = Callable[[Any, Tensors], Tensor]


@dataclass(frozen=True)
class Case:
    """A model and how many vehicles with how many windows; targets are ratios to the plain step."""

    model: str
    vehicles: int
    windows: int
    time: float
    memory: float | None = None
    repeats: int = 40

    @property
    def name(self) -> str:
        return f"{self.model}, {self.vehicles} vehicles of {self.windows}"


CASES = (
    Case("mlp", 64, 8, 1.5),
    Case("gru", 64, 8, 1.5),
    Case("transformer", 64, 8, 1.5),
    Case("transformer of 171k", 64, 1, 1.25, 1.5),
    Case("PilotNet", 64, 1, 1.2, 1.8, repeats=9),
    Case("PilotNet", 16, 8, 1.2, repeats=7),
)


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
        angle: Tensor = self.layers(picture)
        return angle.squeeze(1)


def step(*, quick: bool) -> list[Row]:
    """Ratios of time and memory to the plain step, each case in processes of its own."""
    rows = []
    for case in CASES[:3] if quick else CASES:
        number = CASES.index(case)
        found = _child("time", number, 3 if quick else case.repeats)
        ratios = {way: _spread(found["ratios"][way]) for way in WAYS[1:]}
        ways = "; ".join(f"{way} {text}" for way, text in ratios.items())
        detail = f"plain {median(found['plain']) * 1000:.1f} ms; {ways}"
        measured = median(found["ratios"]["private"])
        rows.append(Row(f"step: {case.name}", measured, case.time, "x plain", "<=", detail))
        if case.memory is not None:
            peaks = {way: _child("memory", number, way)["peak"] for way in WAYS}
            detail = "; ".join(f"{way} {peak / 1e6:.0f} MB" for way, peak in peaks.items())
            measured = peaks["private"] / peaks["plain"]
            rows.append(Row(f"step, memory: {case.name}", measured, case.memory, "x plain", "<=", detail))
    return rows


def _spread(ratios: list[float]) -> str:
    """The middle with the quarters around it, as ``--json`` shows it of every way."""
    low, middle, high = quantiles(ratios, n=4)
    return f"{middle:.2f} ({low:.2f} to {high:.2f})"


def _child(*words: object) -> dict[str, Any]:
    command = [sys.executable, "-m", "experiments.benchmark.step", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


class Steps:
    """The ways of one case; each call of one is a step, and returns what it moved the weights by."""

    def __init__(self, case: Case) -> None:
        torch.set_num_threads(1)
        torch.manual_seed(0)
        self.case = case
        self.model, self.loss = _model(case.model)
        self.inputs, self.targets = _examples(case)
        self.steps = 0

    def way(self, name: str) -> Callable[[], object]:
        """``plain``, ``private``, ``hooks`` or ``vmap``."""
        made: Callable[[nn.Module], Callable[[], object]] = getattr(self, f"_{name}")
        return made(copy.deepcopy(self.model))

    def _plain(self, model: nn.Module) -> Callable[[], object]:
        optimizer = torch.optim.SGD(model.parameters(), lr=_RATE, momentum=0.9)

        def one() -> None:
            optimizer.zero_grad()
            inputs, targets = self._drawn(flat=True)
            self.loss(model(*inputs.values()), targets).mean().backward()
            optimizer.step()

        return one

    def _private(self, model: nn.Module) -> Callable[[], object]:
        case = self.case
        plan = _plan(model, case)
        plan_hash = plan.hash
        arrays = {name: value.detach().numpy() for name, value in model.named_parameters()}
        counts = np.full(case.vehicles, case.windows)
        inputs, targets = (
            {name: torch.cat([values, torch.zeros_like(values[:1])]) for name, values in part.items()}
            for part in (self.inputs, self.targets)
        )
        data = VehicleData(inputs, targets, np.cumsum(counts) - counts, counts, _CPU)
        gradient = model_on(copy.deepcopy(model), self.loss, _CPU)

        def one() -> object:
            self.steps += 1
            return train(gradient, data, arrays, plan, RoundKey(bytes(32), "EU", plan_hash, self.steps, ""))

        return one

    def _hooks(self, model: nn.Module) -> Callable[[], object]:
        module = GradSampleModule(model.train(), loss_reduction="sum")
        parameters = list(model.parameters())

        def one() -> object:
            inputs, targets = self._drawn(flat=True)
            self.loss(module(*inputs.values()), targets).sum().backward()
            shape = (self.case.vehicles, self.case.windows)
            samples = []
            for parameter in parameters:
                sample: Tensor = parameter.grad_sample  # type: ignore[attr-defined]
                samples.append(sample.unflatten(0, shape).mean(dim=1) if shape[1] > 1 else sample)
                parameter.grad_sample = parameter.grad = None  # type: ignore[attr-defined]
            return _move(parameters, samples)

        return one

    def _vmap(self, model: nn.Module) -> Callable[[], object]:
        parameters = dict(model.named_parameters())
        buffers = dict(model.named_buffers())

        def loss(values: dict[str, Tensor], inputs: Tensors, targets: Tensors) -> Tensor:
            output = torch.func.functional_call(model, (values, buffers), tuple(inputs.values()))
            return self.loss(output, targets).mean()

        each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))

        def one() -> object:
            samples = each({name: one.detach() for name, one in parameters.items()}, *self._drawn(flat=False))
            return _move(list(parameters.values()), [samples[name] for name in parameters])

        return one

    def _drawn(self, *, flat: bool) -> tuple[Tensors, Tensors]:
        """All windows, copied as a draw's are: (V k, ...) or (V, k, ...)."""
        shape = (self.case.vehicles, self.case.windows)
        index = torch.arange(shape[0] * shape[1])
        index = index if flat else index.view(shape)
        inputs, targets = (
            {name: values[index] for name, values in part.items()} for part in (self.inputs, self.targets)
        )
        return inputs, targets


def _move(parameters: list[nn.Parameter], samples: list[Tensor]) -> list[Tensor]:
    """Clip, sum, noise and step, as opacus's optimizer does it; returns what was taken off."""
    moved = []
    norms = torch.stack([sample.flatten(1).norm(dim=1) for sample in samples], dim=1).norm(dim=1)
    factors = (_CLIP / (norms + 1e-6)).clamp(max=1.0)
    with torch.no_grad():
        for parameter, sample in zip(parameters, samples, strict=True):
            total = torch.einsum("v,v...", factors, sample)
            total += torch.normal(0.0, _NOISE * _CLIP, total.shape)
            moved.append(total.mul_(_RATE / len(sample)))
            parameter.sub_(moved[-1])
    return moved


def _model(name: str) -> tuple[nn.Module, Loss]:
    if name == "PilotNet":
        return PilotNet(), lambda output, targets: (output - targets["angle"]).square()
    options = {"width": 76, "heads": 4, "layers": 3} if name == "transformer of 171k" else {}
    model = registry.build(name.split()[0], options, _spec(name), seed=0)
    return model, lambda output, targets: window_loss(output[0], output[1], targets["future"])


def _spec(name: str) -> WindowSpec:
    return WindowSpec(period_seconds=0.1) if name == "transformer of 171k" else WindowSpec()


def _examples(case: Case) -> tuple[Tensors, Tensors]:
    count, random = case.vehicles * case.windows, torch.Generator().manual_seed(0)
    if case.model == "PilotNet":
        pictures = torch.randn(count, 3, 66, 200, generator=random)
        return {"picture": pictures}, {"angle": torch.randn(count, generator=random)}
    spec = _spec(case.model)
    speed = torch.tensor([8.0, 0.0]) * spec.period_seconds
    steps = speed + 0.1 * torch.randn(count, spec.history + spec.future, 2, generator=random)
    track = steps.cumsum(dim=1)
    track = track - track[:, spec.history - 1 : spec.history]
    return {"history": track[:, : spec.history].clone()}, {"future": track[:, spec.history :].clone()}


def _plan(model: nn.Module, case: Case) -> Plan:
    """One step of every vehicle."""
    plan = plan_of(0, rounds=100_000)
    schema = tuple(ArraySchema(name=name, shape=tuple(v.shape)) for name, v in model.named_parameters())
    region = plan.regions["EU"].model_copy(
        update={
            "roster": case.vehicles,
            "sample_rate": 1.0,
            "noise_multiplier": _NOISE,
            "max_grad_norm": _CLIP,
            "windows_per_vehicle": case.windows,
        }
    )
    return plan.model_copy(
        update={"regions": {"EU": region}, "model": plan.model.model_copy(update={"arrays": schema})}
    )


def _times(case: Case, repeats: int) -> dict[str, Any]:
    """Processor seconds of plain steps, and every other way's ratios to the plain step just before."""
    steps = Steps(case)
    ways = {name: steps.way(name) for name in WAYS}
    plain: list[float] = []
    ratios: dict[str, list[float]] = {name: [] for name in WAYS}
    for turn in range(repeats + 2):
        seconds = {name: _seconds(way) for name, way in ways.items()}
        if turn < 2:  # the first ones fill caches
            continue
        plain.append(seconds["plain"])
        for name, took in seconds.items():
            ratios[name].append(took / seconds["plain"])
    return {"plain": plain, "ratios": ratios}


def _seconds(way: Callable[[], object]) -> float:
    started = time.process_time()
    way()
    return time.process_time() - started


def _peak(case: Case, name: str) -> dict[str, int]:
    """Bytes that two steps take over what is there before."""
    way = Steps(case).way(name)
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")  # the high-water mark starts anew
    before = _status("VmRSS")
    way()
    way()
    return {"peak": _status("VmHWM") - before}


def _status(key: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(key))


if __name__ == "__main__":
    what, number, last = sys.argv[1:]
    chosen = CASES[int(number)]
    print(json.dumps(_times(chosen, int(last)) if what == "time" else _peak(chosen, last)))
