"""Models of the camera task: a frame and a speed in, K paths out.

All end in the same head: of each path and point a curvature and an acceleration, from which the point
follows; so the network says what speed alone does not. Group norms: no car's frames touch another's.

Shapes: B frames, K paths, F points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field
from torch import Tensor, nn
from torch.nn import functional

from fedfsd.config.load import Frozen, load, within
from fedfsd.gate.policy import OWN_MODELS, ModelPin
from fedfsd.task.camera.drives import HORIZONS
from fedfsd.task.registry import registered

_SHORTEST = 2.0  # m: below this distance a curvature says nothing
_BEND, _PULL = 0.02, 1.5  # 1/m and m/s^2 of an output of one


class Options(Frozen):
    """Options of every model here."""

    paths: Annotated[int, Field(ge=1, le=20)] = 1
    """K."""
    width: Annotated[int, Field(ge=1, le=16)] = 1
    """Times as many channels."""


class Driver(nn.Module):
    """image (B, 3, H, W) uint8, speed (B, 1) m/s -> paths (B, K, F, 2) m and scores (B, K).

    ``body`` turns a standardised picture into features, ``head`` features and speed into paths.
    """

    horizons: Tensor

    def __init__(self, body: nn.Module, features: int, options: Options) -> None:
        super().__init__()
        self.register_buffer("horizons", torch.tensor(HORIZONS, dtype=torch.float32), persistent=False)
        self.paths = options.paths
        self.body = body
        self.head = nn.Linear(features + 3, options.paths * (2 * len(HORIZONS) + 1))
        with torch.no_grad():  # the first paths go straight on
            self.head.weight.mul_(0.1)
            self.head.bias.zero_()

    def features(self, image: Tensor, speed: Tensor) -> Tensor:
        """What the head sees, (B, features + 3)."""
        picture = image.float()
        centred = picture - picture.mean(dim=(1, 2, 3), keepdim=True)
        scale = centred.square().mean(dim=(1, 2, 3), keepdim=True).add(1.0).sqrt()
        v = speed / 15
        return torch.cat([self.body(centred / scale), v, v.square(), 1 / (v.abs() + 0.3)], dim=1)

    def forward(self, image: Tensor, speed: Tensor) -> tuple[Tensor, Tensor]:
        points = len(self.horizons)
        out = self.head(self.features(image, speed)).unflatten(1, (self.paths, 2 * points + 1))
        bend, pull = _BEND * out[..., :points], _PULL * out[..., points : 2 * points]
        way = speed[:, None] * self.horizons  # (B, 1, F) m
        x = way + pull * self.horizons.square() / 2
        y = bend * way.clamp(min=_SHORTEST).square() / 2
        return torch.stack([x, y], dim=-1), out[..., -1]


def _block(inputs: int, outputs: int, size: int, stride: int) -> list[nn.Module]:
    return [
        nn.Conv2d(inputs, outputs, size, stride, padding=size // 2),
        nn.GroupNorm(4, outputs),
        nn.ReLU(),
    ]


def small(options: Options) -> nn.Module:
    """``conv``: five convolutions, about 60,000 parameters."""
    channels = [3, *(options.width * each for each in (16, 24, 32, 48))]
    layers = [
        layer for n, (a, b) in enumerate(pairwise(channels)) for layer in _block(a, b, 3 if n else 5, 2)
    ]
    last = 8 * options.width
    body = nn.Sequential(
        *layers, *_block(channels[-1], last, 1, 1), nn.Flatten(), nn.Linear(last * 40, 96), nn.ReLU()
    )
    return Driver(body, 96, options)


def pilotnet(options: Options) -> nn.Module:
    """``pilotnet``: the convolutions of Bojarski et al. 2016 (arXiv 1604.07316), with group norms."""
    channels = [3, *(options.width * each for each in (24, 36, 48, 64, 64))]
    sizes = ((5, 2), (5, 2), (5, 2), (3, 2), (3, 2))
    layers = [
        layer
        for (a, b), (size, stride) in zip(pairwise(channels), sizes, strict=True)
        for layer in _block(a, b, size, stride)
    ]
    flat = channels[-1] * 2 * 5
    body = nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(flat, 100), nn.ReLU(), nn.Linear(100, 50), nn.ReLU()
    )
    return Driver(body, 50, options)


class Residual(nn.Module):
    """Two convolutions and the way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        first, second = _block(inputs, outputs, 3, stride), _block(outputs, outputs, 3, 1)[:2]
        self.body = nn.Sequential(*first, *second)
        same = stride == 1 and inputs == outputs
        self.around = nn.Identity() if same else nn.Sequential(*_block(inputs, outputs, 1, stride)[:2])

    def forward(self, value: Tensor) -> Tensor:
        return functional.relu(self.body(value) + self.around(value))


def resnet18(options: Options) -> nn.Module:
    """``resnet18``: He et al. 2015 (arXiv 1512.03385) with group norms in place of batch norms."""
    channels = [options.width * each for each in (64, 64, 128, 256, 512)]
    layers = [*_block(3, channels[0], 7, 2), nn.MaxPool2d(3, 2, 1)]
    for n, (a, b) in enumerate(pairwise(channels)):
        layers += [Residual(a, b, 2 if n else 1), Residual(b, b, 1)]
    body = nn.Sequential(*layers, nn.AdaptiveAvgPool2d((1, 5)), nn.Flatten())
    return Driver(body, channels[-1] * 5, options)


OWN: Mapping[str, Callable[[Options], nn.Module]] = {
    "conv": small,
    "pilotnet": pilotnet,
    "resnet18": resnet18,
}
# What another package registers as fedfsd.camera_models: options class, builder of the module from them.
Entry = tuple[type[BaseModel], Callable[[Any], nn.Module]]


def build(name: str, options: Mapping[str, Any], *, seed: int, reviewed: ModelPin | None = None) -> nn.Module:
    """The model, initialised from ``seed`` alone; errors as of ``fedfsd.task.task.Task.model``."""
    if name in OWN:
        entry: Entry = (Options, OWN[name])
    else:
        entry = registered("fedfsd.camera_models", name, OWN_MODELS["camera"], "model.name", reviewed)
    kind, builder = entry
    with within("model.options"):
        chosen = load(kind, options)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return builder(chosen)
