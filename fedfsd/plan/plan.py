"""The plan: every number a region needs to train and an auditor needs to check, in one document.

Nothing here is derived from private data: rosters, weights, steps and noise are public constants.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from functools import cached_property
from itertools import pairwise
from math import cos, pi, prod
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError, model_validator
from pydantic_core import from_json

from fedfsd import canonical
from fedfsd.config.experiment import Mode, Options, Precision, RegionName
from fedfsd.config.load import Frozen
from fedfsd.errors import ConfigError, PlanError
from fedfsd.mechanism import influence, kind
from fedfsd.mechanism.event import Event
from fedfsd.mechanism.kind import AnyPlan, Mechanism
from fedfsd.plan import written
from fedfsd.plan.written import MOMENTS

WITNESS = "noise_witness"
CANARIES = "canary_block"
BLOCKS = (CANARIES, WITNESS)
"""Arrays that are no part of the model: no vehicle's gradient touches them."""
STATISTICS = "moments.statistics.weight"
"""The array of moments in a plan of the strategy moments."""
MAX_AXES = 16
"""Of an array: more would only make sizes that no float can hold."""
Arrays = Mapping[str, np.ndarray]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class ArraySchema(Frozen):
    """One array of the model, in the order in which it crosses."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,128}$")]
    shape: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False, max_length=MAX_AXES)]
    dtype: Literal["float32"] = "float32"

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


class BackbonePlan(Frozen):
    """What of the model is not trained: public, the same everywhere, never sent, without noise."""

    sha256: Sha256
    """Of its file of weights (``engine.backbone``)."""
    size: Annotated[int, Field(ge=0)]
    """Number of values in it."""
    source: Literal["file", "model"]
    """How a region gets it: as a file that its policy names, or from the model's own reviewed code."""


class ModelPlan(Frozen):
    """The model with its ordered array schema; the block of canaries and the noise witness block come last.

    Without a backbone ``arrays`` are all that the model has, else what is trained of it.
    """

    name: str
    options: Options
    arrays: Annotated[tuple[ArraySchema, ...], Field(strict=False)]
    witness_size: Annotated[int, Field(ge=0)]
    initial_sha256: Sha256
    backbone: BackbonePlan | None = None

    @model_validator(mode="after")
    def _witness_comes_last(self) -> ModelPlan:
        names = [array.name for array in self.arrays]
        witness = [array.shape for array in self.arrays if array.name == WITNESS]
        if len(set(names)) != len(names):
            raise ValueError("arrays of different names")
        if witness != ([(self.witness_size,)] if self.witness_size else []) or WITNESS in names[:-1]:
            raise ValueError(f"{WITNESS} last, of witness_size, and only where that is above 0")
        if CANARIES in names and names[len(names) - 1 - len(witness)] != CANARIES:
            raise ValueError(f"{CANARIES} behind the model's arrays")
        return self

    @property
    def size(self) -> int:
        """Number of elements of all arrays, both blocks included."""
        return sum(array.size for array in self.arrays)

    @property
    def own(self) -> tuple[ArraySchema, ...]:
        """The arrays that are the model's."""
        return tuple(array for array in self.arrays if array.name not in BLOCKS)

    @property
    def parameters(self) -> int:
        """Number of their elements."""
        return sum(array.size for array in self.own)

    @property
    def canaries(self) -> int:
        """Number of elements of the block of canaries."""
        return sum(array.size for array in self.arrays if array.name == CANARIES)


class TaskPlan(Frozen):
    """What is trained: the name of a task, and options that the task itself validates."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,128}$")]
    options: Options


class OptimizerPlan(Frozen):
    """Local SGD; its state starts at zero each round. Linear, so that the witness block tells the noise."""

    name: Literal["sgd"] = "sgd"
    learning_rate: Annotated[float, Field(gt=0, le=1e6)]
    momentum: Annotated[float, Field(ge=0, lt=1)]
    schedule: Literal["constant", "cosine"]

    def rate(self, round: int, num_rounds: int) -> float:
        """The learning rate of a round; by cosine it falls from the first round's to almost nothing."""
        if self.schedule == "constant":
            return self.learning_rate
        return self.learning_rate * (1 + cos(pi * (round - 1) / num_rounds)) / 2

    def reach(self, local_steps: int) -> float:
        """How far ``local_steps`` equal gradients go, in steps without momentum.

        Source: FedNova (Wang et al. 2020), the norm of the accumulation vector.
        """
        return sum((1 - self.momentum**step) / (1 - self.momentum) for step in range(1, local_steps + 1))


