"""The rungs of the ladder, from no learning at all to each region alone under privacy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

Kind = Literal["constant velocity", "predictor", "start", "alone", "pooled", "federated"]


@dataclass(frozen=True)
class Rung:
    """``epsilon`` is its runs' target: 0 where no region's drive is used, infinite without noise."""

    name: str
    title: str
    kind: Kind
    epsilon: float

    @property
    def trains(self) -> bool:
        """Whether the rung trains on the regions' drives."""
        return self.kind in ("alone", "pooled", "federated")

    @property
    def seeded(self) -> bool:
        """Whether a seed changes anything."""
        return self.trains or self.kind == "start"

    @property
    def private(self) -> bool:
        """Whether the rung promises anything to the vehicles it trains on."""
        return self.trains and math.isfinite(self.epsilon)


CONSTANT_VELOCITY = Rung("constant_velocity", "constant velocity, last step", "constant velocity", 0.0)
START = Rung("public_start", "pre-trained on generated traffic", "start", 0.0)
FEDERATED_8 = Rung("federated_eps8", "federated, epsilon 8", "federated", 8.0)

LADDER = (
    CONSTANT_VELOCITY,
    Rung("best_predictor", "best without learning", "predictor", math.inf),
    START,
    Rung("alone_not_private", "alone, not private", "alone", math.inf),
    Rung("pooled_not_private", "pooled, not private", "pooled", math.inf),
    Rung("federated_not_private", "federated, not private", "federated", math.inf),
    FEDERATED_8,
    Rung("federated_eps4", "federated, epsilon 4", "federated", 4.0),
    Rung("federated_eps2", "federated, epsilon 2", "federated", 2.0),
    Rung("federated_eps1", "federated, epsilon 1", "federated", 1.0),
    Rung("alone_eps8", "alone, epsilon 8", "alone", 8.0),
)
