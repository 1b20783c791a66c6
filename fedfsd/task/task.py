"""What a task is: all that the rest of the house asks of whatever is trained.

Everything outside a task's own room sees vehicles, named arrays and figures by key; metres, paths and
pixels stay inside. A task is built from its options (``registry.of``) and named in the plan.

Shapes: W examples, B of them in a batch, V vehicles, k examples of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import numpy as np

if TYPE_CHECKING:  # what only reads a task's figures needs no torch
    from torch import Generator, Tensor, nn

    from fedfsd.drive.table import Table
    from fedfsd.gate.policy import ModelPin

Tensors = dict[str, "Tensor"]
"""Named arrays with one row an example."""


@dataclass(frozen=True)
class Examples:
    """The examples of an ordered list of vehicles, those without any included."""

    vehicles: tuple[str, ...]
    owner: np.ndarray
    """(W,) int64, the index into ``vehicles`` of each example's vehicle, ascending."""
    inputs: dict[str, np.ndarray]
    """(W, ...) each, in the order in which the model takes them."""
    targets: dict[str, np.ndarray]
    """(W, ...) each, for the loss and the metrics."""
    dropped: Mapping[str, np.ndarray] = field(default_factory=dict)
    """How much of each vehicle was no example, (V,) int64 by reason in the task's words, such as ``windows
    that jump``. A task may give none."""

    def __len__(self) -> int:
        return len(self.owner)


@dataclass(frozen=True)
class Metric:
    """One figure that a task measures."""

    key: str
    """In metrics.json and everywhere a machine reads, such as ``fde_m``."""
    name: str
    """For people, such as FDE."""
    unit: str
    """Behind the figure; ``%`` where it is a share, from 0 to 1."""
    meaning: str = ""
    """Half a sentence for the report: what ``name`` is."""
    lower_is_better: bool = True


@dataclass(frozen=True)
class Scores:
    """One figure an example, by metric key; with no example all of them are empty."""

    values: dict[str, np.ndarray]  # (W,) each
    owner: np.ndarray  # (W,) the vehicle of each

    def __len__(self) -> int:
        return len(self.owner)


class Task(Protocol):
    """One task with its options."""

    name: ClassVar[str]
    baseline: ClassVar[str]
    """What needs no learning and stands beside every result, in words, such as ``constant velocity``."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        """Raises ConfigError for options that the task does not know."""

    @property
    def metrics(self) -> Sequence[Metric]:
        """The headline first: what progress, curves and comparisons show."""

    @property
    def options(self) -> dict[str, Any]:
        """Every option with its value, as plain values: what the plan says."""

    def tables(self, path: str) -> tuple[Table, ...]:
        """The tables behind ``data.path``. DataError where there are none.

        A task that can read one region's rows alone also has ``region_tables``: see ``gather.tables_of``.
        """

    def examples(self, tables: Sequence[Table], *, test: bool) -> Examples:
        """All examples of the test (or training) vehicles, vehicles in key order.

        Those of a vehicle depend on its own rows alone. A vehicle on whose rows this fails has none.
        """

    def model(
        self, name: str, options: Mapping[str, Any], *, seed: int, reviewed: ModelPin | None = None
    ) -> nn.Module:
        """A model that takes the inputs in order, each row of a batch alone, initialised from ``seed``.

        It may declare ``parts``: for words that an experiment writes in ``model.trainable``, such as "head",
        patterns of parameter names. And it may declare where a frozen trunk ends, so that its features are
        computed once: ``head(*trunk(*inputs))`` is then the whole model.

        Args:
            reviewed: what a model of another package must be; without it, what is installed is believed.

        Raises:
            ConfigError: no such model, or options it does not know.
            RefusedError: not the reviewed model.
        """

    def demand_output(self, output: Any, targets: Tensors) -> None:
        """ModelError where a model's output for a batch has another shape than the task wants."""

    def loss(self, output: Any, targets: Tensors) -> Tensor:
        """The training loss of each example alone, (B,)."""

    def synthetic(self, random: Generator) -> tuple[Tensors, Tensors]:
        """Made-up inputs and targets (V, k, ...) of a few vehicles that the probe tries a model on.

        The first two are usual ones, the others extreme: all zero, huge, not a number.
        """

    def public_batches(
        self,
        tables: Sequence[Table],
        augmentation: Mapping[str, Any],
        *,
        batch_size: int,
        random: np.random.Generator,
    ) -> Iterator[tuple[Tensors, Tensors]]:
        """Batches of public examples without end, each seen anew, for pre-training.

        Raises:
            ConfigError: an augmentation option that the task does not know.
            DataError: no example in the tables.
        """

    def scores(self, model: nn.Module, examples: Examples) -> Scores:
        """The metrics of ``model`` on each example.

        A task that knows kinds of examples also has ``kinds(examples)``: by name which are of that kind,
        (W,) bool, by public thresholds. Figures are then told by kind, too.
        """

    def baseline_scores(self, examples: Examples) -> Scores:
        """The metrics of what needs no learning."""

    def showcase(self, model: nn.Module, examples: Examples) -> dict[str, np.ndarray]:
        """A few examples with what the model makes of them, for ``picture``; empty where there are none."""

    def picture(
        self, shown: Mapping[str, Mapping[str, np.ndarray]], colours: Mapping[str, str], *, heading: str
    ) -> str:
        """The showcases of some regions as one SVG, through ``fedfsd.canvas``."""

    def caption(self, *, real: bool) -> str:
        """What the picture shows; ``real``: of the coordinator's own table."""


def headline(task: Task) -> Metric:
    """The figure by which runs are watched and compared."""
    return task.metrics[0]


def key_of(prefix: str, metric: Metric) -> str:
    """The key of a metric's figure for a baseline or a start: ``constant_velocity_fde_m``."""
    return f"{prefix.replace(' ', '_')}_{metric.key}"


CONFIDENCE, HIT = "confidence", "hit"
"""Scores of a task that gives several answers: how likely the likeliest was thought, from 0 to 1, and whether
it was the best. They are reported by kind of example, with how far apart they are (``score.calibration``)."""
START, STAYS_HOME, ALONE = "start", "stays home", "alone"
"""What stands beside a result, with the task's baseline: the model before the first round; the model trained
on by a region for itself; the start trained in the same way, without the federation."""


def described(task: Task) -> dict[str, Any]:
    """What metrics.json and comparisons say of the task, for machines that read them."""
    first = headline(task)
    return {
        "name": task.name,
        "headline": {
            "key": first.key,
            "name": first.name,
            "unit": first.unit,
            "lower_is_better": first.lower_is_better,
        },
        "baseline": task.baseline,
    }
