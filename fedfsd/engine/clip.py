"""Clipping: norms of the vehicles' gradients, and the sum of what is left of them.

Shapes: V vehicles in a micro-batch, P parameters, p of one tensor; L positions, O and I features (``use``).

One vehicle zeroed moves the sum by at most C, rounding included. Two routes lead there. Shapes alone choose
between them: a choice by time would make one plan give different bits in two places, and one by values would
tell of the data.

*Whole*: each vehicle's gradient is formed in float32; its norm, its product with the factor and the sum over
vehicles are taken in float64. What is summed is what was measured.

*Product*: where a gradient is a sum of L outer products g x^T and p is large, nobody forms it. Its squared
norm is the sum over pairs of positions of (g g')(x x'), and the sum over vehicles is a matrix product in
float32, by groups of vehicles that are added up in float64. Both round, and where a vehicle's positions
cancel each other (weights chosen by the coordinator can do that) the errors may exceed the gradient. They are
bounded by B, the sum of |g| |x| over the vehicle's positions. With u = 2^-24, or 2^-53 on an accelerator with
float64, where one group has all vehicles and the slack is C / 2^20:

- the Gram matrices move the squared norm by at most (O + I + 4) u B^2, which is added to it;
- the sum of a group of G vehicles is off by at most e = (G L + 4) u times the sum of their factors times B,
  and zeroing one of them changes no other group of that parameter. So a vehicle's factor also keeps 2 e G B,
  of all parameters together, below C / 256, and its norm below C (1 - 1/256). Parameters of another L have
  other groups, in which others are the worst: where there are D kinds of groups, C / (256 sqrt(D)) for each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np
import torch
from torch import Tensor

from fedfsd.engine.device import wide
from fedfsd.engine.use import Product, Sampled, Use

_ROUNDING, _ROUNDING_WIDE = 2.0**-24, 2.0**-53
_SLACK, _SLACK_WIDE = 1 / 256, 2.0**-20  # of C, for rounding in groups
_GROUP_POSITIONS, _GROUP_VEHICLES = 288, 64
_SMALL, _SMALL_ACCELERATOR = 4096, 1 << 21  # parameters; up to here gradients are taken together
_BLOCK, _BLOCK_ACCELERATOR = 1 << 16, 1 << 26  # values in float64 at a time: a core's cache, or a long call
_AT_ONCE = 1 << 23  # values of sums in float32
_BLOCK_ROWS = 32
_LARGE = 1e16  # |x|^2 beyond which float32 products of Gram matrices may over- or underflow


@dataclass
class _Products:
    """Some parameters of one shape whose gradients are sums of outer products."""

    indices: list[int]
    gradient: Tensor  # (n V, L, O)
    value: Tensor  # (n V, L, I)


class MicroBatch:
    """Norms and clipped sum of one micro-batch, which takes the parameters' uses one by one."""

    def __init__(
        self, sizes: Sequence[int], count: int, device: torch.device, *, formed: bool = False
    ) -> None:
        """``formed``: every vehicle's gradient is formed, so that its bits are its own."""
        self._count, self._device, self._formed = count, device, formed
        self._ends = [0, *accumulate(sizes)]
        # float64, but on accelerators that have none.
        self._wide = torch.float64 if wide(device) == device else torch.float32
        self._apart = apart(device)
        self._small = _SMALL_ACCELERATOR if self._apart else _SMALL
        self._squares = torch.zeros(count, dtype=self._wide, device=device)
        self._whole: dict[int, Tensor] = {}
        self._products: list[_Products] = []
        # Of each parameter with products: (n, V) squared norms as they were added up, and B; L and O + I.
        self._measured: list[tuple[Tensor, Tensor]] = []
        self._sides: list[tuple[int, int]] = []
        self._longest: list[Tensor] = []  # (V,) of each: the largest |g|^2 or |x|^2

    def take(self, index: int, uses: Sequence[Use]) -> None:
        """Parameter ``index`` with all its uses."""
        products = products_of(uses, self._count)
        if products and not self._formed:
            found = _Products([index], *self._factors_of(products))
            self._products.append(found)
            if not self._apart:  # while it is in the cache
                self._measure(found)
            return
        whole = whole_of(uses, self._count)
        self._whole[index] = whole
        if whole.shape[1] > self._small:
            self._add_squares(whole)

    def clipped_sum(self, max_grad_norm: float | None, usable: Tensor, into: Tensor | None = None) -> Tensor:
        """The (P,) sum of the ``usable`` (V,) vehicles whose gradient is finite, each clipped.

        ``into``: what it is added to, of the type in which sums are kept; nothing: zeros.
        """
        if into is None:
            into = torch.zeros(self._ends[-1], dtype=self._wide, device=self._device)
        small = [index for index, whole in self._whole.items() if whole.shape[1] <= self._small]
        together = [self._whole.pop(index) for index in small]
        if together:
            whole = torch.cat(together, dim=1)
            self._add_squares(whole)
        if self._apart:
            self._products = self._joined_by_shape()
            for found in self._products:
                self._measure(found)
        factors = self._factors(max_grad_norm, usable)
        if together:
            total = torch.zeros(whole.shape[1], dtype=self._wide, device=self._device)
            self._sum(whole, factors, total)
            parts = total.split([part.shape[1] for part in together])
            torch._foreach_add_([self._place(into, index) for index in small], list(parts))
        for index in list(self._whole):
            self._sum(self._whole.pop(index), factors, self._place(into, index))
        for found in self._products:
            self._sum_products(found, factors, into)
        self._products = []
        return into

    def _place(self, total: Tensor, index: int) -> Tensor:
        """A parameter's part of (P,)."""
        return total[self._ends[index] : self._ends[index + 1]]

    def _factors(self, max_grad_norm: float | None, usable: Tensor) -> Tensor:
        """(V,): what each vehicle's gradient is multiplied by; zero: it does not count, whatever is in it."""
        squares, worst = self._squares, None
        slack = _SLACK_WIDE if self._apart else _SLACK
        if self._measured:
            raw, spread = (torch.cat(parts) for parts in zip(*self._measured, strict=True))
            rounding = _ROUNDING_WIDE if self._apart else _ROUNDING
            groups = [self._group(positions) for positions, _ in self._sides]
            kinds = len(set(groups))
            shares = spread.new_tensor(
                [
                    ((sides + 4) * rounding, kinds * ((group * positions + 4) * rounding * 2 * group) ** 2)
                    for (positions, sides), group in zip(self._sides, groups, strict=True)
                ]
            )
            spread = spread.square_().mul_((1 + 1e-3) ** 2)  # B^2, from above
            squares = squares + raw.clamp_(min=0).addcmul_(spread, shares[:, :1]).sum(dim=0)
            worst = spread.mul_(shares[:, 1:]).sum(dim=0).sqrt_()
        if self._longest:
            squares = torch.where(
                (torch.stack(self._longest) <= _LARGE).all(dim=0), squares, torch.inf
            )  # NaN: no
        bound = squares.sqrt()
        if worst is not None:
            bound = torch.maximum(bound / (1 - slack), worst / slack)
        usable = usable & torch.isfinite(bound)
        # The small term, as in opacus, keeps the product below the bound after rounding.
        factors = (
            torch.ones_like(bound) if max_grad_norm is None else (max_grad_norm / (bound + 1e-6)).clamp(max=1)
        )
        return torch.where(usable, factors, 0)

    def _group(self, positions: int) -> int:
        """Vehicles of so many positions in one sum of products."""
        if self._apart:
            return self._count
        most = max(1, min(self._count, _GROUP_VEHICLES, _GROUP_POSITIONS // positions))
        # Equal groups are one call.
        return next((group for group in range(most, most // 2, -1) if self._count % group == 0), most)

    def _blocks(self, whole: Tensor) -> list[tuple[slice, slice]]:
        """Rows and columns of (V, p) in pieces."""
        block = _BLOCK if self._device.type == "cpu" else _BLOCK_ACCELERATOR
        count, size = whole.shape
        rows = max(min(count, _BLOCK_ROWS), block // size)
        width = max(1, block // rows)
        return [
            (slice(row, row + rows), slice(column, column + width))
            for row in range(0, count, rows)
            for column in range(0, size, width)
        ]

    def _add_squares(self, whole: Tensor) -> None:
        for rows, columns in self._blocks(whole):
            part = whole[rows, columns].to(self._wide)
            self._squares[rows] += torch.linalg.vector_norm(part, dim=1).square_()

    def _sum(self, whole: Tensor, factors: Tensor, total: Tensor) -> None:
        """Added to ``total``, (p,)."""
        ignored = (factors == 0)[:, None]
        for rows, columns in self._blocks(whole):
            # 0 * inf is not 0: what does not count is replaced, not scaled.
            part = whole[rows, columns].to(self._wide).masked_fill_(ignored[rows], 0)
            total[columns].addmv_(part.t(), factors[rows])

    def _joined_by_shape(self) -> list[_Products]:
        """On an accelerator a call costs more than what it computes: parameters of one shape are one."""
        shapes: dict[tuple[torch.Size, torch.Size], list[_Products]] = {}
        for one in self._products:
            shapes.setdefault((one.gradient.shape, one.value.shape), []).append(one)
        return [
            _Products(
                [index for one in some for index in one.indices],
                torch.cat([one.gradient for one in some]),
                torch.cat([one.value for one in some]),
            )
            for some in shapes.values()
        ]

    def _measure(self, found: _Products) -> None:
        """The squared norms of parameters' gradients without forming them."""
        shape = (len(found.indices), self._count)
        gradient, value = (part.to(self._exact) for part in (found.gradient, found.value))
        found.gradient, found.value = gradient, value
        grams = [torch.bmm(part, part.transpose(1, 2)) for part in (gradient, value)]
        lengths = [gram.diagonal(dim1=1, dim2=2) for gram in grams]  # |g|^2, |x|^2
        products = grams[0].to(self._wide) * grams[1]
        spread = products.diagonal(dim1=1, dim2=2).sqrt().sum(dim=1)
        self._measured.append((products.sum(dim=(1, 2)).view(shape), spread.view(shape)))
        if not self._apart:
            self._longest.append(torch.maximum(*lengths).amax(dim=1))
        positions, outward = gradient.shape[1:]
        self._sides += [(positions, outward + value.shape[2])] * len(found.indices)

    def _sum_products(self, found: _Products, factors: Tensor, total: Tensor) -> None:
        """Added to ``total``, (P,)."""
        gradient, value = (part.unflatten(0, (-1, self._count)) for part in (found.gradient, found.value))
        factor = factors.to(gradient.dtype)[:, None, None]
        for some, groups in self._groups(self._group(gradient.shape[2]), gradient.shape[3] * value.shape[3]):
            # 0 * inf is not 0: in what does not count, what is not finite is replaced before it is scaled.
            scaled = gradient[:, some].nan_to_num(0.0, 0.0, 0.0).mul_(factor[some])
            clean = value[:, some].nan_to_num(0.0, 0.0, 0.0)
            # (n groups, G L, O) and (n groups, G L, I)
            parts = [part.unflatten(1, (groups, -1)).flatten(2, 3).flatten(0, 1) for part in (scaled, clean)]
            summed = torch.bmm(parts[0].transpose(1, 2), parts[1]).flatten(1).unflatten(0, (-1, groups))
            for index, part in zip(found.indices, summed, strict=True):
                _add(self._place(total, index), part)

    def _groups(self, group: int, size: int) -> list[tuple[slice, int]]:
        """Vehicles whose products of ``size`` values are taken at once, and in how many groups."""
        count = self._count
        most = group * max(1, _AT_ONCE // size)
        ends = sorted({*range(0, count, most), count // group * group, count})
        return [(slice(low, high), max(1, (high - low) // group)) for low, high in pairwise(ends)]

    @property
    def _exact(self) -> torch.dtype:
        """What products are added up in."""
        return self._wide if self._apart else torch.float32

    def _factors_of(self, products: Sequence[Product]) -> tuple[Tensor, Tensor]:
        """(V, L, O) and (V, L, I), the positions of all uses one after another."""
        gradients, values = zip(*(use.factors(self._count) for use in products), strict=True)
        return _joined(gradients), _joined(values)


def apart(device: torch.device) -> bool:
    """Whether products are added up in float64, all at once: on accelerators that have it calls are dear."""
    return device.type != "cpu" and wide(device) == device


def products_of(uses: Sequence[Use], count: int) -> list[Product]:
    """A parameter's uses, where no vehicle's gradient is formed; else none."""
    products = [use for use in uses if isinstance(use, Product) and use.factors_out]
    return products if len(products) == len(uses) and _by_product(products, count) else []


def kept(uses: Sequence[Use], count: int) -> int:
    """Values that are kept of each of ``count`` vehicles until their norms are known, by shapes."""
    products = products_of(uses, count)
    if not products:
        return whole_of(uses, count).shape[1]
    return sum(
        positions * (outward + inward)
        for positions, outward, inward in (use.shape(count) for use in products)
    )


def whole_of(uses: Sequence[Use], count: int) -> Tensor:
    """A parameter's gradient from each vehicle, (V, p): its uses added up."""
    first, *others = (use.by_vehicle(count) for use in uses)
    for other in others:
        first = first + other
    return first


def clip_and_sum(means: Tensor, max_grad_norm: float | None) -> np.ndarray:
    """Rows (V, P) that are not finite become zero, each row is clipped to ``max_grad_norm``, rows are summed.

    Returns:
        (P,) float64 on the host. One row more or less moves it by at most ``max_grad_norm``.
    """
    batch = MicroBatch([means.shape[1]], len(means), means.device)
    batch.take(0, [Sampled(means)])
    everyone = torch.ones(len(means), dtype=torch.bool, device=means.device)
    return batch.clipped_sum(max_grad_norm, everyone).double().cpu().numpy()


def _by_product(products: Sequence[Product], count: int) -> bool:
    """Whether Gram matrices cost less than gradients, by shapes."""
    if torch.get_float32_matmul_precision() != "highest":
        return False  # u would be larger
    shapes = [use.shape(count) for use in products]
    positions = sum(shape[0] for shape in shapes)
    _, outward, inward = shapes[0]
    size = outward * inward
    # In multiplications of a matrix product; a value that is copied or converted costs as much as about 16.
    return size > _SMALL and (2 * positions + 48) * positions * (outward + inward) < 80 * size


def _add(total: Tensor, parts: Tensor) -> None:
    """Add (n, p) to (p,): in blocks, where a sum in float64 would make another copy of what it adds."""
    size = len(total) if total.dtype == parts.dtype else _BLOCK
    for to, some in zip(total.split(size), parts.split(size, dim=1), strict=True):
        to.add_(some.sum(dim=0, dtype=total.dtype) if len(parts) > 1 else some[0])


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """One after another along the positions."""
    return parts[0] if len(parts) == 1 else torch.cat([*parts], dim=1)
