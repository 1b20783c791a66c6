"""The training loss against a slow reference, and what bounds its gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedfsd.task.forecasting.loss import SOFTNESS_M, window_loss


def drawn(seed: int, *, windows: int = 4, modes: int = 3, points: int = 5, scale: float = 10.0):
    """paths (B, K, F, 2), scores (B, K), future (B, F, 2), float64."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (windows, modes, points, 2), (windows, modes), (windows, points, 2)
    paths, scores, future = (torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes)
    return scale * paths, scores, scale * future


def slow(paths: list, scores: list, future: list) -> float:
    """The loss of one window by its definition, in plain Python."""
    ways = []
    for path in paths:
        total = 0.0
        for (x, y), (u, v) in zip(path, future, strict=True):
            total += math.sqrt((x - u) ** 2 + (y - v) ** 2 + SOFTNESS_M**2)
        ways.append(total / len(future))
    best = ways.index(min(ways))
    normaliser = math.log(sum(math.exp(score) for score in scores))
    return ways[best] + normaliser - scores[best]


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 6), st.integers(1, 8), st.floats(0.01, 100))
def test_equals_the_definition(seed, modes, points, scale):
    paths, scores, future = drawn(seed, modes=modes, points=points, scale=scale)
    found = window_loss(paths, scores, future)
    assert found.shape == (4,)
    for row in range(4):
        expected = slow(paths[row].tolist(), scores[row].tolist(), future[row].tolist())
        assert found[row].item() == pytest.approx(expected, rel=1e-9)


def test_by_hand():
    # Offsets 3-4-5 and nothing: sqrt(25 + s^2) and s in the mean; two equal scores cost log 2.
    paths = torch.tensor([[[[3.0, 4.0], [1.0, 1.0]], [[90.0, 0.0], [90.0, 0.0]]]])
    future = torch.tensor([[[0.0, 0.0], [1.0, 1.0]]])
    expected = (math.sqrt(25 + SOFTNESS_M**2) + SOFTNESS_M) / 2 + math.log(2)
    assert window_loss(paths, torch.zeros(1, 2), future).item() == pytest.approx(expected, rel=1e-6)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.sampled_from([1e-6, 1.0, 1e4, 1e12]))
def test_one_window_pulls_no_harder_however_far_off(seed, scale):
    paths, scores, future = drawn(seed, scale=scale)
    paths.requires_grad_()
    scores.requires_grad_()
    window_loss(paths, scores, future).sum().backward()
    assert paths.grad.isfinite().all()
    points = paths.shape[2]
    assert (paths.grad.norm(dim=3) <= 1 / points + 1e-12).all()
    assert (scores.grad.norm(dim=1) <= math.sqrt(2)).all()


@settings(deadline=None)
@given(st.integers(0, 2**31))
def test_only_the_best_path_is_trained_and_only_it_gains_likelihood(seed):
    paths, scores, future = drawn(seed)
    paths.requires_grad_()
    scores.requires_grad_()
    window_loss(paths, scores, future).sum().backward()
    off = (paths - future[:, None]).square().sum(3).add(SOFTNESS_M**2).sqrt().mean(2)
    best = off.argmin(dim=1)
    moved = paths.grad.abs().amax(dim=(2, 3)) > 0
    assert torch.equal(moved, torch.nn.functional.one_hot(best, 3).bool())
    assert torch.equal(scores.grad < 0, moved)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(0, 3))
def test_each_window_counts_alone(seed, row):
    paths, scores, future = drawn(seed)
    together = window_loss(paths, scores, future)
    alone = window_loss(paths[row : row + 1], scores[row : row + 1], future[row : row + 1])
    torch.testing.assert_close(alone[0], together[row])


def test_a_perfect_forecast_is_left_alone():
    _, scores, future = drawn(0)
    paths = future[:, None].repeat(1, 3, 1, 1).requires_grad_()
    window_loss(paths, scores, future).sum().backward()
    assert (paths.grad == 0).all()


def test_one_mode_has_no_likelihood_to_learn():
    paths, _, future = drawn(0, modes=1)
    scores = torch.zeros(4, 1, dtype=torch.float64, requires_grad=True)
    window_loss(paths, scores, future).sum().backward()
    assert (scores.grad == 0).all()
