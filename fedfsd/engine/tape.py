"""Layers hand in what per-vehicle gradients are made of, in one backward pass.

Each known layer computes what it always does. Its parameters are constants to autograd, so that no gradient
of theirs is computed and thrown away; what reaches the layer's output in the backward pass is kept with the
layer's input as a ``Use`` of each parameter, and handed on as soon as a parameter has all of its uses.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from fedfsd.engine.use import Added, Product, Use
from fedfsd.errors import ModelError

Deliver = Callable[[nn.Parameter, list[Use]], None]
"""Takes a parameter's uses, in the order in which the backward pass came by."""


class Tape:
    """What the layers of one model write to while ``recording``; otherwise they are ordinary layers."""

    def __init__(self, learning: Iterable[nn.Parameter] = ()) -> None:
        """``learning``: the parameters whose uses are kept."""
        self._learning = set(learning)
        self._deliver: Deliver | None = None
        self._awaited: dict[nn.Parameter, int] = defaultdict(int)
        self._uses: dict[nn.Parameter, list[Use]] = defaultdict(list)
        self._anchor = torch.zeros((), requires_grad=True)

    @contextmanager
    def recording(self, deliver: Deliver) -> Iterator[None]:
        """Uses of the forward and backward pass within go to ``deliver``; at its end, nothing is kept."""
        self._deliver = deliver
        try:
            yield
            # Calls whose output the loss does not depend on were awaited in vain.
            for parameter in list(self._uses):
                deliver(parameter, self._uses.pop(parameter))
        finally:
            self._deliver = None
            self._awaited.clear()
            self._uses.clear()

    def linear(self, value: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """A linear layer, recorded."""
        output = functional.linear(value, weight, bias)
        if self._deliver is None:
            return output
        return self.note(output, value, {weight: Product(value.detach()), bias: Added()})

    def note(self, output: Tensor, value: Tensor, uses: Mapping[Tensor | None, Use]) -> Tensor:
        """The layer's output, watched: each parameter (None: it has none) gets its use in backward."""
        if self._deliver is None or not torch.is_grad_enabled():
            return output
        mine = {
            parameter: use
            for parameter, use in uses.items()
            if isinstance(parameter, nn.Parameter) and parameter in self._learning
        }
        if not mine:
            return output
        for parameter in mine:
            self._awaited[parameter] += 1
        version = value._version

        def arrive(gradient: Tensor) -> None:
            if value._version != version:
                raise ModelError(
                    "model",
                    got="an operation in place on the input of a layer",
                    expected="inputs that stay until the backward pass",
                    hint="write x = x + y instead of x += y",
                )
            for parameter, use in mine.items():
                use.gradient = gradient.detach()
                self._uses[parameter].append(use)
                if len(self._uses[parameter]) == self._awaited[parameter] and self._deliver is not None:
                    self._deliver(parameter, self._uses.pop(parameter))
            mine.clear()

        if not output.requires_grad:
            watched: Tensor = _Watched.apply(output, self._anchor, arrive)  # type: ignore[no-untyped-call]
            return watched
        output.register_hook(arrive)
        return output


class _Watched(torch.autograd.Function):
    """Where the graph begins at a layer: nothing before it needs a gradient, so nothing is passed on."""

    @staticmethod
    def forward(context: Any, output: Tensor, _anchor: Tensor, arrive: Callable[[Tensor], None]) -> Tensor:
        context.arrive = arrive
        context.mark_dirty(output)
        return output

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[None, None, None]:
        context.arrive(gradient)
        return None, None, None
