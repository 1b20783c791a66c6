"""The training loss: distance along the best of K paths, plus how unlikely that path was thought."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def window_loss(paths: Tensor, scores: Tensor, future: Tensor) -> Tensor:
    """Loss of each window alone, (B,).

    Args:
        paths: (B, K, F, 2) m. scores: (B, K) logits. future: (B, F, 2) m.
    """
    # Smooth near zero, a distance further out: like the metrics, and bounded in its gradient.
    error = functional.smooth_l1_loss(paths, future.unsqueeze(1).expand_as(paths), reduction="none", beta=0.5)
    by_path = error.sum(dim=-1).mean(dim=-1)
    best = by_path.detach().argmin(dim=1)
    chosen = by_path.gather(1, best[:, None]).squeeze(1)
    return chosen + functional.cross_entropy(scores, best, reduction="none")