def influences(
    optimizer: OptimizerPlan, *, num_rounds: int, strategy: str, options: Options, average_last: float
) -> tuple[float, ...]:
    """How much each round moves the released model, as far as public constants tell.

    Of the server, FedAvg and FedAvgM are known; any other strategy counts as FedAvg.
    """
    momentum = options.get("server_momentum", 0.0) if strategy == "FedAvgM" else 0.0
    known = isinstance(momentum, int | float) and 0 <= momentum < 1
    return influence.influence(
        [optimizer.rate(number, num_rounds) for number in range(1, num_rounds + 1)],
        averaged=max(1, round(average_last * num_rounds)),
        server_momentum=momentum if known else 0.0,
    )


class RegionPlan(Frozen):
    """One region's constants. ``max_grad_norm`` is None (no clipping) in mode none only.

    Noise that is the same in every round is ``noise_multiplier``; any other kind is ``mechanism``, and then
    ``noise_multiplier`` is None.
    """

    roster: Annotated[int, Field(ge=1)]
    identity: Literal["physical", "recording"]
    sample_rate: Annotated[float, Field(gt=0, le=1)]
    noise_multiplier: Annotated[float, Field(ge=0)] | None = None
    mechanism: AnyPlan | None = None
    max_grad_norm: Annotated[float, Field(ge=1e-6)] | None
    local_steps: Annotated[int, Field(ge=1)]
    windows_per_vehicle: Annotated[int, Field(ge=1)]
    weight: Annotated[float, Field(gt=0, le=1)]
    target_delta: Annotated[float, Field(gt=0, lt=1)]
    target_epsilon: Annotated[float, Field(gt=0)] | None
    epsilon: Annotated[float, Field(ge=0)] | None
    """By PLD over the whole plan; None where nothing is promised: in a rehearsal, or without privacy."""
    rounds: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(strict=False, min_length=1)] | None = (
        None
    )
    """The rounds of the plan in which this region is asked, ascending; None: all of them.

    The region counts only these, from 1: its first round, its second, and so on. What it books, what it sends
    and its noise go by that count.
    """
    canaries: Annotated[int, Field(ge=0)] = 0
    """Synthetic vehicles beside the roster; they do not count in the divisor (``engine.canary``)."""
    packed: bool = False
    """Whether windows are packed (``engine.sampler``): less is computed for nobody, and the time of a step
    shows roughly how many windows the vehicles drawn have."""

    @model_validator(mode="after")
    def _rounds_ascend(self) -> RegionPlan:
        if self.rounds is not None and any(one >= other for one, other in pairwise(self.rounds)):
            raise ValueError("rounds in ascending order")
        return self

    @property
    def divisor(self) -> float:
        """B = q N, the public divisor of every step."""
        return self.sample_rate * self.roster

    @property
    def vehicles(self) -> int:
        """How many a step's sum may have, canaries included."""
        return self.roster + self.canaries

    @model_validator(mode="after")
    def _one_kind(self) -> RegionPlan:
        if (self.noise_multiplier is None) == (self.mechanism is None):
            raise ValueError("either noise_multiplier or mechanism")
        if self.mechanism is not None and self.max_grad_norm is None:
            raise ValueError("max_grad_norm beside mechanism")
        return self

    @property
    def noise(self) -> Mechanism | None:
        """What is done to vehicles in every round; None without privacy."""
        if self.max_grad_norm is None:
            return None
        return kind.of(
            sample_rate=self.sample_rate,
            max_grad_norm=self.max_grad_norm,
            local_steps=self.local_steps,
            noise_multiplier=self.noise_multiplier,
            mechanism=self.mechanism,
        )


