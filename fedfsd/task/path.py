"""What tasks share whose output is a path: its shape, how far off it is, and how it is drawn.

Shapes: W examples, B of a batch, K paths an example, F future points. All errors in metres.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from fedfsd.canvas import FAINT, INK
from fedfsd.config.load import Frozen, load, within
from fedfsd.errors import ModelError
from fedfsd.task.task import CONFIDENCE, HIT, Examples, Metric, Scores, Tensors

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MISS_M = 2.0  # an end point further off than this is a miss


class PathTask:
    """What of a ``Task`` follows from its output: paths (B, K, F, 2) m and scores (B, K)."""

    baseline: ClassVar[str]
    kind: ClassVar[type[Frozen]]
    """Of the task's options."""
    driven: ClassVar[str]
    """Of the targets: the path driven, (W, F, 2)."""
    pictured: ClassVar[str]
    """Of the inputs: what is shown beside the paths."""
    batch: ClassVar[int]
    """Examples that are forecast together."""
    quantiles: ClassVar[Sequence[float]]
    """Of the baseline's error: the examples that are shown."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        with within("task.options"):
            self._options: Any = load(self.kind, options)

    @property
    def options(self) -> dict[str, Any]:
        found: dict[str, Any] = self._options.model_dump()
        return found

    def simple(self, examples: Examples) -> np.ndarray:
        """The baseline's path of each example, (W, F, 2)."""
        raise NotImplementedError

    def measured(self, paths: np.ndarray, scores: np.ndarray, examples: Examples) -> Scores:
        """Errors of ``paths`` (W, K, F, 2) with ``scores`` (W, K)."""
        return measure(paths, scores, examples.targets[self.driven], examples.owner)

    def demand_output(self, output: Any, targets: Tensors) -> None:
        paths, scores = output
        points = tuple(targets[self.driven].shape[1:])
        if tuple(paths.shape[2:]) != points or paths.shape[:2] != scores.shape:
            raise ModelError(
                "model",
                got=f"paths {tuple(paths.shape)}, scores {tuple(scores.shape)}",
                expected=f"paths (B, K, {points[0]}, 2) and scores (B, K)",
                hint="see the models of fedfsd.task",
            )

    def scores(self, model: nn.Module, examples: Examples) -> Scores:
        return self.measured(*self.forecast(model, examples), examples)

    def baseline_scores(self, examples: Examples) -> Scores:
        paths = self.simple(examples)[:, None]
        return self.measured(paths, np.zeros((len(paths), 1)), examples)

    def forecast(self, model: nn.Module, examples: Examples) -> tuple[np.ndarray, np.ndarray]:
        """Paths (W, K, F, 2) and scores (W, K) of ``model``."""
        inputs = (torch.from_numpy(array).split(self.batch) for array in examples.inputs.values())
        with torch.inference_mode():
            parts = [model(*part) for part in zip(*inputs, strict=True)]
        paths, scores = (torch.cat(part).numpy() for part in zip(*parts, strict=True))
        return paths, scores

    def showcase(self, model: nn.Module, examples: Examples) -> dict[str, np.ndarray]:
        if not len(examples):
            return {}
        off = np.linalg.norm(self.simple(examples) - examples.targets[self.driven], axis=-1)[:, -1]
        rows = np.argsort(off)[[int(quantile * (len(off) - 1)) for quantile in self.quantiles]]
        chosen = Examples(
            examples.vehicles,
            examples.owner[rows],
            {name: array[rows] for name, array in examples.inputs.items()},
            {name: array[rows] for name, array in examples.targets.items()},
        )
        return {
            self.pictured: chosen.inputs[self.pictured],
            self.driven: chosen.targets[self.driven],
            "paths": self.forecast(model, chosen)[0],
            self.baseline.replace(" ", "_"): self.simple(chosen),
        }


def best_of(by_path: Tensor, scores: Tensor) -> Tensor:
    """The loss (B,) of the best of K paths with losses (B, K), and how unlikely it was thought."""
    best = by_path.detach().argmin(dim=1)
    chosen = by_path.gather(1, best[:, None]).squeeze(1)
    return chosen + functional.cross_entropy(scores, best, reduction="none")


