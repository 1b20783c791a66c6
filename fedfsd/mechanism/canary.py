"""What canaries show of a mechanism: their coins and what was released of their block, against the plan.

A canary that is in is drawn in each step with probability q and then moves its own entry by C; noise is all
that moves the entry of one that is out, or whose gradient is not finite. So everything is known of what an
entry should be but draws and noise. ``seen`` (T, m) holds the entries of some rounds in units of the noise
that the plan adds to an entry in a round, larger where gradients made them so; ``pulls`` (T, S) says by how
many such units a drawn canary moves its entry in each step of those rounds.

The same figures are computed by the runner after every round, by ``audit canaries`` for a training of
canaries alone, and by an auditor from released bytes and opened coins. A verdict depends on what was
released, on coins and on public constants, so it says nothing of vehicles that the release does not.

>>> one = pulls_of(np.ones(2), 2.0)
>>> random = np.random.default_rng(1)
>>> coins = random.random(101) < 0.5
>>> def released(clip):
...     drawn = (random.random((20, 2, 101)) < 0.5) * np.append(coins[:-1], False)
...     return clip * np.einsum("s,tsm->tm", one, drawn) + random.standard_normal((20, 101))
>>> [check.fails for check in checks(released(1.0), coins, np.tile(one, (20, 1)), 0.5)]
[False, False, False, False]
>>> [check.name for check in checks(released(2.0), coins, np.tile(one, (20, 1)), 0.5) if check.fails]
['sensitivity and sampling', 'independent draws']
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import erfc, exp, inf, log, sqrt

import numpy as np

Array = np.ndarray
FINDINGS = ("canary-sensitivity", "canary-noise", "canary-not-finite", "canary-draws")
"""A stable word for each check, in their order."""
FALSE_ALARM = 1e-4
"""At most, over a whole plan, with all its regions, rounds and checks."""
ALONE = 4e-6
"""The same of a training of canaries alone."""
NEARLY = 0.99
"""Of C: rounding is taken off the norm to which a vehicle is clipped."""
LEAST_DRAWS, MOST_TAIL = 20, 1.0
"""Canaries that are in, and excess kurtosis of a score, from or up to which sums of squares are judged."""


@dataclass(frozen=True)
class Check:
    """One figure beside what it should be."""

    name: str
    found: float
    expected: float
    fails: bool
    meaning: str


def coins(seed: bytes, count: int) -> Array:
    """(count,) bool: who is in. The last, whose gradient is not finite, always is."""
    content = hashlib.shake_256(b"fedfsd/coins/v1\n" + seed).digest(-(-count // 8))
    found: Array = np.unpackbits(np.frombuffer(content, np.uint8))[:count].astype(bool)
    found[-1:] = True
    return found


def pulls_of(gains: Array, noise_multiplier: float) -> Array:
    """(S,) of one round; ``gains`` (S,): how far each step's gradient moves parameters by the round's end."""
    found: Array = gains / (noise_multiplier * np.linalg.norm(gains))
    return found


def scores(seen: Array, pulls: Array) -> Array:
    """(m,) what all rounds show of each canary: a standard normal number where nothing moved it."""
    reach = pulls.sum(axis=1)
    found: Array = reach @ seen / np.linalg.norm(reach)
    return found


def verdict(seen: Array, coins: Array, pulls: Array, sample_rate: float, *, looks: int) -> str:
    """One letter a check, x where it fails: over the rounds so far, or in the last alone.

    Args:
        looks: how many verdicts there are in a plan, of all regions: they share ``FALSE_ALARM``.
    """
    error = FALSE_ALARM / (2 * looks)
    so_far = checks(seen, coins, pulls, sample_rate, error=error)
    last = checks(seen[-1:], coins, pulls[-1:], sample_rate, error=error)
    return "".join("x" if one.fails or other.fails else "." for one, other in zip(so_far, last, strict=True))


def findings(letters: str) -> tuple[str, ...]:
    """The checks that a verdict says have failed."""
    return tuple(word for word, letter in zip(FINDINGS, letters, strict=True) if letter == "x")


def checks(
    seen: Array, coins: Array, pulls: Array, sample_rate: float, *, error: float = ALONE
) -> tuple[Check, ...]:
    """The constants of the mechanism, each from what canaries show of it, in the order of ``FINDINGS``.

    Args:
        coins: (m,) who is in; the last canary is the one whose gradient is not finite.
        error: probability that a right mechanism fails any.
    """
    inside = np.append(coins[:-1], False)
    found, reach = scores(seen, pulls), float(np.linalg.norm(pulls.sum(axis=1)))
    alone = log(len(FINDINGS) / error)  # each check fails by chance with probability exp(-alone)
    moved = float(found[inside].mean()) / reach if inside.any() else sample_rate
    out = float((seen[:, ~inside] ** 2).sum())
    freedom = len(seen) * int((~inside).sum())
    draws = list(_draws(seen[:, inside], found[inside], pulls, sample_rate, alone + log(3)))
    worst = max(draws, key=lambda one: (one[1], abs(log(one[0]))), default=(1.0, False))
    return (
        Check(
            "sensitivity and sampling",
            moved,
            sample_rate,
            bool(inside.any()) and _mean_tail(moved * reach, pulls, sample_rate, int(inside.sum())) < -alone,
            "an included canary moves the sum by C times the sample rate, on average",
        ),
        Check(
            "noise on parameters",
            out / freedom,
            1.0,
            _off(out / freedom, freedom, 0.0, alone),
            "the mean square of what nobody moves, in units of the planned noise",
        ),
        Check(
            "not finite",
            float(found[-1]),
            0.0,
            erfc(abs(float(found[-1])) / sqrt(2)) < exp(-alone),
            "a canary whose gradient is not finite moves nothing, in units of the planned noise",
        ),
        Check(
            "independent draws",
            worst[0],
            1.0,
            worst[1],
            "a variance of included canaries, over that of independent draws and noise",
        ),
    )


def noticed(pulls: Array, sample_rate: float, inside: int, *, looks: int) -> float:
    """From how many times C on one vehicle would be noticed by the end, nearly always; inf: never.

    That is: more often than in 97 of 100 plans.
    """
    if not inside:
        return inf
    reach = float(np.linalg.norm(pulls.sum(axis=1)))
    spread = sqrt((1 + _draw_variance(pulls, sample_rate)) / inside)
    z = sqrt(2 * log(2 * looks * len(FINDINGS) / FALSE_ALARM)) + 2
    return 1 + z * spread / (sample_rate * reach)


def _weights(pulls: Array) -> Array:
    """(T, S) what a draw in each step adds to a canary's score."""
    reach = pulls.sum(axis=1)
    found: Array = (reach / np.linalg.norm(reach))[:, None] * pulls
    return found


