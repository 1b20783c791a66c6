"""What one call of a layer leaves behind for the gradient of one of its parameters.

Shapes: B rows of a batch, vehicle by vehicle; V vehicles; L positions of a vehicle, whatever they are
(windows, steps of a sequence, points of a picture); O and I features of a layer's output and input; p values
of the parameter.

A use has its layer's input since the forward pass and the loss's gradient in the layer's output since the
backward pass. Positions of a vehicle are summed: the loss of each window was weighted by its share of the
vehicle's mean before the backward pass, so the mean over windows costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

Pair = tuple[int, int]
_ALONE = 1024  # points of a vehicle's pictures from which on a convolution of its own is the fastest


@dataclass(eq=False)
class Use:
    """One call of a layer as one of its parameters sees it; ``gradient`` is filled by the backward pass."""

    def __post_init__(self) -> None:
        self.gradient: Tensor

    def by_vehicle(self, count: int) -> Tensor:
        """The parameter's gradient from each of ``count`` vehicles, (V, p)."""
        raise NotImplementedError


@dataclass(eq=False)
class Sampled(Use):
    """A gradient that is there already: of each row (B, ...), or of each vehicle."""

    samples: Tensor

    def by_vehicle(self, count: int) -> Tensor:
        return _positions(self.samples.flatten(1), count).sum(dim=1)


@dataclass(eq=False)
class Added(Use):
    """A bias; it spans the axes from ``first`` to ``last`` of the output."""

    first: int = -1
    last: int = -1

    def by_vehicle(self, count: int) -> Tensor:
        return self._spanned(self.gradient, count)

    def _spanned(self, values: Tensor, count: int) -> Tensor:
        values = _windows(values, count)
        axes = range(values.dim())
        first, last = (axis + 1 if axis > 0 else values.dim() + axis for axis in (self.first, self.last))
        others = [axis for axis in axes[1:] if not first <= axis <= last]
        return values.sum(others, dtype=_at_least_float32(values)).flatten(1)


@dataclass(eq=False)
class Scaled(Added):
    """The weight of a layer that normalises first."""

    normalised: Callable[[], Tensor] = field(kw_only=True)

    def by_vehicle(self, count: int) -> Tensor:
        return self._spanned(full(self.normalised()) * self.gradient, count)


@dataclass(eq=False)
class Looked(Use):
    """The rows of an embedding; those of ``index`` equal to ``padding`` do not learn."""

    index: Tensor
    rows: int
    padding: int | None

    def by_vehicle(self, count: int) -> Tensor:
        index, gradient = self.index.reshape(count, -1), full(_positions(self.gradient, count))
        if self.padding is not None:
            gradient = gradient.masked_fill((index == self.padding)[:, :, None], 0)
        # A vehicle's rows lie behind each other's, so that one call adds all of them up.
        place = index + self.rows * torch.arange(count, device=index.device)[:, None]
        found = gradient.new_zeros(count * self.rows, gradient.shape[2])
        return found.index_add_(0, place.flatten(), gradient.flatten(0, 1)).view(count, -1)


@dataclass(eq=False)
class Product(Use):
    """A use whose gradient is a sum of outer products over positions, as of a linear layer's weight.

    Norms can be had from the factors alone, and sums over vehicles by one matrix product.
    """

    input: Tensor  # (B, ..., I)

    @property
    def factors_out(self) -> bool:
        """Whether the gradient is such a sum; by the layer's options alone."""
        return True

    def shape(self, count: int) -> tuple[int, int, int]:
        """L, O and I."""
        features = self.input.shape[-1]
        return self.input.numel() // (count * features), self.gradient.shape[-1], features

    def factors(self, count: int) -> tuple[Tensor, Tensor]:
        """(V, L, O) and (V, L, I); the gradient is the sum of g x^T over L."""
        self.gradient = self.gradient.contiguous()  # asked for twice: for the norm and for the sum
        return _positions(self.gradient, count), _positions(self.input, count)

    def by_vehicle(self, count: int) -> Tensor:
        gradient, value = self.factors(count)
        return torch.bmm(gradient.transpose(1, 2), value.to(gradient.dtype)).flatten(1)


