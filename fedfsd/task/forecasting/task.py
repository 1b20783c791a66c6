"""Motion forecasting as a task: from the last seconds of a vehicle's own track to its path.

Shapes: W windows, H history points (the present included), F future points, K paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fedfsd.config.load import Frozen, load, within
from fedfsd.drive import source
from fedfsd.drive.table import Table
from fedfsd.errors import DataError
from fedfsd.gate.policy import ModelPin
from fedfsd.language import mark
from fedfsd.task import driving
from fedfsd.task.forecasting import picture, predictor, sensor, window
from fedfsd.task.forecasting.loss import window_loss
from fedfsd.task.forecasting.model import registry
from fedfsd.task.forecasting.window import WindowSpec
from fedfsd.task.path import PathTask, metrics
from fedfsd.task.task import Examples, Metric, Tensors

_PLACES = 3  # windows of a synthetic vehicle

Seconds = Annotated[float, Field(gt=0, le=60)]


class Options(Frozen):
    """How windows are cut."""

    history_seconds: Seconds = 2.0
    future_seconds: Seconds = 3.0
    period_seconds: Annotated[float, Field(ge=0.01, le=60)] = 0.5


class Augmentation(Frozen):
    """The sensors through which public tracks are seen."""

    max_error_m: Annotated[float, Field(ge=0)] = 1.5
    """Their position error goes up to this (one sigma)."""
    max_delay_seconds: Annotated[float, Field(ge=0)] = 0.2
    """Their time stamps are off by up to this."""


class Forecasting(PathTask):
    """history (B, H, 2) m in the agent frame -> paths (B, K, F, 2) m and scores (B, K)."""

    name: ClassVar[str] = "forecasting"
    baseline: ClassVar[str] = mark("constant velocity")
    kind, driven, pictured, batch = Options, "future", "history", 8192
    quantiles = (0.3, 0.5, 0.65, 0.8, 0.9, 0.95)

    def __init__(self, options: Mapping[str, Any]) -> None:
        super().__init__(options)
        self.spec = WindowSpec(**self._options.model_dump())

    @property
    def metrics(self) -> Sequence[Metric]:
        return metrics(self._options.future_seconds)

    def simple(self, examples: Examples) -> np.ndarray:
        return predictor.last_step(examples.inputs["history"], self.spec.future)

    def kinds(self, examples: Examples) -> dict[str, np.ndarray]:
        """See ``task.driving``."""
        history, future = examples.inputs["history"], examples.targets["future"]
        return driving.kinds(history, future, self.spec.period_seconds)

    def tables(self, path: str) -> tuple[Table, ...]:
        return source.tables(path)

    def region_tables(self, path: str, region: str) -> tuple[Table, ...]:
        return source.region_tables(path, region, window.COLUMNS)

    def examples(self, tables: Sequence[Table], *, test: bool) -> Examples:
        vehicles, owner, (history, future), dropped = window.collect(
            tables, self.spec, lambda points: window.agent_frame(points, self.spec.history), test=test
        )
        return Examples(vehicles, owner, {"history": history}, {"future": future}, dropped)

    def model(
        self, name: str, options: Mapping[str, Any], *, seed: int, reviewed: ModelPin | None = None
    ) -> nn.Module:
        return registry.build(name, options, self.spec, seed=seed, reviewed=reviewed)

    def loss(self, output: Any, targets: Tensors) -> Tensor:
        paths, scores = output
        return window_loss(paths, scores, targets["future"])

    def synthetic(self, random: torch.Generator) -> tuple[Tensors, Tensors]:
        scale = torch.tensor([1.0, 2.0, 0.0, 10.0, 1e4, torch.nan])
        present, points = self.spec.history - 1, self.spec.history + self.spec.future
        walk = torch.randn(len(scale), _PLACES, points, 2, generator=random).cumsum(2)
        track = walk + 4 * torch.arange(points)[:, None] * torch.tensor([1.0, 0.0])
        track = (track - track[:, :, present : present + 1]) * scale[:, None, None, None]
        return {"history": track[:, :, : present + 1]}, {"future": track[:, :, present + 1 :]}

    def public_batches(
        self,
        tables: Sequence[Table],
        augmentation: Mapping[str, Any],
        *,
        batch_size: int,
        random: np.random.Generator,
    ) -> Iterator[tuple[Tensors, Tensors]]:
        with within("pretraining.augmentation"):
            seen = load(Augmentation, augmentation).model_dump()
        points = window.cut(tables, self.spec, test=False).points
        if not len(points):
            raise DataError("pretraining.path", got="no usable window", expected="drives of moving vehicles")
        return self._seen(points, seen, batch_size, random)

    def _seen(
        self, points: np.ndarray, seen: dict[str, float], batch_size: int, random: np.random.Generator
    ) -> Iterator[tuple[Tensors, Tensors]]:
        while True:
            drawn = points[random.integers(len(points), size=batch_size)]
            observed = sensor.observe(drawn, random, period_seconds=self.spec.period_seconds, **seen)
            history, future = window.agent_frame(observed, self.spec.history)
            yield {"history": torch.from_numpy(history)}, {"future": torch.from_numpy(future)}

    def picture(
        self, shown: Mapping[str, Mapping[str, np.ndarray]], colours: Mapping[str, str], *, heading: str
    ) -> str:
        return picture.paths(shown, colours, heading=heading)

    def caption(self, *, real: bool) -> str:
        whose = " of the coordinator's table" if real else ""
        return (
            f"Test windows{whose}, from those that are easy for constant velocity (left) to hard ones "
            "(right: 95 in 100 are easier); driving upwards. Above each: how far off the best forecast and "
            f"constant velocity (c.v.) end after {self._options.future_seconds:g} s."
        )
