"""The camera task: from the front camera of a fleet car, and its speed, to the path that it drives next.

The protected vehicle is the fleet car that recorded, with all its drives and frames under one key. Others in
the picture are covered only as part of that car's frames: a person whom many cars filmed is not protected as
a person.

Shapes: W frames, B of a batch, K paths, F points (0.5 s apart, up to 3 s).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from fedfsd.config.experiment import RegionName
from fedfsd.config.load import Frozen, load, within
from fedfsd.drive.check import Finding
from fedfsd.drive.table import Table
from fedfsd.errors import DataError
from fedfsd.gate.policy import ModelPin
from fedfsd.language import mark
from fedfsd.task.camera import check, drives, model, picture
from fedfsd.task.camera.drives import HORIZONS
from fedfsd.task.camera.model import Seen
from fedfsd.task.camera.render import HEIGHT, WIDTH
from fedfsd.task.path import PathTask, best_of, metrics
from fedfsd.task.task import Examples, Metric, Scores, Tensors

_PLACES = 3  # frames of a synthetic car
_SECOND = 2  # points a second
_CURVE = 0.1  # m to the side a metre ahead, after 3 s
_DARK = 70.0  # of 255, on average: by night


class Options(Frozen):
    """What the model is given."""

    shrink: Literal[1, 2, 4] = 1
    """Frames of this many times fewer rows and columns."""
    regions: list[RegionName] = Field(default_factory=list)
    """The names of regions that the model is told: public, and nothing of the data. Without any it is told
    none; a region that is not among them, like the public frames, is none of them."""


class Augmentation(Frozen):
    """How public frames are varied."""

    brightness: Annotated[float, Field(ge=0, le=1)] = 0.3
    """Frames are made up to this share darker or brighter."""
    mirror: bool = True
    """Half of the frames are mirrored, with their paths."""


class Camera(PathTask):
    """image (B, 3, H, W) uint8, speed (B, 1) m/s -> paths (B, K, F, 2) m in the car's axes, scores (B, K)."""

    name: ClassVar[str] = "camera"
    baseline: ClassVar[str] = mark("straight on")
    kind, driven, pictured, batch = Options, "path", "image", 256
    quantiles = (0.1, 0.5, 0.8, 0.95)

    @property
    def metrics(self) -> Sequence[Metric]:
        found = {one.key: one for one in metrics(HORIZONS[-1])}
        return (
            found["fde_m"],
            *(Metric(f"fde_{n}s_m", f"FDE at {n} s", "m", f"the same after {n} s") for n in (1, 2)),
            found["ade_m"],
            *(Metric(f"ade_{n}s_m", f"ADE to {n} s", "m", f"the same in the first {n} s") for n in (1, 2)),
            Metric("lateral_m", "lateral", "m", "how far to the side of the truth the path ends"),
            found["min_fde_k_m"],
            found["miss_rate"],
            Metric(
                "yaw_rate_fde_m",
                "by yaw rate",
                "m",
                "the FDE of driving on at speed and yaw rate, which a gyroscope gives and no model here sees",
            ),
        )

    def tables(self, path: str) -> tuple[Table, ...]:
        return drives.tables(path)

    def region_tables(self, path: str, region: str) -> tuple[Table, ...]:
        return drives.region_tables(path, region)

    def check(self, tables: Sequence[Table]) -> list[Finding]:
        """What the drives get wrong."""
        return check.check(tables)

    def examples(self, tables: Sequence[Table], *, test: bool) -> Examples:
        chosen = self._options
        return drives.examples(tables, test=test, shrink=chosen.shrink, regions=chosen.regions)

    @property
    def seen(self) -> Seen:
        """What a model is given."""
        shrink, regions = self._options.shrink, self._options.regions
        return Seen(HEIGHT // shrink, WIDTH // shrink, len(regions))

    def model(
        self, name: str, options: Mapping[str, Any], *, seed: int, reviewed: ModelPin | None = None
    ) -> nn.Module:
        return model.build(name, options, self.seen, seed=seed, reviewed=reviewed)

    def loss(self, output: Any, targets: Tensors) -> Tensor:
        """The best path's error in metres a second of horizon, and how unlikely that path was thought."""
        paths, scores = output
        error = functional.smooth_l1_loss(
            paths, targets["path"].unsqueeze(1).expand_as(paths), reduction="none", beta=0.5
        ).sum(dim=-1)
        horizons = torch.tensor(HORIZONS, dtype=paths.dtype, device=paths.device)
        by_path = (error / horizons).mean(dim=-1)
        return best_of(by_path, scores)

    def synthetic(self, random: torch.Generator) -> tuple[Tensors, Tensors]:
        speeds = torch.tensor([8.0, 20.0, 0.0, 60.0, 1e4, torch.nan])
        cars = len(speeds)
        seen = self.seen
        size = (cars, _PLACES, 3, seen.rows, seen.columns)
        image = torch.randint(0, 256, size, generator=random, dtype=torch.uint8)
        image[2], image[3] = 0, 255
        speed = speeds[:, None, None].expand(cars, _PLACES, 1) + torch.rand(
            cars, _PLACES, 1, generator=random
        )
        bend = 0.01 * torch.randn(cars, _PLACES, 1, generator=random)
        way = speed * torch.tensor(HORIZONS, dtype=torch.float32)
        path = torch.stack([way, bend * way.square()], dim=-1)
        inputs = {"image": image, "speed": speed}
        if seen.regions:
            inputs["region"] = torch.eye(seen.regions)[torch.arange(cars) % seen.regions][:, None].repeat(
                1, _PLACES, 1
            )
        return inputs, {"path": path, "yaw_rate": 2 * bend * speed, "speed": speed}

    def public_batches(
        self,
        tables: Sequence[Table],
        augmentation: Mapping[str, Any],
        *,
        batch_size: int,
        random: np.random.Generator,
    ) -> Iterator[tuple[Tensors, Tensors]]:
        with within("pretraining.augmentation"):
            seen = load(Augmentation, augmentation)
        found = self.examples(tables, test=False)
        if not len(found):
            raise DataError(
                "pretraining.path", got="no usable frame", expected="frames with 3 s of path after them"
            )
        return self._seen(found, seen, batch_size, random)

    def _seen(
        self, found: Examples, seen: Augmentation, batch_size: int, random: np.random.Generator
    ) -> Iterator[tuple[Tensors, Tensors]]:
        while True:
            rows = random.integers(len(found), size=batch_size)
            image = torch.from_numpy(found.inputs["image"][rows])
            speed = torch.from_numpy(found.inputs["speed"][rows])
            path = torch.from_numpy(found.targets["path"][rows])
            if seen.mirror:
                turned = torch.from_numpy(random.random(batch_size) < 0.5)
                image = torch.where(turned[:, None, None, None], image.flip(-1), image)
                side = torch.where(turned, -1.0, 1.0).float()
                path = path * torch.stack([torch.ones_like(side), side], dim=-1)[:, None]
            gain = torch.from_numpy(1 + seen.brightness * random.uniform(-1, 1, batch_size)).float()
            image = (image * gain[:, None, None, None]).clamp(0, 255).to(torch.uint8)
            inputs = {"image": image, "speed": speed}
            if "region" in found.inputs:
                inputs["region"] = torch.from_numpy(found.inputs["region"][rows])
            yield inputs, {"path": path}

    def simple(self, examples: Examples) -> np.ndarray:
        return straight(examples)

    def measured(self, paths: np.ndarray, scores: np.ndarray, examples: Examples) -> Scores:
        truth = examples.targets["path"]
        row, likeliest = np.arange(len(paths)), scores.argmax(axis=1)
        error = paths[row, likeliest] - truth
        distance = np.linalg.norm(error, axis=-1)  # (W, F)
        found = super().measured(paths, scores, examples).values
        for second in (1, 2):
            points = second * _SECOND
            found[f"fde_{second}s_m"] = distance[:, points - 1]
            found[f"ade_{second}s_m"] = distance[:, :points].mean(axis=1)
        found["lateral_m"] = np.abs(error[:, -1, 1])
        found["yaw_rate_fde_m"] = np.linalg.norm(constant_yaw_rate(examples) - truth, axis=-1)[:, -1]
        return Scores(found, examples.owner)

    def kinds(self, examples: Examples) -> dict[str, np.ndarray]:
        """Straight or curve by the path driven, day or night by the frame's mean brightness."""
        end = examples.targets["path"][:, -1]
        curve = np.abs(end[:, 1]) > _CURVE * np.maximum(end[:, 0], 1.0)
        night = np.array([frame.mean() < _DARK for frame in examples.inputs["image"]], bool)
        return {"straight": ~curve, "curve": curve, "day": ~night, "night": night}

    def picture(
        self, shown: Mapping[str, Mapping[str, np.ndarray]], colours: Mapping[str, str], *, heading: str
    ) -> str:
        return picture.frames(shown, colours, heading=heading)

    def caption(self, *, real: bool) -> str:
        whose = " of the coordinator's table" if real else ""
        return (
            f"Test frames{whose}, from those that are easy for driving straight on (left) to hard ones "
            "(right: 5 in 100 are harder). Below each from above, driving upwards: the path driven (grey), "
            "the forecast (in the region's colour), straight on (dashed), and how far off those two end."
        )


def straight(examples: Examples) -> np.ndarray:
    """Straight on at the frame's speed, (W, F, 2)."""
    x = examples.targets["speed"] * HORIZONS.astype(np.float32)
    return np.stack([x, np.zeros_like(x)], axis=-1)


def constant_yaw_rate(examples: Examples) -> np.ndarray:
    """On at the frame's speed and yaw rate, (W, F, 2): what a car's own sensors know without a camera."""
    speed, rate = examples.targets["speed"], examples.targets["yaw_rate"]
    turn = rate * HORIZONS.astype(np.float32)
    way = speed * HORIZONS.astype(np.float32)
    return np.stack(
        [way * np.sinc(turn / np.pi), way * np.sinc(turn / 2 / np.pi) * np.sin(turn / 2)], axis=-1
    )
