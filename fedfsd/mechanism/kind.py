"""The mechanisms, by kind: what a region does to its vehicles in every round of a plan.

All that depends on the distribution of the noise is asked here: the event that accountants see, its Renyi
loss, its text in the ledger, how noise is drawn, what a correct update looks like from outside, and what a
policy bounds. A mechanism is made from public constants alone.

Floating point tells nothing either (Mironov 2012): a step's clipped sum and its noise are each rounded to one
public grid and added there as integers, before anything else is done to them. So what is released is made
from a point of that grid alone, and its distribution is a Gaussian's around a point of the grid, rounded: a
function of what accountants judge. That rounding can move two sums apart is counted in the clipping norm.

``gaussian``, which a document names by naming no kind, adds the same noise in every round.
``gaussian-by-round`` has a noise multiplier for each round; in the ledger each of its rounds is a plain
Gaussian. Another kind is another class in ``KINDS``, with its two texts.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import floor, log2, sqrt
from typing import Annotated, Any, ClassVar, Literal, Protocol, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from fedfsd.errors import PlanError
from fedfsd.mechanism.event import MOST_STEPS, Event, merge
from fedfsd.mechanism.renyi import nano_nats

Positive = Annotated[float, Field(gt=0)]
GRID = 2.0**-20
"""Of the noise's standard deviation: the widest lattice on which a noised sum lies."""
LEAST_GRID = 2.0**-960
"""Float64 divides and multiplies by it without loss."""
MOST_LEVELS = 16
"""Of noise in one plan: accountants, a region's too, take time for each."""


Numbers = TypeVar("Numbers", covariant=True)
"""Float64 values in an array of any library that does arithmetic and rounds as numpy does, halves to even."""


class Noise(Protocol[Numbers]):
    """A secret stream of random numbers."""

    def whole(self, count: int, scale: float, /) -> Numbers:
        """``count`` standard normal values times ``scale``, each rounded to a whole number, float64."""


class Written(BaseModel):
    """A part of a document that names a mechanism."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True
    )


class Text(Written):
    """What the ledger says of some rounds: ``event`` of FORMAT.md, section 4."""

    sample_rate: Annotated[float, Field(gt=0, le=1)]
    max_grad_norm: Positive
    steps: Annotated[int, Field(ge=1, le=MOST_STEPS)]
    """Of all the rounds together."""
    unit: Literal["vehicle"] = "vehicle"
    adjacency: Literal["zero-out"] = "zero-out"

    def events(self) -> tuple[Event, ...]:
        """What an accountant sees of it."""
        raise NotImplementedError

    @property
    def least_noise(self) -> float:
        """The smallest noise multiplier."""
        raise NotImplementedError

    def with_noise(self, least: float) -> Text:
        """The same with another ``least_noise`` and all noise in proportion."""
        raise NotImplementedError

    @property
    def words(self) -> str:
        """Its noise multiplier for people, with how it differs between rounds."""
        return f"{self.least_noise:g}"

    louder: ClassVar[str] = ""
    """What to add where a sentence asks for another noise multiplier."""


class GaussianText(Text):
    """``steps`` times a sampled Gaussian of standard deviation noise_multiplier * max_grad_norm."""

    noise_multiplier: Positive

    def events(self) -> tuple[Event, ...]:
        """What an accountant sees of it."""
        return (
            Event(sample_rate=self.sample_rate, noise_multiplier=self.noise_multiplier, steps=self.steps),
        )

    @property
    def least_noise(self) -> float:
        """The noise multiplier."""
        return self.noise_multiplier

    def with_noise(self, least: float) -> GaussianText:
        """The same with another noise multiplier."""
        return self.model_copy(update={"noise_multiplier": least})


def by_round_words(noise: Sequence[float]) -> str:
    """Noise multipliers from the first round to the last, with extremes that lie between."""
    ends = f"{noise[0]:g} in round 1 to {noise[-1]:g} in round {len(noise)}"
    inner = {min(noise), max(noise)} - {noise[0], noise[-1]}
    return f"{ends}, by round" + "".join(f", {one:g} between" for one in sorted(inner))


class _ByRound(Written):
    kind: Literal["gaussian-by-round"] = "gaussian-by-round"
    noise_multipliers: Annotated[
        tuple[Positive, ...], Field(strict=False, min_length=1, max_length=MOST_STEPS)
    ]
    """One a round."""

    @model_validator(mode="after")
    def _few_levels(self) -> _ByRound:
        if len(set(self.noise_multipliers)) > MOST_LEVELS:
            raise ValueError(f"at most {MOST_LEVELS} different noise multipliers")
        return self


class GaussianByRoundPlan(_ByRound):
    """``mechanism`` of a region in a plan's document."""

    def covers(self, rounds: int) -> bool:
        """Whether there is noise for each of ``rounds`` rounds and for no other."""
        return len(self.noise_multipliers) == rounds