def _draw_variance(pulls: Array, sample_rate: float) -> float:
    return sample_rate * (1 - sample_rate) * float((_weights(pulls) ** 2).sum())


def _mean_tail(mean: float, pulls: Array, sample_rate: float, count: int) -> float:
    """Logarithm of a bound on the probability of a mean score so far from what it should be (Chernoff).

    Of ``count`` canaries: a sum of a normal number and of independent draws, each of a known size.
    """
    planned = sample_rate * float(np.linalg.norm(pulls.sum(axis=1)))
    off = max(mean - planned, 0.0) or min(mean - NEARLY * planned, 0.0)
    if not off:
        return 0.0
    sizes, times = np.unique(_weights(pulls), return_counts=True)
    guess = off * count / (1 + _draw_variance(pulls, sample_rate))
    best, out = 0.0, log(1 - sample_rate) if sample_rate < 1 else -inf
    for slope in guess * np.geomspace(0.1, 10, 41):
        step = slope / count * sizes
        jumps = np.logaddexp(out, log(sample_rate) + step) - sample_rate * step
        best = min(best, slope**2 / (2 * count) + count * float(jumps @ times) - slope * off)
    return float(best) + log(2)


def _draws(
    seen: Array, found: Array, pulls: Array, sample_rate: float, alone: float
) -> Iterator[tuple[float, bool]]:
    """(ratio of variances, whether it is off): between canaries, between rounds, and over all entries."""
    count, spare = len(found), sample_rate * (1 - sample_rate)
    fourth = spare * (1 - 6 * spare)  # cumulant of one draw
    if count < LEAST_DRAWS:
        return
    variance = 1 + _draw_variance(pulls, sample_rate)
    tail = fourth * float((_weights(pulls) ** 4).sum()) / variance**2
    if tail <= MOST_TAIL:
        ratio = float(found.var(ddof=1)) / variance
        yield ratio, _off(ratio, count - 1, tail, alone)
    variances = 1 + spare * (pulls**2).sum(axis=1)
    tails = fourth * (pulls**4).sum(axis=1) / variances**2
    if tails.max() > MOST_TAIL:
        return
    around = seen - sample_rate * pulls.sum(axis=1)[:, None]
    ratio = float((around.mean(axis=1) ** 2 * count / variances).mean())
    if len(seen) >= LEAST_DRAWS:
        yield ratio, _off(ratio, len(seen), float(tails.max()) / count, alone)
    ratio = float(((around**2).sum(axis=1) / variances).sum()) / seen.size
    yield ratio, _off(ratio, seen.size, float(tails.max()), alone)


def _off(ratio: float, freedom: int, tail: float, alone: float) -> bool:
    """Whether a mean of squares is too far from 1 (Laurent and Massart 2000, lemma 1).

    Exact for normal numbers; others have an excess kurtosis ``tail``, which widens it.
    """
    wide = sqrt(max(1.0, 1 + tail / 2))
    x = alone + log(2)
    room = 2 * wide * sqrt(x / freedom)
    return bool(not 1 - room <= ratio <= 1 + room + 2 * x / freedom)
