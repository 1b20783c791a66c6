"""Forecasts without learning, which every table of results stands beside.

history (W, H, 2) -> paths (W, F, 2), m, agent frame.
"""

from __future__ import annotations

import numpy as np


def last_step(history: np.ndarray, future: int) -> np.ndarray:
    """Constant velocity: the last step goes on."""
    return _along(history, history[:, -1] - history[:, -2], future)


def mean_of_two_steps(history: np.ndarray, future: int) -> np.ndarray:
    """Constant velocity: the mean of the last two steps (1 s at 2 Hz) goes on."""
    return _along(history, (history[:, -1] - history[:, -3]) / 2, future)


def constant_turn(history: np.ndarray, future: int) -> np.ndarray:
    """Speed of the last step, turning on at the mean rate of the history's last two turns."""
    steps = np.diff(history, axis=1)
    heading = np.unwrap(np.arctan2(steps[..., 1], steps[..., 0]), axis=1)
    rate = (heading[:, -1] - heading[:, -3]) / 2
    # A vehicle that hardly moves has no heading to turn.
    rate = np.where(np.linalg.norm(steps, axis=2).min(axis=1) < 0.5, 0.0, np.clip(rate, -0.5, 0.5))
    speed = np.linalg.norm(steps[:, -1], axis=1)
    angle = heading[:, -1:] + rate[:, None] * np.arange(1, future + 1)
    moves = speed[:, None, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    return history[:, -1:] + np.cumsum(moves, axis=1)


PREDICTORS = {"last step": last_step, "1 s mean": mean_of_two_steps, "constant turn": constant_turn}


def _along(history: np.ndarray, step: np.ndarray, future: int) -> np.ndarray:
    return history[:, -1:] + step[:, None] * np.arange(1, future + 1)[:, None]
