"""Lower bounds on epsilon from one run with many canaries, each with its confidence.

Of m canaries each was in or out by a fair coin of its own. Whoever guesses the coins better than a mechanism
of some epsilon allows has shown that its epsilon is larger.

- ``one_run``: Steinke, Nasr, Jagielski 2023, theorem 5.2. Any mechanism; loose.
- ``one_run_f``: Mahloujifar, Melis, Chaudhuri 2025, algorithm 3, against a whole trade-off curve.
- ``gaussian_pair``: Andrew et al. 2023: scores in and out as two Gaussians of one width, which is what
  canaries orthogonal to each other see of a Gaussian mechanism. Asymptotic: its confidence is nominal, and it
  is computed at half of the error.

>>> round(one_run(1000, guesses=100, correct=95, delta=1e-5), 2)
2.17
>>> round(one_run_f(1000, guesses=100, correct=95, delta=1e-5), 2)
3.32
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import exp, inf, lgamma, log, log1p, pi, sqrt
from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
SHARES = (0.05, 0.1, 0.2)
"""Of the canaries, how many are guessed; fixed in advance, and each has a third of the error."""
LEAST = 100
"""Canaries below which no bound is computed."""
MOST_EPSILON = 50.0
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Bounds:
    """What one run shows of epsilon at ``delta``; every bound alone has ``confidence``."""

    canaries: int
    delta: float
    confidence: float
    one_run: float
    one_run_f: float
    gaussian_pair: float


def bounds(
    inside: np.ndarray, outside: np.ndarray, *, delta: float, confidence: float = CONFIDENCE
) -> Bounds:
    """All bounds from the scores of canaries that were in and of those that were out, (n,) each."""
    scores = np.concatenate([inside, outside])
    was_in = np.concatenate([np.ones(len(inside), bool), np.zeros(len(outside), bool)])
    order = np.argsort(scores, kind="stable")
    count = len(scores)
    error = (1 - confidence) / len(SHARES)
    plain = curve = 0.0
    for share in SHARES:
        half = max(1, round(share * count / 2))
        correct = int(was_in[order[-half:]].sum() + (~was_in[order[:half]]).sum())
        plain = max(plain, one_run(count, guesses=2 * half, correct=correct, delta=delta, error=error))
        curve = max(curve, one_run_f(count, guesses=2 * half, correct=correct, delta=delta, error=error))
    pair = gaussian_pair(inside, outside, delta=delta, error=(1 - confidence) / 2)
    return Bounds(count, delta, confidence, plain, curve, pair)


def bounds_of(inside: np.ndarray, outside: np.ndarray, *, delta: float) -> Bounds | None:
    """The same; None with too few canaries."""
    enough = len(inside) + len(outside) >= LEAST and len(inside) > 1 and len(outside) > 1
    return bounds(inside, outside, delta=delta) if enough else None


def one_run(
    canaries: int, *, guesses: int, correct: int, delta: float, error: float = 1 - CONFIDENCE
) -> float:
    """The largest epsilon that so many correct guesses rule out, at a probability of error."""

    def possible(epsilon: float) -> float:
        rate = 1 / (1 + exp(-epsilon))
        tails = np.cumsum(binomial(guesses, rate)[::-1])[::-1]  # P[Bin >= i]
        best = float(tails[correct])
        back = np.arange(1, correct + 1)
        slack = (tails[correct - back] - best) / back
        return best + 2 * canaries * delta * float(np.max(slack, initial=0.0))

    return _largest(lambda epsilon: possible(epsilon) < error)


def one_run_f(
    canaries: int, *, guesses: int, correct: int, delta: float, error: float = 1 - CONFIDENCE
) -> float:
    """The same against Gaussian trade-off curves; in epsilon at ``delta``."""
    mu = _largest(lambda mu: rejected(canaries, guesses, correct, gaussian_curve(mu), error=error), top=20.0)
    return epsilon_of(mu, delta)


def rejected(
    canaries: int,
    guesses: int,
    correct: int,
    curve: Callable[[float], float],
    *,
    error: float = 1 - CONFIDENCE,
) -> bool:
    """Whether a mechanism with a trade-off curve f guesses so well with a probability below ``error``.

    Args:
        curve: x -> f(1 - x), on [0, 1].
    """
    unit = error * guesses / canaries
    known, beyond = unit * correct / guesses, unit * (guesses - correct) / guesses
    for number in range(correct - 1, -1, -1):
        further = max(beyond, curve(min(1.0, known)))
        known += number / (guesses - number) * (further - beyond)
        beyond = further
        if known + beyond > guesses / canaries:
            return True
    return known + beyond > guesses / canaries


def gaussian_curve(mu: float) -> Callable[[float], float]:
    """x -> f(1 - x) of a Gaussian mechanism whose two outputs are ``mu`` standard deviations apart."""

    def curve(x: float) -> float:
        return 0.0 if x <= 0 else 1.0 if x >= 1 else _NORMAL.cdf(_NORMAL.inv_cdf(x) - mu)

    return curve


def curve_of(points: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    """x -> f(1 - x) of a mechanism that is (epsilon, delta) private at all of these points."""

    def curve(x: float) -> float:
        found = 0.0
        for epsilon, delta in points:
            found = max(found, 1 - delta - exp(epsilon) * (1 - x), exp(-epsilon) * (x - delta))
        return min(found, x)

    return curve


def gaussian_pair(
    inside: np.ndarray, outside: np.ndarray, *, delta: float, error: float = 1 - CONFIDENCE
) -> float:
    """Epsilon at ``delta`` of the least distance between two Gaussians that these scores allow."""
    ones, zeros = len(inside), len(outside)
    free = ones + zeros - 2
    spread = sqrt((float(np.var(inside)) * ones + float(np.var(outside)) * zeros) / max(1, free))
    if not spread:
        return inf if float(np.mean(inside)) > float(np.mean(outside)) else 0.0
    mu = (float(np.mean(inside)) - float(np.mean(outside))) / spread
    deviation = sqrt(1 / ones + 1 / zeros + mu * mu / (2 * free))
    return epsilon_of(max(0.0, mu - _NORMAL.inv_cdf(1 - error) * deviation), delta)


def epsilon_of(mu: float, delta: float) -> float:
    """Epsilon of a Gaussian mechanism at ``delta`` (Balle and Wang 2018)."""
    return _largest(lambda epsilon: delta_of(mu, epsilon) > delta, top=1e4) if mu > 0 else 0.0


def delta_of(mu: float, epsilon: float) -> float:
    """Delta of a Gaussian mechanism at ``epsilon``."""
    first = _NORMAL.cdf(-epsilon / mu + mu / 2)
    tail = _log_cdf(-epsilon / mu - mu / 2)
    return max(0.0, first - exp(min(700.0, epsilon + tail)))


def binomial(trials: int, rate: float) -> np.ndarray:
    """Probabilities of 0 to ``trials`` hits, (trials + 1,)."""
    number = np.arange(trials + 1)
    ways = lgamma(trials + 1) - np.array([lgamma(n + 1) + lgamma(trials - n + 1) for n in number])
    miss = log1p(-rate) if rate < 1 else -inf
    with np.errstate(invalid="ignore"):
        logs = ways + number * log(rate) + np.where(number == trials, 0.0, (trials - number) * miss)
    found: np.ndarray = np.exp(logs)
    return found


def _largest(holds: Callable[[float], bool], *, top: float = MOST_EPSILON) -> float:
    """The end of the interval from 0 on in which ``holds``; 0 where it does not begin."""
    if not holds(1e-9):
        return 0.0
    low, high = 0.0, top
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def _log_cdf(x: float) -> float:
    """Also far below zero, where the probability itself is no float: Laplace's continued fraction."""
    if x > -8:
        return log(_NORMAL.cdf(x))
    rest = 0.0
    for number in range(60, 0, -1):
        rest = number / (rest - x)
    return -x * x / 2 - log(rest - x) - log(2 * pi) / 2
