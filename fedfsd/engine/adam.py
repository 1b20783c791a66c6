"""Adam as torch computes it, to the last bit, without ``torch.optim.Optimizer``.

That class loads torch's compiler at its first step: 1.6 s in every process that trains.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from math import cos, pi

import torch
from torch import Tensor
from torch.optim.adam import adam


class Adam:
    """Trains parameters in place, with torch's default constants."""

    def __init__(self, parameters: Iterable[Tensor]) -> None:
        self._parameters = [one for one in parameters if one.requires_grad]
        self._means = [torch.zeros_like(one) for one in self._parameters]
        self._squares = [torch.zeros_like(one) for one in self._parameters]
        self._steps = [torch.tensor(0.0) for _ in self._parameters]

    def step(self, loss: Tensor, learning_rate: float) -> None:
        """One step down the gradient of ``loss``; a parameter that it does not depend on stays."""
        found = torch.autograd.grad(loss, self._parameters, allow_unused=True)
        used = [number for number, gradient in enumerate(found) if gradient is not None]
        with torch.no_grad():
            adam(
                [self._parameters[number] for number in used],
                [gradient for gradient in found if gradient is not None],
                [self._means[number] for number in used],
                [self._squares[number] for number in used],
                [],
                [self._steps[number] for number in used],
                foreach=False,
                amsgrad=False,
                beta1=0.9,
                beta2=0.999,
                lr=learning_rate,
                weight_decay=0.0,
                eps=1e-8,
                maximize=False,
            )


def cosine(learning_rate: float, steps: int) -> Iterator[float]:
    """The rate of each of ``steps`` steps, from ``learning_rate`` towards 0.

    As ``torch.optim.lr_scheduler.CosineAnnealingLR`` computes it, each from the one before.
    """
    for step in range(steps):
        if step:
            learning_rate *= (1 + cos(pi * step / steps)) / (1 + cos(pi * (step - 1) / steps))
        yield learning_rate