class GaussianByRoundText(_ByRound, Text):
    """All rounds of a plan: the Gaussian of each, with steps / rounds steps."""

    louder: ClassVar[str] = " in the round with the least noise, the others in proportion"

    @model_validator(mode="after")
    def _whole_rounds(self) -> GaussianByRoundText:
        if self.steps % len(self.noise_multipliers):
            raise ValueError("as many steps in every round")
        return self

    def events(self) -> tuple[Event, ...]:
        """What an accountant sees of it."""
        return _events(self.sample_rate, self.noise_multipliers, self.steps // len(self.noise_multipliers))

    @property
    def least_noise(self) -> float:
        """The smallest noise multiplier of a round."""
        return min(self.noise_multipliers)

    @property
    def words(self) -> str:
        """From the first round to the last."""
        return by_round_words(self.noise_multipliers)

    def with_noise(self, least: float) -> GaussianByRoundText:
        """The same with another smallest noise multiplier and all others in proportion."""
        factor = least / self.least_noise
        louder = tuple(sigma * factor for sigma in self.noise_multipliers)
        return self.model_copy(update={"noise_multipliers": louder})


def _kind(value: Any) -> str:
    found = value.get("kind", Gaussian.kind) if isinstance(value, Mapping) else None
    return str(found or getattr(value, "kind", Gaussian.kind))


AnyText = Annotated[
    Annotated[GaussianText, Tag("gaussian")] | Annotated[GaussianByRoundText, Tag("gaussian-by-round")],
    Discriminator(_kind),
]
AnyPlan = GaussianByRoundPlan
"""``mechanism`` in a plan: every kind but the one that a document names by naming none."""


@dataclass(frozen=True, kw_only=True)
class Mechanism(ABC):
    """One region's mechanism: per step, sample vehicles, clip to C, add noise to the sum.

    Rounds are numbered from 1. The loss of a block of rounds is asked for as a block: it need not be a
    multiple of one round's.
    """

    kind: ClassVar[str]
    sample_rate: float
    max_grad_norm: float
    local_steps: int

    @abstractmethod
    def noise_multiplier(self, round: int, /) -> float:
        """Sigma of a round's steps."""

    @abstractmethod
    def least_noise(self) -> tuple[float, str]:
        """The smallest noise multiplier of all rounds, and in which it is, for people."""

    @property
    @abstractmethod
    def words(self) -> str:
        """The noise multiplier for people, with how it differs between rounds."""

    @abstractmethod
    def text(self, rounds: int) -> GaussianText | GaussianByRoundText:
        """What the ledger says of all ``rounds`` rounds of a plan. PlanError where it has not that many."""

    def round_text(self, round: int) -> GaussianText:
        """What the ledger says of one round."""
        return GaussianText(
            sample_rate=self.sample_rate,
            noise_multiplier=self.noise_multiplier(round),
            max_grad_norm=self.max_grad_norm,
            steps=self.local_steps,
        )

    def events(self, rounds: range) -> tuple[Event, ...]:
        """What an accountant sees of ``rounds`` together."""
        sigmas = (self.noise_multiplier(round) for round in rounds)
        return _events(self.sample_rate, sigmas, self.local_steps)

    def rho(self, rounds: range, alpha: int) -> int:
        """What the filter books for ``rounds`` together, in nano-nats."""
        return nano_nats(self.events(rounds), alpha)

    def rho_by_round(self, rounds: int, alpha: int) -> tuple[int, ...]:
        """What the filter books for each of ``rounds`` rounds; they add up to ``rho`` of all."""
        known: dict[float, int] = {}
        for round in range(1, rounds + 1):
            sigma = self.noise_multiplier(round)
            if sigma not in known:
                known[sigma] = self.rho(range(round, round + 1), alpha)
        return tuple(known[self.noise_multiplier(round)] for round in range(1, rounds + 1))

    def std(self, round: int) -> float:
        """Standard deviation of the noise on a step's clipped sum."""
        return self.noise_multiplier(round) * self.max_grad_norm

    def grid(self, round: int, *, size: int) -> float:
        """The public lattice of a step of ``size`` numbers: its unit, a power of two.

        At most 2^-20 of the noise's standard deviation, and so fine that rounding a sum moves it by at most
        2^-12 C. PlanError where no float is that small.
        """
        unit = 2.0**-11 * self.max_grad_norm / sqrt(size or 1)
        if self.std(round):  # a sum without noise promises nothing
            unit = min(unit, GRID * self.std(round))
        found = 2.0 ** floor(log2(unit)) if unit > 0 else 0.0
        if found < LEAST_GRID:
            raise PlanError("max_grad_norm", got="noise too small for float64", expected="a larger bound")
        return found

    def clipping_norm(self, round: int, *, roster: int, size: int) -> float:
        """What a vehicle's gradient is clipped to, so that one vehicle moves the rounded sum by at most C.

        Rounding to the grid moves each of ``size`` numbers of two sums apart by at most one unit. Float64
        takes the rest: additions of norms up to C, in whatever order, of twice as many vehicles as the
        roster says; the rounding of a norm, of a factor and of a product; and the same of the sum, whose
        squares are added pairwise, where it is shortened to ``roster`` times C.
        """
        grid = self.grid(round, size=size) * sqrt(size)
        floats = 2.0**-52 * (4 * roster**2 + 64 * roster + size + 4) * self.max_grad_norm
        found = self.max_grad_norm - grid - floats
        if not found > 0:
            raise PlanError("roster", got=roster, expected="fewer vehicles: float64 cannot add so many")
        return found

    def noised(self, total: Any, stream: Noise[Numbers], *, round: int) -> Numbers:
        """A step's clipped sum with its noise, (size,) float64: whole multiples of ``grid``.

        Args:
            total: (size,) float64, of vehicles clipped to ``clipping_norm``; in an array like the stream's.
            stream: the region's secret stream for that step.
        """
        grid = self.grid(round, size=len(total))
        noised: Any = stream.whole(len(total), self.std(round) / grid)
        # A division by a power of two is exact, and so is the sum of the two whole numbers.
        noised += (total / grid).round()
        noised *= grid
        found: Numbers = noised
        return found

    def witness_std(self, round: int, gains: np.ndarray, *, divisor: float) -> float:
        """Standard deviation of every entry of a round's update that no gradient touches.

        ``gains``: how far each step's mean gradient moves the parameters (see ``gains``).
        """
        return float(np.linalg.norm(gains)) * self.std(round) / divisor

    def witness_lattice(self, round: int, gains: np.ndarray, *, divisor: float, size: int) -> float | None:
        """The unit of the public lattice on which those entries lie before float32 rounds them.

        None where steps move the parameters by different amounts: sums of their multiples are everywhere.
        """
        if float(np.ptp(gains)):
            return None
        return float(gains[0]) * self.grid(round, size=size) / divisor

    def max_update_norm(
        self, round: int, gains: np.ndarray, *, divisor: float, roster: int, size: int, z: float
    ) -> float:
        """No update of ``size`` numbers with correct clipping and noise is longer, but by chance exp(-z^2/2).

        At most ``roster`` clipped gradients a step, and noise of the update's size on top.
        """
        signal = float(np.sum(gains)) * roster * self.max_grad_norm / divisor
        # Rounding to the grid and in float32 stay far inside the last factor.
        return (signal + self.witness_std(round, gains, divisor=divisor) * (sqrt(size) + z)) * (1 + 1e-4)

    def objections(self, *, min_noise_multiplier: float, max_grad_norm: float) -> list[str]:
        """What a policy with these bounds would not accept."""
        found = []
        least, where = self.least_noise()
        if least < min_noise_multiplier:
            found.append(f"noise_multiplier {least:g}{where} is below the floor {min_noise_multiplier:g}")
        if self.max_grad_norm > max_grad_norm:
            found.append(f"max_grad_norm {self.max_grad_norm:g} is above the cap {max_grad_norm:g}")
        return found


@dataclass(frozen=True, kw_only=True)
class Gaussian(Mechanism):
    """The same Gaussian in every step."""

    kind: ClassVar[str] = "gaussian"
    sigma: float

    def noise_multiplier(self, _: int, /) -> float:
        """Sigma, in every round."""
        return self.sigma

    def least_noise(self) -> tuple[float, str]:
        """Sigma, in every round."""
        return self.sigma, ""

    @property
    def words(self) -> str:
        """Sigma."""
        return f"{self.sigma:g}"

    def text(self, rounds: int) -> GaussianText:
        """The whole plan as one event."""
        return GaussianText(
            sample_rate=self.sample_rate,
            noise_multiplier=self.sigma,
            max_grad_norm=self.max_grad_norm,
            steps=self.local_steps * rounds,
        )

    def events(self, rounds: range) -> tuple[Event, ...]:
        """One event of all the steps."""
        steps = self.local_steps * len(rounds)
        return (Event(sample_rate=self.sample_rate, noise_multiplier=self.sigma, steps=steps),)

    def rho_by_round(self, rounds: int, alpha: int) -> tuple[int, ...]:
        """The same for every round."""
        return (self.rho(range(1, 2), alpha),) * rounds


@dataclass(frozen=True, kw_only=True)
class GaussianByRound(Mechanism):
    """A Gaussian of its own in every round."""

    kind: ClassVar[str] = "gaussian-by-round"
    sigmas: tuple[float, ...]

    def noise_multiplier(self, round: int, /) -> float:
        """Sigma of that round. PlanError outside the plan: no noise was planned for it."""
        if not 1 <= round <= len(self.sigmas):
            raise PlanError("round", got=round, expected=f"1 to {len(self.sigmas)}, as planned")
        return self.sigmas[round - 1]

    def least_noise(self) -> tuple[float, str]:
        """Of the first round with the least."""
        least = min(self.sigmas)
        return least, f" of round {self.sigmas.index(least) + 1}"

    @property
    def words(self) -> str:
        """From the first round to the last."""
        return by_round_words(self.sigmas)

    def text(self, rounds: int) -> GaussianByRoundText:
        """The whole plan with the noise of every round."""
        if rounds != len(self.sigmas):
            raise PlanError("noise_multipliers", got=f"{len(self.sigmas)} of them", expected=f"{rounds}")
        return GaussianByRoundText(
            sample_rate=self.sample_rate,
            noise_multipliers=self.sigmas,
            max_grad_norm=self.max_grad_norm,
            steps=self.local_steps * rounds,
        )


KINDS: Mapping[str, type[Mechanism]] = {one.kind: one for one in (Gaussian, GaussianByRound)}


def of(
    *,
    sample_rate: float,
    max_grad_norm: float,
    local_steps: int,
    noise_multiplier: float | None,
    mechanism: AnyPlan | None,
) -> Mechanism:
    """The mechanism of a region's constants, as a plan's document has them.

    Raises:
        PlanError: no noise, or noise of two kinds.
    """
    step: dict[str, Any] = {
        "sample_rate": sample_rate,
        "max_grad_norm": max_grad_norm,
        "local_steps": local_steps,
    }
    if mechanism is None and noise_multiplier is not None:
        return Gaussian(**step, sigma=noise_multiplier)
    if mechanism is not None and noise_multiplier is None:
        return GaussianByRound(**step, sigmas=mechanism.noise_multipliers)
    raise PlanError("noise", got="no kind of noise, or two", expected="noise_multiplier or mechanism")


def gains(*, learning_rate: float, momentum: float, local_steps: int) -> np.ndarray:
    """How far each step's mean gradient moves the parameters by the round's end, (local_steps,).

    With momentum m the gradient of step t counts lr * (1 - m^(n-t)) / (1 - m).
    """
    left = np.arange(local_steps, 0, -1)
    moved: np.ndarray = learning_rate * (1 - momentum**left) / (1 - momentum)
    return moved


def _events(sample_rate: float, sigmas: Iterable[float], local_steps: int) -> tuple[Event, ...]:
    """Rounds of ``local_steps`` steps with these noise multipliers, equal ones composed."""
    return merge(
        Event(sample_rate=sample_rate, noise_multiplier=sigma, steps=local_steps * count)
        for sigma, count in Counter(sigmas).items()
    )
