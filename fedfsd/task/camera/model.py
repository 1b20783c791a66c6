"""Models of the camera task: a frame and a speed in, K paths out.

All end in the same head: of each path and point a curvature and an acceleration, from which the point
follows; so the network says what speed alone does not. Group norms: no car's frames touch another's. What
``model.trainable`` may name beside "head", "norms" and "all": "last N blocks" (and the head), "adapters".

Shapes: B frames, K paths, F points.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Seen:
    """What a model is given: what the task's options say of its inputs."""

    rows: int
    columns: int
    regions: int
    """Of the region's input; 0: there is none."""


class Options(Frozen):
    """Options of every model here."""

    paths: Annotated[int, Field(ge=1, le=20)] = 1
    """K."""
    width: Annotated[int, Field(ge=1, le=16)] = 1
    """Times as many channels."""
    adapters: Annotated[int, Field(ge=0, le=64)] = 0
    """Channels of a small correction behind each convolution's block, nothing at first; 0: without."""


class Head(nn.Module):
    """What comes behind the trunk: features, speed and region -> paths (B, K, F, 2) m and scores (B, K)."""

    horizons: Tensor
    centre: Tensor
    whitening: Tensor

    def __init__(self, features: int, paths: int, regions: int) -> None:
        super().__init__()
        self.register_buffer("horizons", torch.tensor(HORIZONS, dtype=torch.float32), persistent=False)
        self.paths = paths
        self.register_buffer("centre", torch.zeros(features + 3))
        self.register_buffer("whitening", torch.eye(features + 3))
        self.linear = nn.Linear(features + 3 + regions, paths * (2 * len(HORIZONS) + 1))
        with torch.no_grad():  # the first paths go straight on, in every region
            self.linear.weight.mul_(0.1)
            self.linear.weight[:, features + 3 :] = 0
            self.linear.bias.zero_()

    def forward(self, features: Tensor, speed: Tensor, *region: Tensor) -> tuple[Tensor, Tensor]:
        points = len(self.horizons)
        seen = (self._seen(features, speed) - self.centre) @ self.whitening
        out = self.linear(torch.cat([seen, *region], dim=1)).unflatten(1, (self.paths, 2 * points + 1))
        bend, pull = _BEND * out[..., :points], _PULL * out[..., points : 2 * points]
        way = speed[:, None] * self.horizons  # (B, 1, F) m
        x = way + pull * self.horizons.square() / 2
        y = bend * way.clamp(min=_SHORTEST).square() / 2
        return torch.stack([x, y], dim=-1), out[..., -1]

    def _seen(self, features: Tensor, speed: Tensor) -> Tensor:
        v = speed / 15
        return torch.cat([features, v, v.square(), 1 / (v.abs() + 0.3)], dim=1)

    @torch.no_grad()
    def whiten(self, features: Tensor, speed: Tensor) -> None:
        """Let these public inputs be uncorrelated and of one size, so that a step goes as far along each.

        The function stays as it is: centre and whitening are frozen, the weights make up for them.
        """
        seen = self._seen(features, speed).double()
        centre = seen.mean(dim=0)
        spread, axes = torch.linalg.eigh(torch.cov(seen.T))
        spread = spread.clamp(min=1e-4 * float(spread.max())).sqrt()
        inverse, back = (axes / spread) @ axes.T, (axes * spread) @ axes.T
        weight = self.linear.weight[:, : len(centre)].double()
        old = weight @ self.whitening.double().T  # of the inputs as they come
        self.linear.bias += (old @ (centre - self.centre)).float()
        self.linear.weight[:, : len(centre)] = (old @ back).float()
        self.centre.copy_(centre)
        self.whitening.copy_(inverse)


class Driver(nn.Module):
    """image (B, 3, H, W) uint8, speed (B, 1) m/s, region (B, R) if asked for -> paths and scores (``Head``).

    ``body`` is a sequence of blocks that turn a standardised picture into features.
    """

    def __init__(self, blocks: Sequence[nn.Module], options: Options, seen: Seen) -> None:
        super().__init__()
        self.body = nn.Sequential(*blocks)
        with torch.no_grad():
            features = self.body(torch.zeros(1, 3, seen.rows, seen.columns)).shape[1]
        self.head = Head(features, options.paths, seen.regions)
        learning = [n for n, block in enumerate(self.body) if any(True for _ in block.parameters())]
        self.parts = {
            f"last {count} blocks": ["head", *(f"body.{n}" for n in learning[-count:])]
            for count in range(1, len(learning))
        }
        if options.adapters:
            self.parts["adapters"] = ["*.adapter"]

    def trunk(self, image: Tensor, speed: Tensor, *region: Tensor) -> tuple[Tensor, ...]:
        """What the head is given."""
        picture = image.float()
        centred = picture - picture.mean(dim=(1, 2, 3), keepdim=True)
        scale = centred.square().mean(dim=(1, 2, 3), keepdim=True).add(1.0).sqrt()
        return self.body(centred / scale), speed, *region

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.head(*self.trunk(*inputs))
        return found