@dataclass(eq=False)
class Filtered(Product):
    """The weight of a convolution over (B, channels, ...)."""

    module: nn.Conv1d | nn.Conv2d
    padding: tuple[int, ...]

    @property
    def factors_out(self) -> bool:
        return self.module.groups == 1

    def shape(self, count: int) -> tuple[int, int, int]:
        channels = self.gradient.shape[1]
        return self.gradient.numel() // (count * channels), channels, self.module.weight[0].numel()

    def factors(self, count: int) -> tuple[Tensor, Tensor]:
        module, cut = self.module, _unfolded if on_host(self.input) else strided
        patches = cut(
            _plane(self.input),
            _pair(module.kernel_size, 1),
            _pair(module.dilation, 1),
            _pair(self.padding, 0),
            _pair(module.stride, 1),
        )
        return _positions(self.gradient.flatten(2).transpose(1, 2), count), _positions(patches, count)

    def by_vehicle(self, count: int) -> Tensor:
        image = _windows(self.input.to(self.gradient.dtype), count)
        gradient = _windows(self.gradient, count)
        if self.factors_out and not on_host(image):
            return super().by_vehicle(count)  # one call for all vehicles
        if gradient[0, :, 0].numel() >= _ALONE:
            return torch.stack([self._convolved(*pair, 1) for pair in zip(image, gradient, strict=True)])
        # One convolution in which every vehicle is a group of channels, and its windows are the batch.
        image, gradient = (values.transpose(0, 1).flatten(1, 2) for values in (image, gradient))
        return self._convolved(image, gradient, count).view(count, -1)

    def _convolved(self, image: Tensor, gradient: Tensor, count: int) -> Tensor:
        """The weight's gradient, flat, from a batch whose channels are those of ``count`` vehicles."""
        module = self.module
        channels, *others = module.weight.shape
        return torch.ops.aten.convolution_backward(
            gradient,
            image,
            image.new_empty(count * channels, *others),  # asked for its shape alone
            None,
            module.stride,
            self.padding,
            module.dilation,
            False,
            [0] * len(self.padding),
            count * module.groups,
            (False, True, False),
        )[1].flatten()


def on_host(values: Tensor) -> bool:
    """Whether a call for each vehicle costs little beside what it computes."""
    return values.device.type == "cpu"


def full(values: Tensor) -> Tensor:
    """At least float32: what autocast left in a shorter type, without loss."""
    return values.to(_at_least_float32(values))


def _at_least_float32(values: Tensor) -> torch.dtype:
    return values.dtype if values.dtype.itemsize >= 4 else torch.float32


def _positions(values: Tensor, count: int) -> Tensor:
    """(B, ..., F) -> (V, L, F)."""
    return values.reshape(count, values.shape[:-1].numel() // max(count, 1), values.shape[-1])


def _windows(values: Tensor, count: int) -> Tensor:
    """(B, ...) -> (V, B / V, ...)."""
    return values.unflatten(0, (count, -1))


def _unfolded(image: Tensor, kernel: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Tensor:
    """The points that a convolution multiplies at each position, (B, L, I)."""
    return functional.unfold(image, kernel, dilation, padding, stride).transpose(1, 2)


def strided(image: Tensor, kernel: Pair, dilation: Pair, padding: Pair, stride: Pair) -> Tensor:
    """The same by one copy; ``unfold`` of an accelerator is a call for each picture."""
    image = functional.pad(image, (padding[1], padding[1], padding[0], padding[0]))
    batch, channels, *sides = image.shape
    steps = image.stride()
    places = [
        (side - reach * (size - 1) - 1) // step + 1
        for side, size, reach, step in zip(sides, kernel, dilation, stride, strict=True)
    ]
    moves = [steps[2 + axis] * stride[axis] for axis in (0, 1)]
    within = [steps[2 + axis] * dilation[axis] for axis in (0, 1)]
    view = image.as_strided((batch, *places, channels, *kernel), (steps[0], *moves, steps[1], *within))
    return view.reshape(batch, places[0] * places[1], channels * kernel[0] * kernel[1])


def _plane(image: Tensor) -> Tensor:
    """A line is a plane of one row."""
    return image.unsqueeze(2) if image.dim() == 3 else image


def _pair(sizes: tuple[int, ...], first: int) -> Pair:
    return (first, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])
