"""A small transformer encoder over the history's steps.

Attention is written out of ``nn.Linear``: opacus refuses ``nn.MultiheadAttention``, and its own
replacement mixes up positions when it has several heads and the batch comes first (opacus 1.6.0),
which is the only order in which it gives per-window gradients here.

Shapes: B windows, H history points, S = H - 1 steps, D width, N heads.
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from fedfsd.config.load import Frozen
from fedfsd.errors import ConfigError
from fedfsd.task.forecasting.model.gru import Features, Head
from fedfsd.task.forecasting.window import WindowSpec


class Options(Frozen):
    """Options of ``transformer``."""

    width: Annotated[int, Field(ge=1, le=512)] = 16
    heads: Annotated[int, Field(ge=1, le=64)] = 2
    layers: Annotated[int, Field(ge=1, le=16)] = 1
    modes: Annotated[int, Field(ge=1, le=64)] = 6

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> Options:
        if self.width % self.heads:
            raise ConfigError(
                "heads",
                got=f"{self.heads} heads for width {self.width}",
                expected="a divisor of width",
                hint="set heads = 1, or a width that is a multiple of heads",
            )
        return self


class Transformer(nn.Module):
    """history (B, H, 2) -> paths (B, K, F, 2), scores (B, K)."""

    position: Tensor

    def __init__(self, options: Options, spec: WindowSpec) -> None:
        super().__init__()
        self.features = Features(spec)
        steps = spec.history - 1
        # A one-hot position beside each step makes the learned positions rows of one linear layer.
        self.register_buffer("position", torch.eye(steps), persistent=False)
        self.embed = nn.Linear(Features.size + steps, options.width)
        self.layers = nn.ModuleList(Layer(options.width, options.heads) for _ in range(options.layers))
        self.norm = nn.LayerNorm(options.width)
        self.head = Head(options.width, options.modes, spec)

    def forward(self, history: Tensor) -> tuple[Tensor, Tensor]:
        paths, scores = self.head(*self.trunk(history))
        return paths, scores

    def trunk(self, history: Tensor) -> tuple[Tensor, Tensor]:
        """What the head is given: the code of the last step, and that step."""
        steps = history.diff(dim=1)
        position = self.position.expand(len(history), -1, -1)
        tokens = self.embed(torch.cat([self.features(steps), position], dim=2))
        for layer in self.layers:
            tokens = layer(tokens)
        return self.norm(tokens[:, -1]), steps[:, -1]


class Layer(nn.Module):
    """Attention, then a feed-forward part, each normalised before and added: (B, S, D) -> (B, S, D)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.before_attention = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.feed = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self._attend(self.before_attention(tokens))
        return tokens + self.feed(tokens)

    def _attend(self, tokens: Tensor) -> Tensor:
        """Every step looks at every step (Vaswani et al. 2017)."""
        parts = self.query_key_value(tokens).unflatten(2, (3, self.heads, -1))  # (B, S, 3, N, D / N)
        query, key, value = parts.permute(2, 0, 3, 1, 4)  # each (B, N, S, D / N)
        weight = (query @ key.transpose(2, 3) * query.shape[-1] ** -0.5).softmax(dim=-1)
        return self.out((weight @ value).transpose(1, 2).flatten(2))


ENTRY = (Options, Transformer)
