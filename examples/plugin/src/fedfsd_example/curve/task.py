"""The task ``curve``: image (B, 16, 16) -> curvature of the line in it.

An entry of ``fedfsd.tasks`` is a class that fulfils the protocol ``fedfsd.task.task.Task``. Nothing outside
this folder knows what an image or a curvature is.

Shapes: W examples, B of them in a batch, V vehicles, k examples of each, P = 16 rows and columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fedfsd.config.load import Frozen, load, within
from fedfsd.drive import table
from fedfsd.drive.table import Table
from fedfsd.errors import ConfigError, DataError, ModelError
from fedfsd.gate.policy import ModelPin
from fedfsd.task.task import Examples, Metric, Scores, Tensors

from . import picture
from .drawing import PIXELS, SCHEMA
from .model import MODELS

_SHOWN = 4  # images a region in the picture


class Options(Frozen):
    """What ``task.options`` may hold; it is part of the plan."""

    scale_per_km: Annotated[float, Field(gt=0, le=100)] = 5.0
    """A usual curvature, by which the loss divides."""


class Augmentation(Frozen):
    """What ``pretraining.augmentation`` may hold."""

    mirror: bool = True
    """Half of the public images are mirrored, with the curvature's sign."""


class Curve:
    """How much a road curves: positive to the right, in 1/km."""

    name: ClassVar[str] = "curve"
    metrics: ClassVar[Sequence[Metric]] = (
        Metric("error_per_km", "curvature error", "1/km", "mean distance from the line's curvature"),
        Metric("wrong_side", "wrong side", "%", "images whose line curves to the other side"),
    )
    baseline: ClassVar[str] = "straight road"

    def __init__(self, options: Mapping[str, Any]) -> None:
        with within("task.options"):
            self._options = load(Options, options)

    @property
    def options(self) -> dict[str, Any]:
        return self._options.model_dump()

    def tables(self, path: str) -> tuple[Table, ...]:
        return table.read(path, schema=SCHEMA)

    def examples(self, tables: Sequence[Table], *, test: bool) -> Examples:
        vehicles: list[str] = []
        images: list[np.ndarray] = [np.zeros((0, PIXELS, PIXELS), np.float32)]
        curvatures: list[np.ndarray] = [np.zeros(0, np.float32)]
        owner: list[np.ndarray] = [np.zeros(0, np.int64)]
        keys = np.concatenate([one.text("vehicle")[one.test == test] for one in tables])
        rows = np.concatenate([one.text("image")[one.test == test] for one in tables])
        curved = np.concatenate([one.number("curvature")[one.test == test] for one in tables])
        for number, vehicle in enumerate(sorted(set(keys))):  # vehicles in key order
            mine = keys == vehicle
            vehicles.append(vehicle)
            pixels = np.frombuffer(b"".join(rows[mine]), np.uint8).reshape(-1, PIXELS, PIXELS)
            images.append(pixels.astype(np.float32) / 255)
            curvatures.append(curved[mine].astype(np.float32))
            owner.append(np.full(len(pixels), number))
        inputs, targets = {"image": np.concatenate(images)}, {"curvature": np.concatenate(curvatures)}
        return Examples(tuple(vehicles), np.concatenate(owner), inputs, targets)

    def model(
        self, name: str, options: Mapping[str, Any], *, seed: int, reviewed: ModelPin | None = None
    ) -> nn.Module:
        del reviewed  # these models are of this package: the pin of the task covers them
        if name not in MODELS:
            raise ConfigError("model.name", got=repr(name), expected=" | ".join(MODELS), hint="choose one")
        kind, builder = MODELS[name]
        with within("model.options"):
            chosen = load(kind, options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return builder(chosen)

    def demand_output(self, output: Any, targets: Tensors) -> None:
        if output.shape != targets["curvature"].shape:
            raise ModelError("model", got=f"an output {tuple(output.shape)}", expected="curvature (B,)")

    def loss(self, output: Any, targets: Tensors) -> Tensor:
        error = output - targets["curvature"] / self._options.scale_per_km
        return nn.functional.smooth_l1_loss(error, torch.zeros_like(error), reduction="none")

    def synthetic(self, random: torch.Generator) -> tuple[Tensors, Tensors]:
        scale = torch.tensor([1.0, 0.8, 0.0, 1e4, torch.nan])
        images = torch.rand(len(scale), 3, PIXELS, PIXELS, generator=random) * scale[:, None, None, None]
        curvature = torch.randn(len(scale), 3, generator=random) * scale[:, None]
        return {"image": images}, {"curvature": curvature}

    def public_batches(
        self,
        tables: Sequence[Table],
        augmentation: Mapping[str, Any],
        *,
        batch_size: int,
        random: np.random.Generator,
    ) -> Iterator[tuple[Tensors, Tensors]]:
        with within("pretraining.augmentation"):
            mirror = load(Augmentation, augmentation).mirror
        found = self.examples(tables, test=False)
        if not len(found):
            raise DataError("pretraining.path", got="no image", expected="images of training vehicles")
        return self._batches(found, mirror, batch_size, random)

    def _batches(
        self, found: Examples, mirror: bool, batch_size: int, random: np.random.Generator
    ) -> Iterator[tuple[Tensors, Tensors]]:
        while True:
            drawn = random.integers(len(found), size=batch_size)
            image, curvature = found.inputs["image"][drawn], found.targets["curvature"][drawn]
            side = np.where(mirror & (random.random(batch_size) < 0.5), -1, 1)
            image = np.where(side[:, None, None] < 0, image[:, :, ::-1], image)
            yield (
                {"image": torch.from_numpy(image)},
                {"curvature": torch.from_numpy((side * curvature).astype(np.float32))},
            )

    def scores(self, model: nn.Module, examples: Examples) -> Scores:
        return _scores(self._told(model, examples.inputs["image"]), examples)

    def baseline_scores(self, examples: Examples) -> Scores:
        return _scores(np.zeros(len(examples)), examples)

    def showcase(self, model: nn.Module, examples: Examples) -> dict[str, np.ndarray]:
        if not len(examples):
            return {}
        curvature = examples.targets["curvature"]
        # From the sharpest bend to the left to the sharpest to the right.
        rows = np.argsort(curvature)[np.linspace(0, len(curvature) - 1, _SHOWN).astype(int)]
        image = examples.inputs["image"][rows]
        return {"image": image, "curvature": curvature[rows], "told": self._told(model, image)}

    def picture(
        self, shown: Mapping[str, Mapping[str, np.ndarray]], colours: Mapping[str, str], *, heading: str
    ) -> str:
        return picture.lines(shown, colours, heading=heading)

    def caption(self, *, real: bool) -> str:
        whose = " of the coordinator's table" if real else ""
        return (
            f"Test images{whose}, from the sharpest bend to the left to the sharpest to the right: the "
            "brightest pixel of each row, and the curvature that the model tells beside the true one."
        )

    def _told(self, model: nn.Module, image: np.ndarray) -> np.ndarray:
        """The model's curvatures in 1/km, (W,)."""
        with torch.no_grad():
            told: np.ndarray = model(torch.from_numpy(image)).numpy()
        return told * self._options.scale_per_km


def _scores(told: np.ndarray, examples: Examples) -> Scores:
    curvature = examples.targets["curvature"]
    values = {"error_per_km": np.abs(told - curvature), "wrong_side": told * curvature <= 0}
    return Scores({key: found.astype(np.float64) for key, found in values.items()}, examples.owner)
