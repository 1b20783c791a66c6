"""The training loss: how far the best of K paths is off, plus how unlikely that path was thought."""

from __future__ import annotations

from torch import Tensor

from fedfsd.task.path import best_of

SOFTNESS_M = 1.0  # below this the loss flattens: clean tracks would otherwise rule the gradient


def window_loss(paths: Tensor, scores: Tensor, future: Tensor) -> Tensor:
    """Loss of each window alone, (B,): a distance like the metrics, bounded in its gradient.

    Args:
        paths: (B, K, F, 2) m. scores: (B, K) logits. future: (B, F, 2) m.
    """
    error = (paths - future.unsqueeze(1)).square().sum(dim=-1)
    by_path = (error + SOFTNESS_M**2).sqrt().mean(dim=-1)
    return best_of(by_path, scores)
