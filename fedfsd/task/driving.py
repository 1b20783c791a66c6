"""What kind of driving an example is, from the path driven alone: to tell where forecasts are good.

The thresholds are public constants, the same everywhere and chosen on no data. Kinds may overlap; what is
none of the others is ``straight``. Shapes: W examples, H history points, F future points.

| kind | what is driven from the present to the end of the path | source |
|---|---|---|
| turning | the heading changes by 30 degrees or more | Waymo Open Dataset, motion metrics, straight or turn |
| lane change | less than that, but 1.75 m or more to the side: half a lane | a usual lane of 3.5 m |
| braking | the speed falls by 1.67 m/s^2 or more, on average | Treiber, Hennecke, Helbing 2000: comfortable |
| standing start | from below 2 m/s to 2 m/s or more | Waymo Open Dataset, motion metrics, stationary |
| straight | none of these | |

A gentle bend counts as a lane change: without a map the two are alike.
"""

from __future__ import annotations

import numpy as np

TURN_RAD = np.pi / 6
SIDE_M = 1.75
BRAKING_M_S2 = 1.67
STANDING_M_S = 2.0
FAST_M_S = (5.0, 10.0, 15.0)
"""Where bands of speed at present end: 18, 36 and 54 km/h."""
_HEADED_M = 0.5  # a step that is shorter has no heading


def kinds(history: np.ndarray, future: np.ndarray, period_seconds: float) -> dict[str, np.ndarray]:
    """By name which examples are of a kind or in a band of speed, (W,) bool each; a name for all W alike.

    Args:
        history: (W, H, 2) m, the present last. future: (W, F, 2) m, in the same axes.
    """
    steps = np.diff(np.concatenate([history[:, -2:], future], axis=1), axis=1)  # (W, 1 + F, 2)
    length = np.linalg.norm(steps, axis=2)
    speed = length / period_seconds
    seconds = period_seconds * future.shape[1]
    turn, side = _turn(steps, length), _side(history, future, length)
    turning = np.abs(turn) >= TURN_RAD
    found = {
        "turning": turning,
        "lane change": ~turning & (np.abs(side) >= SIDE_M),
        "braking": speed[:, -1] - speed[:, 0] <= -BRAKING_M_S2 * seconds,
        "standing start": (speed[:, 0] < STANDING_M_S) & (speed[:, -1] >= STANDING_M_S),
    }
    rest = ~np.logical_or.reduce(list(found.values()))
    band = np.digitize(speed[:, 0], FAST_M_S)
    low = (0.0, *FAST_M_S)
    bands = {f"{low[number]:g} to {high:g} m/s": band == number for number, high in enumerate(FAST_M_S)} | {
        f"{FAST_M_S[-1]:g} m/s or more": band == len(FAST_M_S)
    }
    return {**found, "straight": rest, **bands}


def _turn(steps: np.ndarray, length: np.ndarray) -> np.ndarray:
    """From the first heading to the last, (W,) rad; 0 where fewer than two steps have one."""
    headed = length >= _HEADED_M
    first, last = headed.argmax(axis=1), headed.shape[1] - 1 - headed[:, ::-1].argmax(axis=1)
    row = np.arange(len(steps))
    begin, end = steps[row, first], steps[row, last]
    cross = begin[:, 0] * end[:, 1] - begin[:, 1] * end[:, 0]
    turned = np.arctan2(cross, (begin * end).sum(axis=1))
    return np.where(headed.sum(axis=1) < 2, 0.0, turned)


def _side(history: np.ndarray, future: np.ndarray, length: np.ndarray) -> np.ndarray:
    """How far the end lies to the left of the heading at present, (W,) m; 0 without a heading."""
    ahead, way = history[:, -1] - history[:, -2], future[:, -1] - history[:, -1]
    cross = ahead[:, 0] * way[:, 1] - ahead[:, 1] * way[:, 0]
    return np.where(length[:, 0] >= _HEADED_M, cross / np.maximum(length[:, 0], _HEADED_M), 0.0)