class Plan(Frozen):
    """A whole run. Two sides hold the same plan exactly when ``hash`` agrees."""

    format: Literal[1, 2, 3, 4] = 1
    """How its document is written (see ``written``); by default the oldest that can hold it."""
    name: str
    run: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] = 32 * "0"
    """Tells two runs of the same constants apart: each has noise and a reservation of its own."""
    mode: Mode
    unit: Literal["vehicle"] = "vehicle"
    adjacency: Literal["zero-out"] = "zero-out"
    num_rounds: Annotated[int, Field(ge=1)]
    regions: dict[RegionName, RegionPlan]
    task: TaskPlan
    model: ModelPlan
    optimizer: OptimizerPlan
    precision: Precision = "float32"
    """What the model computes in; norms, sums and noise are never shortened."""
    seed: Annotated[int, Field(ge=0, lt=2**53)]
    strategy: str
    strategy_options: Options
    quorum: float
    late_updates: Literal["drop", "use"]
    """Whether an update that comes after its round's end still counts, with less weight."""
    average_last: float
    """The share of the rounds, at the end, over which the released model is averaged."""

    @model_validator(mode="before")
    @classmethod
    def _in_the_oldest_format(cls, given: Any) -> Any:
        if isinstance(given, dict) and "format" not in given:
            return given | {"format": written.oldest(_plain(given))}
        return given

    @model_validator(mode="after")
    def _fits_its_format(self) -> Plan:
        if self.format < written.oldest(self.model_dump(mode="json")):
            raise ValueError("a format that can hold this plan")
        return self

    @model_validator(mode="after")
    def _room_for_canaries(self) -> Plan:
        most = max((mine.canaries for mine in self.regions.values()), default=0)
        shapes = [array.shape for array in self.model.arrays if array.name == CANARIES]
        if shapes != ([(most,)] if most else []):
            raise ValueError(f"{CANARIES} with an entry for each canary of the region with most")
        if most and self.strategy == MOMENTS:
            raise ValueError(f"no canaries with the strategy {MOMENTS}")
        if any(mine.canaries and mine.noise is None for mine in self.regions.values()):
            raise ValueError("canaries only beside noise")
        return self

    @model_validator(mode="after")
    def _noise_for_every_round(self) -> Plan:
        for name, mine in self.regions.items():
            if mine.mechanism is not None and not mine.mechanism.covers(self.rounds_of(name)):
                raise ValueError("a noise multiplier for every round")
        return self

    @model_validator(mode="after")
    def _moments_are_sent(self) -> Plan:
        if (self.strategy == MOMENTS) != any(array.name == STATISTICS for array in self.model.arrays):
            raise ValueError(f"the strategy {MOMENTS} with a model that has moments, or neither")
        return self

    @model_validator(mode="after")
    def _somebody_is_asked(self) -> Plan:
        asked = [mine.rounds for mine in self.regions.values()]
        if asked and None not in asked:
            every = {number for rounds in asked for number in rounds or ()}
            if every != set(range(1, self.num_rounds + 1)):
                raise ValueError("a region in every round, and no round beyond the last")
        elif any(rounds is not None and rounds[-1] > self.num_rounds for rounds in asked):
            raise ValueError("no round beyond the last")
        return self

    def rounds_of(self, name: str, number: int | None = None) -> int:
        """How many rounds a region takes part in, by the end of the plan or of round ``number`` of it."""
        last = self.num_rounds if number is None else number
        rounds = self.region(name).rounds
        return last if rounds is None else bisect_right(rounds, last)

    def round_of(self, name: str, own: int) -> int:
        """Which round of the plan is the region's own round ``own``."""
        rounds = self.region(name).rounds
        return own if rounds is None else rounds[own - 1]

    def collects(self, number: int) -> bool:
        """Whether round ``number`` releases the moments of a least-squares head, not gradients."""
        return self.strategy == MOMENTS and number == 1

    def asked(self, number: int) -> dict[str, int]:
        """The regions that round ``number`` asks, each with which of its own rounds that is."""
        return {
            name: self.rounds_of(name, number)
            for name, mine in self.regions.items()
            if mine.rounds is None or number in mine.rounds
        }

    def learning_rate(self, round: int) -> float:
        """The learning rate of a round."""
        return self.optimizer.rate(round, self.num_rounds)

    @property
    def hash(self) -> str:
        """Hex SHA-256 of the canonical document."""
        return canonical.sha256(self.encoded)

    def region(self, name: str) -> RegionPlan:
        """The constants of one region, or PlanError."""
        try:
            return self.regions[name]
        except KeyError:
            raise PlanError(
                "regions",
                got=f"a plan without {name}",
                expected="a plan that names this region",
                hint="ask the coordinator for a plan that includes it",
            ) from None

    def scale(self, name: str) -> float:
        """What a region's update is multiplied by so that its number of steps does not weigh.

        Exactly 1 where all regions take the same steps; else the weighted mean reach of all regions over
        the region's own.
        """
        if len({mine.local_steps for mine in self.regions.values()}) == 1:
            return 1.0
        reach = {key: self.optimizer.reach(mine.local_steps) for key, mine in self.regions.items()}
        mean = sum(mine.weight * reach[key] for key, mine in self.regions.items())
        return (
            mean
            / sum(mine.weight for mine in self.regions.values())
            / self.optimizer.reach(self.region(name).local_steps)
        )

    def mechanism(self, name: str) -> Mechanism:
        """What one region does to its vehicles in every round. PlanError in mode none."""
        found = self.region(name).noise
        if found is None:
            raise PlanError("mode", got=self.mode, expected="a private plan, or a rehearsal")
        return found

    def noise_multiplier(self, name: str) -> float:
        """Of the region's round with the least noise; 0 in mode none."""
        mine = self.region(name)
        return 0.0 if mine.noise is None else mine.noise.least_noise()[0]

    def effective_noise(self, name: str) -> float:
        """The flat noise multiplier that would leave as much noise of the region in the released model."""
        mine = self.region(name)
        if mine.noise is None:
            return 0.0
        moved = influences(
            self.optimizer,
            num_rounds=self.num_rounds,
            strategy=self.strategy,
            options=self.strategy_options,
            average_last=self.average_last,
        )
        own = range(1, self.rounds_of(name) + 1)
        noise = [mine.noise.noise_multiplier(number) for number in own]
        return influence.effective(noise, [moved[self.round_of(name, number) - 1] for number in own])

    def noise_words(self, name: str) -> str:
        """The region's noise multiplier for people."""
        mine = self.region(name)
        return "none" if mine.noise is None else mine.noise.words

    def events(self, name: str, rounds: int | None = None) -> tuple[Event, ...]:
        """What one region's vehicles go through in the plan's first ``rounds`` rounds, by default in all."""
        return self.mechanism(name).events(range(1, self.rounds_of(name, rounds) + 1))

    def as_written(self) -> dict[str, Any]:
        """The document as plain values, with the fields that its format has."""
        return written.document(self.model_dump(mode="json"))

    def document(self) -> str:
        """The canonical JSON text that travels."""
        return self.encoded.decode()

    @cached_property
    def encoded(self) -> bytes:
        """The bytes of ``document``, written once: they are asked for in every round."""
        return canonical.encode(self.as_written())

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Plan:
        """As of every model; the copy is written anew."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("encoded", None)
        return copied


def _plain(given: dict[str, Any]) -> dict[str, Any]:
    """Fields that may hold models, as plain values; what is missing or wrong is for the validators."""
    task, regions, model = given.get("task"), given.get("regions"), given.get("model")
    plain = task.model_dump() if isinstance(task, TaskPlan) else task
    known = isinstance(plain, dict) and isinstance(plain.get("options"), dict)
    return {
        "task": plain if known else {"name": "", "options": {}},
        "precision": given.get("precision", written.FLOAT32),
        "strategy": given.get("strategy"),
        "model": model.model_dump()
        if isinstance(model, ModelPlan)
        else model
        if isinstance(model, dict)
        else {},
        "regions": {
            name: one.model_dump() if isinstance(one, RegionPlan) else one
            for name, one in (regions.items() if isinstance(regions, dict) else ())
            if isinstance(one, RegionPlan | dict)
        },
    }


def read(document: str) -> Plan:
    """A plan from the text a peer sent.

    Raises:
        FormatError: a newer release's plan.
        PlanError: the first thing wrong, never its value.
    """
    try:
        found = from_json(document)
        if not isinstance(found, dict):
            raise _unreadable("plan", "a JSON object")
        plan = Plan.model_validate(written.fields(found))
        canonical_text = plan.document()
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(step) for step in first["loc"]) or "plan"
        raise _unreadable(
            ascii(place).strip("'\"")[:60],
            _EXPECTED.get(first["type"], first["msg"].removeprefix("Input should be ")),
        ) from None
    except (ConfigError, ValueError, TypeError):
        raise _unreadable("plan", "numbers that canonical JSON can hold") from None
    if canonical_text != document:
        # Duplicate keys, NaN, booleans for numbers: what another reader might take for another plan.
        raise _unreadable("plan", "canonical JSON, as a coordinator sends it")
    return plan


_EXPECTED = {"missing": "a value", "model_type": "a JSON object", "dict_type": "a JSON object"}


def _unreadable(place: str, expected: str) -> PlanError:
    return PlanError(
        place,
        got="a value that is not allowed",
        expected=expected,
        hint="compare the fedfsd versions of both sides",
    )
