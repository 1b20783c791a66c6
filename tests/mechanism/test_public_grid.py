"""The public grid on which a step's sum and noise are added, and what it takes off the clipping norm."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from engine import slow_stream
from hypothesis import given
from hypothesis import strategies as st

from fedfsd.errors import PlanError
from fedfsd.mechanism.kind import Gaussian

STEP = {"sample_rate": 1.0, "local_steps": 1}


class Silence:
    """No noise."""

    def whole(self, count: int, _: float, /) -> np.ndarray:
        return np.zeros(count)


@pytest.mark.parametrize("size", [1, 100, 10_000])
@pytest.mark.parametrize("sigma", [0.5, 3.0, 4000.0])
def test_rounding_at_its_worst_stays_within_the_clip(size, sigma):
    """Every coordinate is just below a boundary, and one vehicle takes each as far past it as it can."""
    mechanism = Gaussian(sample_rate=1.0, max_grad_norm=1.0, local_steps=1, sigma=sigma)
    unit = mechanism.grid(1, size=size)

    def moved(norm: float) -> float:
        steps = np.floor(norm / np.sqrt(size) / unit * (1 - 1e-9))
        before = np.full(size, unit * (0.5 - 2**-20))
        after = before + unit * (steps + 2**-10)
        assert np.linalg.norm(after - before) <= norm * (1 + 1e-3 / max(steps, 1))
        rounded = [mechanism.noised(total, Silence(), round=1) for total in (before, after)]
        return float(np.linalg.norm(rounded[1] - rounded[0]))

    assert moved(mechanism.clipping_norm(1, roster=1000, size=size)) <= 1.0
    assert size == 1 or moved(1.0) > 1.0  # so clipping to C itself would not do


@given(
    sigma=st.floats(1e-6, 1e6),
    clip=st.floats(1e-6, 1e6),
    size=st.integers(1, 10**9),
    roster=st.integers(1, 10**6),
)
def test_the_grid_is_a_power_of_two_far_below_the_noise(sigma, clip, size, roster):
    mechanism = Gaussian(sample_rate=1.0, max_grad_norm=clip, local_steps=1, sigma=sigma)
    unit = mechanism.grid(1, size=size)
    assert np.frexp(unit)[0] == 0.5
    assert unit <= 2**-20 * sigma * clip
    assert unit == pytest.approx(slow_stream.grid(sigma * clip, clip, size), rel=0.5)
    norm = mechanism.clipping_norm(1, roster=roster, size=size)
    assert 0.998 * clip < norm < clip
    assert norm + unit * np.sqrt(size) < clip


def test_what_no_float_can_count_is_no_mechanism():
    step = {"sample_rate": 1.0, "local_steps": 1}
    with pytest.raises(PlanError, match="noise too small"):
        Gaussian(**step, max_grad_norm=1e-6, sigma=1e-300).grid(1, size=5)
    with pytest.raises(PlanError, match="fewer vehicles"):
        Gaussian(**step, max_grad_norm=1.0, sigma=1.0).clipping_norm(1, roster=10**9, size=5)
    with pytest.raises(PlanError, match="noise too small"):
        Gaussian(**step, max_grad_norm=5e-324, sigma=1.0).grid(1, size=5)


@pytest.mark.parametrize(
    ("sigma", "clip", "size", "power"),
    [
        (1.0, 1.0, 1, -20),  # of the noise
        (1.0, 4.0, 1, -18),
        (4000.0, 1.0, 4, -12),  # of the clip, in many numbers
        (4000.0, 1.0, 10_000, -18),
        (0.0, 1.0, 1, -11),  # no noise, no promise
        (2.0**-40, 2.0**-900, 1, -960),  # the smallest
    ],
)
def test_the_grid_by_hand(sigma, clip, size, power):
    assert Gaussian(**STEP, max_grad_norm=clip, sigma=sigma).grid(1, size=size) == 2.0**power


def test_a_grid_below_the_smallest_is_refused():
    with pytest.raises(PlanError, match="noise too small"):
        Gaussian(**STEP, max_grad_norm=2.0**-900, sigma=2.0**-41).grid(1, size=1)


def test_what_is_taken_off_by_hand():
    """A unit of the grid; then what float64 rounds: two times 2^20 vehicles, the norm and the projection."""
    norm = Gaussian(**STEP, max_grad_norm=1.0, sigma=1.0).clipping_norm(1, roster=2**20, size=1)
    taken = Fraction(1, 2**20) + Fraction(4 * 2**40 + 64 * 2**20 + 5, 2**52)
    assert float(1 - taken) == pytest.approx(norm, abs=2**-52)
    half = Gaussian(**STEP, max_grad_norm=0.5, sigma=1.0).clipping_norm(1, roster=2**20, size=1)
    assert half == pytest.approx(norm / 2, abs=2**-52)