class Adapter(nn.Module):
    """A correction through few channels (Houlsby et al. 2019, arXiv 1902.00751), nothing at first."""

    def __init__(self, channels: int, through: int) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(channels, through, 1), nn.Conv2d(through, channels, 1)
        for parameter in self.up.parameters():
            nn.init.zeros_(parameter)

    def forward(self, value: Tensor) -> Tensor:
        found: Tensor = value + self.up(functional.relu(self.down(value)))
        return found


def _block(inputs: int, outputs: int, size: int, stride: int, adapters: int = 0) -> nn.Sequential:
    layers: dict[str, nn.Module] = {
        "conv": nn.Conv2d(inputs, outputs, size, stride, padding=size // 2),
        "norm": nn.GroupNorm(4, outputs),
        "relu": nn.ReLU(),
    }
    if adapters:
        layers["adapter"] = Adapter(outputs, adapters)
    return nn.Sequential(OrderedDict(layers))


def small(options: Options, seen: Seen) -> nn.Module:
    """``conv``: five convolutions, about 60,000 parameters."""
    channels = [3, *(options.width * each for each in (16, 24, 32, 48))]
    blocks = [_block(a, b, 3 if n else 5, 2, options.adapters) for n, (a, b) in enumerate(pairwise(channels))]
    blocks.append(_block(channels[-1], 8 * options.width, 1, 1))
    points = _halved(seen.rows, 4) * _halved(seen.columns, 4)
    blocks.append(nn.Sequential(nn.Flatten(), nn.Linear(8 * options.width * points, 96), nn.ReLU()))
    return Driver(blocks, options, seen)


def pilotnet(options: Options, seen: Seen) -> nn.Module:
    """``pilotnet``: the convolutions of Bojarski et al. 2016 (arXiv 1604.07316), with group norms."""
    channels = [3, *(options.width * each for each in (24, 36, 48, 64, 64))]
    sizes = (5, 5, 5, 3, 3)
    blocks = [
        _block(a, b, size, 2, options.adapters)
        for (a, b), size in zip(pairwise(channels), sizes, strict=True)
    ]
    flat = channels[-1] * _halved(seen.rows, 5) * _halved(seen.columns, 5)
    blocks.append(nn.Sequential(nn.Flatten(), nn.Linear(flat, 100), nn.ReLU()))
    blocks.append(nn.Sequential(nn.Linear(100, 50), nn.ReLU()))
    return Driver(blocks, options, seen)


def _halved(size: int, times: int) -> int:
    """What ``times`` convolutions of stride 2 leave of a side."""
    return -(-size // 2**times)


class Residual(nn.Module):
    """Two convolutions and the way around them."""

    def __init__(self, inputs: int, outputs: int, stride: int, adapters: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_block(inputs, outputs, 3, stride), _block(outputs, outputs, 3, 1)[:2])
        same = stride == 1 and inputs == outputs
        self.around = nn.Identity() if same else _block(inputs, outputs, 1, stride)[:2]
        self.adapter = Adapter(outputs, adapters) if adapters else nn.Identity()

    def forward(self, value: Tensor) -> Tensor:
        found: Tensor = self.adapter(functional.relu(self.body(value) + self.around(value)))
        return found


def resnet18(options: Options, seen: Seen) -> nn.Module:
    """``resnet18``: He et al. 2015 (arXiv 1512.03385) with group norms in place of batch norms."""
    channels = [options.width * each for each in (64, 64, 128, 256, 512)]
    blocks: list[nn.Module] = [nn.Sequential(*_block(3, channels[0], 7, 2), nn.MaxPool2d(3, 2, 1))]
    for n, (a, b) in enumerate(pairwise(channels)):
        blocks += [Residual(a, b, 2 if n else 1, options.adapters), Residual(b, b, 1, options.adapters)]
    blocks.append(nn.Sequential(nn.AdaptiveAvgPool2d((1, 5)), nn.Flatten()))
    return Driver(blocks, options, seen)


OWN: Mapping[str, Callable[[Options, Seen], nn.Module]] = {
    "conv": small,
    "pilotnet": pilotnet,
    "resnet18": resnet18,
}
# What another package registers as fedfsd.camera_models: options class, builder of the module from them.
Entry = tuple[type[BaseModel], Callable[[Any, Seen], nn.Module]]


def build(
    name: str, options: Mapping[str, Any], seen: Seen, *, seed: int, reviewed: ModelPin | None = None
) -> nn.Module:
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
        return builder(chosen, seen)
