"""``rows``: where the line is in each row of the image, and a sum of how that place moves. 4 parameters.

The places are turned into orthogonal modes over the rows (side, angle, bend, twist), of which a linear layer
takes a weighted sum. Few, well-scaled numbers: what noise with few vehicles asks for.

Shapes: B images, P = 16 rows and columns, M = 4 modes.
"""

from __future__ import annotations

from typing import Annotated

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from fedfsd.config.load import Frozen

from .drawing import PIXELS

_MODES = 4


class Options(Frozen):
    """Options of ``rows``."""

    sharpness: Annotated[float, Field(gt=0, le=100)] = 12.0
    """How much more a bright pixel counts than a dark one."""


class Rows(nn.Module):
    """image (B, P, P), grey values from 0 to 1 -> curvature (B,) in units of the task's scale."""

    def __init__(self, options: Options) -> None:
        super().__init__()
        self.sharpness = options.sharpness
        rows = np.linspace(-1, 1, PIXELS)
        modes, _ = np.linalg.qr(np.vander(rows, _MODES, increasing=True))  # (P, M)
        # Constants are buffers: every parameter is trained, with noise.
        self.register_buffer("places", torch.tensor(rows, dtype=torch.float32), persistent=False)
        self.register_buffer("modes", torch.tensor(modes, dtype=torch.float32), persistent=False)
        self.head = nn.Linear(_MODES, 1, bias=False)
        nn.init.zeros_(self.head.weight)  # at the start: the road is straight

    def forward(self, image: Tensor) -> Tensor:
        place = torch.softmax(self.sharpness * image, dim=2) @ self.places  # (B, P), from -1 to 1
        return self.head(place @ self.modes)[:, 0]


MODELS = {"rows": (Options, Rows)}
