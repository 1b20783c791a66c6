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
  and zeroing one of them changes no other group. So a vehicle's factor also keeps 2 e G B below C / 256, and
  its norm below C (1 - 1/256).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from fedfsd.engine.device import wide
from fedfsd.engine.use import Product, Sampled, Use

_ROUNDING, _ROUNDING_WIDE = 2.0**-24, 2.0**-53
_SLACK, _SLACK_WIDE = 1 / 256, 2.0**-20  # of C, for rounding in groups
_GROUP_POSITIONS, _GROUP_VEHICLES = 256, 64
_SMALL, _SMALL_ACCELERATOR = 4096, 1 << 16  # parameters; up to here gradients are taken together
_BLOCK, _BLOCK_ACCELERATOR = 1 << 16, 1 << 26  # values in float64 at a time: a core's cache, or a long call
_LARGE = 1e16  # |x|^2 beyond which float32 products of Gram matrices may over- or underflow


class MicroBatch:
    """Norms and clipped sum of one micro-batch, which takes the parameters' uses one by one."""

    def __init__(
        self, sizes: Sequence[int], count: int, device: torch.device, *, formed: bool = False
    ) -> None:
        """``formed``: every vehicle's gradient is formed, so that its bits are its own."""
        self._count, self._device, self._formed = count, device, formed
        self._sizes = sizes
        # float64, but on accelerators that have none.
        self._wide = torch.float64 if wide(device) == device else torch.float32
        self._apart = apart(device)
        self._small = _SMALL_ACCELERATOR if self._apart else _SMALL
        self._squares = torch.zeros(count, dtype=self._wide, device=device)
        self._whole: dict[int, Tensor] = {}
        self._products: dict[int, list[Product]] = {}
        self._spreads: list[tuple[int, Tensor]] = []  # L and B

    def take(self, index: int, uses: Sequence[Use]) -> None:
        """Parameter ``index`` with all its uses."""
        products = [use for use in uses if isinstance(use, Product) and use.factors_out]
        if not self._formed and len(products) == len(uses) and _by_product(products, self._count):
            self._products[index] = products
            self._measure(products)
            return
        whole = whole_of(uses, self._count)
        self._whole[index] = whole
        if whole.shape[1] > self._small:  # while it is in the cache
            self._add_squares(whole)

    def clipped_sum(self, max_grad_norm: float | None, usable: Tensor) -> Tensor:
        """The (P,) sum of the ``usable`` (V,) vehicles whose gradient is finite, each clipped."""
        sums: dict[int, Tensor] = {}
        small = sorted(index for index, whole in self._whole.items() if whole.shape[1] <= self._small)
        together = [self._whole.pop(index) for index in small]
        if together:
            whole = torch.cat(together, dim=1)
            self._add_squares(whole)
        factors = self._factors(max_grad_norm, usable)
        if together:
            parts = self._sum(whole, factors).split([part.shape[1] for part in together])
            sums.update(zip(small, parts, strict=True))
        for index in list(self._whole):
            sums[index] = self._sum(self._whole.pop(index), factors)
        for index in list(self._products):
            sums[index] = self._sum_products(self._products.pop(index), factors)
        for index, size in enumerate(self._sizes):
            if index not in sums:  # the loss does not depend on it
                sums[index] = torch.zeros(size, dtype=self._wide, device=self._device)
        return torch.cat([sums[index] for index in range(len(self._sizes))])

    def _factors(self, max_grad_norm: float | None, usable: Tensor) -> Tensor:
        """(V,): what each vehicle's gradient is multiplied by; zero: it does not count, whatever is in it."""
        bound = self._squares.sqrt()
        if self._spreads:
            group, slack = self._group, _SLACK_WIDE if self._apart else _SLACK
            lengths = [(group * positions + 4) * self._rounding * 2 * group for positions, _ in self._spreads]
            spreads = torch.stack([spread for _, spread in self._spreads])
            worst = spreads.mul_(spreads.new_tensor(lengths)[:, None]).square_().sum(dim=0).sqrt_()
            bound = torch.maximum(bound / (1 - slack), worst / slack)
        usable = usable & torch.isfinite(bound)
        # The small term, as in opacus, keeps the product below the bound after rounding.
        factors = (
            torch.ones_like(bound) if max_grad_norm is None else (max_grad_norm / (bound + 1e-6)).clamp(max=1)
        )
        return torch.where(usable, factors, 0)

    @property
    def _group(self) -> int:
        """Vehicles in one sum of products."""
        if self._apart:
            return self._count
        longest = max(positions for positions, _ in self._spreads)
        return max(1, min(_GROUP_VEHICLES, _GROUP_POSITIONS // longest))

    def _blocks(self, whole: Tensor) -> list[tuple[slice, slice]]:
        """Rows and columns of (V, p) in pieces."""
        block = _BLOCK if self._device.type == "cpu" else _BLOCK_ACCELERATOR
        count, size = whole.shape
        rows = max(1, block // size)
        return [
            (slice(row, row + rows), slice(column, column + block))
            for row in range(0, count, rows)
            for column in range(0, size, block)
        ]

    def _add_squares(self, whole: Tensor) -> None:
        for rows, columns in self._blocks(whole):
            part = whole[rows, columns].to(self._wide)
            self._squares[rows] += torch.linalg.vector_norm(part, dim=1).square_()

    def _sum(self, whole: Tensor, factors: Tensor) -> Tensor:
        total = torch.zeros(whole.shape[1], dtype=self._wide, device=self._device)
        ignored = (factors == 0)[:, None]
        for rows, columns in self._blocks(whole):
            # 0 * inf is not 0: what does not count is replaced, not scaled.
            part = whole[rows, columns].to(self._wide).masked_fill_(ignored[rows], 0)
            total[columns].addmv_(part.t(), factors[rows])
        return total

    def _measure(self, products: list[Product]) -> None:
        """Add the squared norms of a parameter's gradients, from above, without forming them."""
        gradient, value = self._factors_of(products)
        grams = [torch.bmm(part, part.transpose(1, 2)).to(self._wide) for part in (gradient, value)]
        lengths = [gram.diagonal(dim1=1, dim2=2) for gram in grams]  # (V, L): |g|^2, |x|^2
        spread = (lengths[0] * lengths[1]).sqrt().sum(dim=1) * (1 + 1e-3)
        error = (gradient.shape[2] + value.shape[2] + 4) * self._rounding
        squares = (grams[0] * grams[1]).sum(dim=(1, 2)).clamp(min=0) + error * spread.square()
        if not self._apart:
            fits = torch.stack([(part <= _LARGE).all(dim=1) for part in lengths]).all(dim=0)  # NaN does not
            squares = torch.where(fits, squares, torch.inf)
        self._squares += squares
        self._spreads.append((value.shape[1], spread))

    def _sum_products(self, products: list[Product], factors: Tensor) -> Tensor:
        gradient, value = self._factors_of(products)
        factor = factors.to(gradient.dtype)[:, None, None]
        total = gradient.new_zeros(gradient.shape[2], value.shape[2], dtype=self._wide)
        for low in range(0, self._count, self._group):
            some = slice(low, low + self._group)
            # 0 * inf is not 0: in what does not count, what is not finite is replaced before it is scaled.
            scaled = gradient[some].nan_to_num(0.0, 0.0, 0.0).mul_(factor[some]).flatten(0, 1)
            total += scaled.t() @ value[some].nan_to_num(0.0, 0.0, 0.0).flatten(0, 1)
        return total.flatten()

    @property
    def _rounding(self) -> float:
        """u of what products are added up in."""
        return _ROUNDING_WIDE if self._apart else _ROUNDING

    def _factors_of(self, products: Sequence[Product]) -> tuple[Tensor, Tensor]:
        """(V, L, O) and (V, L, I), the positions of all uses one after another."""
        kind = self._wide if self._apart else torch.float32
        gradients, values = zip(*(use.factors(self._count) for use in products), strict=True)
        return _joined(gradients).to(kind), _joined(values).to(kind)


def apart(device: torch.device) -> bool:
    """Whether products are added up in float64, all at once: on accelerators that have it calls are dear."""
    return device.type != "cpu" and wide(device) == device


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


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """One after another along the positions."""
    return parts[0] if len(parts) == 1 else torch.cat([*parts], dim=1)