def metrics(future_seconds: float) -> tuple[Metric, ...]:
    """What is measured of forecasts that end after ``future_seconds``."""
    return (
        Metric("fde_m", "FDE", "m", f"the distance between forecast and truth after {future_seconds:g} s"),
        Metric("ade_m", "ADE", "m", "the mean distance on the way"),
        Metric("min_ade_k_m", "minADE of k", "m", "the ADE of the best of the model's paths"),
        Metric("min_fde_k_m", "minFDE of k", "m", "the FDE of the best of the model's paths"),
        Metric("miss_rate", "missed", "%", f"the share whose best path ends more than {MISS_M:g} m off"),
    )


def measure(paths: np.ndarray, scores: np.ndarray, future: np.ndarray, owner: np.ndarray) -> Scores:
    """Errors of ``paths`` (W, K, F, 2) with ``scores`` (W, K) against ``future`` (W, F, 2).

    ADE and FDE are of the likeliest path, the others of the best of K. Of several paths also how likely the
    likeliest was thought, and whether it was the best.
    """
    distance = np.linalg.norm(paths - future[:, None], axis=-1)  # (W, K, F)
    average, final = distance.mean(axis=2), distance[:, :, -1]
    likeliest = scores.argmax(axis=1)
    row = np.arange(len(paths))
    thought = {}
    if scores.shape[1] > 1:
        chance = np.exp(scores - scores.max(axis=1, keepdims=True))
        thought = {
            CONFIDENCE: 1 / chance.sum(axis=1),  # the likeliest's own is exp(0)
            HIT: likeliest == final.argmin(axis=1),
        }
    return Scores(
        {
            **thought,
            "fde_m": final[row, likeliest],
            "ade_m": average[row, likeliest],
            "min_ade_k_m": average.min(axis=1),
            "min_fde_k_m": final.min(axis=1),
            # A forecast that is not a number is a miss too: its comparisons are false.
            "miss_rate": ~(final.min(axis=1) <= MISS_M),
        },
        owner,
    )


def single(paths: np.ndarray, future: np.ndarray, owner: np.ndarray) -> Scores:
    """Errors of one path an example, (W, F, 2)."""
    return measure(paths[:, None], np.zeros((len(paths), 1)), future, owner)


LINES: Mapping[str, dict[str, Any]] = {  # the markers stand where a path ends
    "the path driven": {
        "color": INK,
        "linewidth": 4.5,
        "alpha": 0.35,
        "solid_capstyle": "round",
        "marker": "o",
        "markersize": 8,
        "markevery": [-1],
    },
    "forecast, in the region's colour": {
        "color": INK,
        "linewidth": 2.2,
        "marker": "o",
        "markersize": 5,
        "markevery": [-1],
    },
    "without learning": {
        "color": FAINT,
        "linewidth": 1.6,
        "linestyle": (0, (2, 2)),
        "marker": "x",
        "markersize": 5,
        "markevery": [-1],
    },
}
"""What is drawn of an example, with its look."""


def upwards(points: np.ndarray) -> np.ndarray:
    """Points (..., 2) of the car's axes (x forward, y left) as they are drawn, driving upwards."""
    return np.stack([-points[..., 1], points[..., 0]], axis=-1)


def draw(axes: Axes, driven: np.ndarray, guesses: np.ndarray, simple: np.ndarray, *, colour: str) -> str:
    """The path driven (F, 2), the forecasts (K, F, 2) and the baseline's path (F, 2), from where the car is.

    Returns:
        how far off the best forecast ends, for a note.
    """
    looks = list(LINES.values())
    for points, look in [
        (simple, looks[2]),
        (driven, looks[0]),
        *((guess, looks[1] | {"color": colour}) for guess in guesses),
    ]:
        axes.plot(*upwards(np.vstack([np.zeros(2), points])).T, **look)
    return f"{np.linalg.norm(guesses[:, -1] - driven[-1], axis=-1).min():.1f} m off"
