"""A few images of each region, drawn as lines: pages of fedfsd show no bitmaps."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from fedfsd.canvas import FAINT, INK, as_svg, note, style


def lines(shown: Mapping[str, Mapping[str, np.ndarray]], colours: Mapping[str, str], *, heading: str) -> str:
    """The brightest pixel of each row, driving upwards; above it what the model tells, and the truth.

    ``shown`` has for each region image (n, P, P), curvature (n,) and told (n,) in 1/km.
    """
    across = max((len(arrays["image"]) for arrays in shown.values()), default=1)
    with style() as figure_of:
        figure = figure_of(10, 2.6 * max(1, len(shown)) + 0.3, heading)
        for row, (region, arrays) in enumerate(shown.items()):
            for column, (image, truth, told) in enumerate(
                zip(arrays["image"], arrays["curvature"], arrays["told"], strict=True)
            ):
                axes = figure.add_subplot(len(shown), across, row * across + column + 1)
                axes.plot(image.argmax(axis=1), np.arange(len(image)), "o", color=colours[region])
                axes.set(xlim=(-1, image.shape[1]), xticks=[], yticks=[])
                note(axes, f"{told:+.1f} 1/km", (0, 1), (0, 14), xycoords="axes fraction", color=INK)
                note(axes, f"true {truth:+.1f}", (0, 1), (0, 2), xycoords="axes fraction", color=FAINT)
                if column == 0:
                    axes.set_title(region, pad=32, color=colours[region])
        return as_svg(figure)
