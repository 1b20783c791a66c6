"""Is what a region releases what its mechanism releases? Statistics of released bytes, round after round.

The null hypothesis is the plan's: an entry that no gradient touches (the witness block) is a standard normal
number once divided by its planned standard deviation, independent of every other entry, round and region; any
other entry is the noise of the round's last step plus what was fixed before that was drawn (gradients may
take back what the noise of earlier steps has moved). Each alternative is a likelihood ratio (or something of
expectation at most 1 under the null): a bet against the null that starts with its share of one unit of money.
Rounds multiply a bet, and a part of it starts only in a later round, so
that what goes wrong late is found as fast as what was wrong from the start. All bets together are one
non-negative supermartingale of expectation 1: under the null they ever exceed 1/a with probability at most a,
whenever one looks (Ville 1939). The one threshold covers every statistic, round and region of a plan.

What it cannot see: noise that somebody else knows, noise that is right in what is sampled here and wrong
elsewhere, and a region that computes a correct-looking release some other way.

>>> right = np.random.default_rng(1)
>>> state = State()
>>> for round in (1, 2, 3):
...     state, found = look(state, Sight(round, right.standard_normal(4096), ()), rounds=3, regions=2)
>>> found
>>> state, found = look(state, Sight(4, 0.9 * right.standard_normal(4096), ()), rounds=4, regions=2)
>>> print(found)
noise-scale: round 4: noise of 0.9 times its planned standard deviation
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from math import erf, inf, log, pi, sqrt

import numpy as np

from fedfsd.language import mark, say

FALSE_ALARM = 1 / 1000
"""At most, over a whole plan: every statistic, round and region, and both gates."""
GATES = 2
FIRST_START = 0.9
"""Of a bet's money that is at stake from round 1; the rest starts in equal parts in the later rounds."""

# Shares of the money, by what is looked for; they add up to 1.
SCALE, SHAPE, EXACT, OVERLAP, FLOOR, ENTRY = 0.5, 0.1, 0.05, 0.15, 0.15, 0.05

SCALES = (0.02, 0.1, 0.2, 0.35, 0.5, 0.6, 0.7, 0.8, 0.86, 0.9, 0.93, 0.95, 0.96, 0.97, 0.98, 0.99)
LARGER = (1.01, 1.02, 1.03, 1.05, 1.08, 1.12, 1.2, 1.4, 2.0, 5.0, 20.0)
CUTS = (1.5, 2.0, 2.5, 3.0, 3.5, 4.0)
GAPS = (0.9, 0.5, 0.1, 0.02)
FLOORS = (0.02, 0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9)
ENTRY_FLOORS = (0.05, 0.3)
CORRELATIONS = (0.1, 0.2, 0.4, 0.7, 0.95, 0.9999)
PARTNERS = (
    mark("noise used before, in the same block"),
    mark("noise used before, in other rounds"),
    mark("noise used before, in other regions"),
    mark("noise used before, in the model's own arrays"),
)
ALL, REST = mark("all arrays"), mark("the other arrays")
"""What a group is called that is not one array."""

LAGS, STRONG = 48, 5.0
"""A likelihood ratio of two blocks is computed at offset 0 and at so many offsets with the largest
correlation, where that is so many standard deviations. The others count zero, which makes a bet smaller."""
LEAST_OVERLAP = 64
KEPT_BLOCKS = 8
"""Earlier witness blocks that are kept as they are; of older ones only the sum."""
MOST_ENTRIES = 16_384
"""Entries of the model that are watched one by one."""
SURE = 1e9
"""The value of a bet on what cannot happen under the null."""

Array = np.ndarray


@dataclass(frozen=True)
class Sight:
    """A round's release in units of its planned noise.

    Attributes:
        witness: (n,) float64. groups: the model's arrays, or samples of them, each (m,) float64, in units of
            the noise of the last step; the same ones in every round.
        lattice: the unit of the public lattice on which witness values lie, if any.
    """

    round: int
    witness: Array
    groups: tuple[tuple[str, Array], ...]
    lattice: float | None = None


@dataclass(frozen=True)
class Alarm:
    """What was found: a stable word, the round, and a sentence without a value of the data.

    ``values`` go into the braces of ``words``.
    """

    code: str
    round: int
    words: str
    values: tuple[tuple[str, object], ...] = ()

    @property
    def text(self) -> str:
        """The sentence in English, as ledgers and logs have it."""
        return self.words.format(**dict(self.values)) if self.values else self.words

    @property
    def said(self) -> str:
        """The sentence in the language in force."""
        return say(
            self.words, **{name: say(one) if isinstance(one, str) else one for name, one in self.values}
        )

    def __str__(self) -> str:
        return f"{self.code}: round {self.round}: {self.text}"


@dataclass(frozen=True)
class State:
    """All that is remembered between rounds."""

    looks: int = 0
    bets: Array = field(default_factory=lambda: np.empty(0))
    """(J,) logarithm of what every bet is worth."""
    entries: Array = field(default_factory=lambda: np.empty(0))
    """(B, E) the same for single entries of the model."""
    blocks: tuple[tuple[int, Array], ...] = ()
    """(round, witness block), the newest last."""
    older: Array = field(default_factory=lambda: np.empty(0))
    """Sum of the blocks before those."""
    last: Array = field(default_factory=lambda: np.empty(0))
    """The groups of the round before, one after another."""
    total: Array = field(default_factory=lambda: np.empty(0))
    """Their sum over all rounds."""


@dataclass(frozen=True)
class Bet:
    """One alternative: its share of the money and its words."""

    code: str
    words: str
    share: float
    values: tuple[tuple[str, object], ...] = ()


def threshold(regions: int) -> float:
    """What one region's bets must be worth for an alarm, as a logarithm."""
    return log(GATES * regions / FALSE_ALARM)


def look(
    state: State,
    sight: Sight,
    *,
    rounds: int,
    regions: int,
    others: Iterable[Array] = (),
) -> tuple[State, Alarm | None]:
    """One more release; the state after it, and what it and those before it give away.

    Args:
        rounds: of the plan. regions: how many it has. others: witness blocks of other regions, in units of
            their planned noise, of this round or earlier ones.
    """
    names = tuple(name for name, _ in sight.groups)
    table = bets(names)
    values = np.concatenate([one for _, one in sight.groups]) if sight.groups else np.empty(0)
    won = np.array([*_witness(sight, state, others), *_floors(state, sight.groups)])
    money = state.bets if state.looks else np.full(len(table), -inf)
    entries = state.entries if state.looks else np.full((2 * len(ENTRY_FLOORS), len(_few(values))), -inf)
    start = _start(state.looks, rounds)
    money = np.logaddexp(money, start) + won
    entries = np.logaddexp(entries, start) + _entries(state, values)
    worth = np.log([bet.share for bet in table]) + money
    single = log(ENTRY) + _mean(entries)
    after = replace(_remember(state, sight, values), looks=state.looks + 1, bets=money, entries=entries)
    if np.logaddexp(_sum(worth), single) < threshold(regions):
        return after, None
    if single > worth.max(initial=-inf):
        few = mark("an entry of the model moves less than its noise")
        return after, Alarm("noise-floor", sight.round, few)
    best = table[int(worth.argmax())]
    return after, Alarm(best.code, sight.round, best.words, best.values)


@cache
def bets(groups: tuple[str, ...]) -> tuple[Bet, ...]:
    """Every alternative but those of single entries, in the order of their values."""
    scales = [*SCALES, *LARGER]
    scale = mark("noise of {share:g} times its planned standard deviation")
    found = [Bet("noise-scale", scale, SCALE / len(scales), (("share", one),)) for one in scales]
    cut, gap = (
        mark("noise has no value beyond {number:g} standard deviations"),
        mark("about {share:.0%} of the entries have no noise"),
    )
    shapes: list[tuple[str, tuple[tuple[str, object], ...]]] = [
        (mark("noise is uniform, not normal"), ()),
        (mark("noise of another shape than a normal distribution"), ()),
        *((cut, (("number", one),)) for one in CUTS),
        *((gap, (("share", one),)) for one in GAPS),
    ]
    found += [Bet("noise-shape", words, SHAPE / len(shapes), values) for words, values in shapes]
    exact = (
        mark("noise is not on the plan's public grid"),
        mark("values repeat: noise of too few different values"),
    )
    found += [Bet("noise-grid", one, EXACT / len(exact)) for one in exact]
    found += [Bet("noise-overlap", one, OVERLAP / len(PARTNERS)) for one in PARTNERS]
    share = FLOOR / max(1, 3 * len(FLOORS) * (len(groups) + 1))
    least = mark("{arrays}: noise of at most {floor:g} times what is planned")
    found += [
        Bet("noise-floor", least, share, (("arrays", name), ("floor", floor)))
        for name in (*groups, ALL)
        for _ in range(3)
        for floor in FLOORS
    ]
    return tuple(found)


def noticed(
    share: float, size: int, rounds: int, *, regions: int = 1, signal: float = 0.0, earlier: float = 0.0
) -> bool:
    """Whether noise of that share of its planned scale is noticed by then in ``size`` entries of the model.

    That is: more often than in 97 of 100 plans. ``signal`` is the root mean square of what an entry's signal
    changes from round to round, in units of the planned noise: it hides what is missing. So does the noise of
    a round's earlier steps; ``earlier``: its variance, in units of that of the last.
    """
    # The mean of the earlier rounds is the guess: it has noise of its own, less in every round.
    left = (share**2 * (1 + 1 / max(1, rounds - 1)) + signal**2) * (1 + earlier)
    if left >= 1:
        return False
    floor = min(FLOORS, key=lambda one: log(one) + left * (one**-2 - 1) / 2)
    best = -size * rounds * (log(floor) + left * (floor**-2 - 1) / 2)
    spread = sqrt(2 * size * rounds) * (floor**-2 - 1) / 2 * left
    price = threshold(regions) - log(FIRST_START * FLOOR / (6 * len(FLOORS)))
    return best - 2 * spread >= price


def noticed_in_witness(share: float, size: int, rounds: int, *, regions: int = 1) -> bool:
    """Whether noise of that share (below 1) is named by then from a witness block of ``size`` entries.

    That is: more often than in 97 of 100 plans.
    """
    best = max(-size * (log(one) + share**2 * (one**-2 - 1) / 2) for one in SCALES) * rounds
    near = min(SCALES, key=lambda one: abs(one - share))
    spread = sqrt(2 * size * rounds) * share**2 * (near**-2 - 1) / 2
    price = threshold(regions) - log(FIRST_START * SCALE / (len(SCALES) + len(LARGER)))
    return best - 2 * spread >= price


# Witness block.


def _witness(sight: Sight, state: State, others: Iterable[Array]) -> list[float]:
    """Logarithms of what this round multiplies the bets on the witness block by."""
    z = sight.witness
    if not len(z):
        return [0.0] * (len(SCALES) + len(LARGER) + 2 + len(CUTS) + len(GAPS) + 2 + len(PARTNERS))
    energy = float(z @ z)
    scales = [-len(z) * log(one) - energy * (one**-2 - 1) / 2 for one in (*SCALES, *LARGER)]
    earlier = [one for _, one in state.blocks] + ([state.older] if state.older.any() else [])
    model = _centred(state, sight.groups)
    partners = (
        _repeat(z),
        _overlap(z, earlier),
        _overlap(z, list(others)),
        _overlap(
            z, [model[start : start + len(z)] for start in range(0, min(len(model), 4 * len(z)), len(z))]
        ),
    )
    return [*scales, *_shapes(z), *_exact(z, sight.lattice), *partners]


def _shapes(z: Array) -> list[float]:
    """Log-likelihood ratios of other densities of the same planned scale."""
    square = z * z / 2
    normal = -square - log(2 * pi) / 2
    largest = float(np.abs(z).max())
    uniform = -inf if largest > sqrt(3) * (1 + 1e-6) else -len(z) * log(2 * sqrt(3)) - float(normal.sum())
    laplace = float((-sqrt(2) * np.abs(z) - log(2) / 2 - normal).sum())
    cuts = [-inf if largest > one * (1 + 1e-6) else -len(z) * log(erf(one / sqrt(2))) for one in CUTS]
    # A part of the entries at a hundredth of their scale, the others right.
    silent = 100 * np.exp(-square * (1e4 - 1))
    gaps = [float(np.log1p(one * (silent - 1)).sum()) for one in GAPS]
    return [uniform, laplace, *cuts, *gaps]


def _exact(z: Array, lattice: float | None) -> list[float]:
    """Bets on what a correct release cannot show: values off the lattice, and many equal ones."""
    off = -inf
    if lattice is not None:
        steps = np.abs(z) / lattice
        # Rounding to float32 moves a value of 2^21 steps by up to an eighth of one.
        near = steps[steps <= 2.0**21]
        off = log(SURE) if np.count_nonzero(np.abs(near - np.rint(near)) > 0.25) > 2 else 0.0
    # Of 2^20 values or more a standard deviation, pairs of equal ones are about Poisson.
    pairs = len(z) ** 2 / 2 / sqrt(4 * pi) / 2**20
    repeated = len(z) - len(np.unique(z)) > 2 * pairs + 50
    return [off if lattice is not None else 0.0, log(SURE) if repeated else 0.0]


def _repeat(z: Array) -> float:
    """The block against itself, later entries given earlier ones."""
    return _overlap(z, [z], least_lag=1) if len(z) > 2 * LEAST_OVERLAP else 0.0


def _overlap(z: Array, known: Sequence[Array], *, least_lag: int | None = None) -> float:
    """Whether ``z``, at some offset and sign, correlates with one of what was known before it.

    Given x, an alternative takes z as normal with mean r x and variance 1 - r^2; the average over partners,
    offsets (half of it on offset 0) and correlations has expectation 1.
    """
    partners = [one for one in known if len(one) >= LEAST_OVERLAP and one.any()]
    if not partners:
        return 0.0
    spectra: dict[int, Array] = {}
    return _mean(np.array([_against(z, one, least_lag, spectra) for one in partners]))


def _against(z: Array, x: Array, least_lag: int | None, spectra: dict[int, Array]) -> float:
    """Of one partner; ``spectra`` keeps the transforms of ``z``."""
    first, last = LEAST_OVERLAP - len(x) if least_lag is None else least_lag, len(z) - LEAST_OVERLAP
    if last < first:
        return 0.0
    x = x / sqrt(float(x @ x) / len(x))
    size = 1 << (len(z) + len(x) - 1).bit_length()
    if size not in spectra:
        spectra[size] = np.fft.rfft(z, size)
    # products[lag] = sum of z[i + lag] x[i]; negative lags at the end.
    products = np.fft.irfft(spectra[size] * np.conj(np.fft.rfft(x, size)), size)
    lags, overlaps = _offsets(len(z), len(x), first, last)
    products = products[lags]
    strong = np.flatnonzero(np.abs(products) > STRONG * overlaps)
    if len(strong) > LAGS:
        order = np.argpartition(np.abs(products[strong]) / overlaps[strong], -LAGS)
        strong = strong[order[-LAGS:]]
    if first <= 0 <= last:
        strong = np.union1d(strong, [-first])
    if not len(strong):
        return -inf
    lag, product = lags[strong], products[strong]
    low, high = np.maximum(lag, 0), np.minimum(len(z), lag + len(x))
    zz, xx = (np.concatenate([[0.0], np.cumsum(one * one)]) for one in (z, x))
    mine, theirs = zz[high] - zz[low], xx[high - lag] - xx[low - lag]
    prior = (
        np.log(0.5 / len(lags) + 0.5 * (lag == 0))
        if first <= 0 <= last
        else np.full(len(lag), -log(len(lags)))
    )
    r = np.array([sign * one for one in CORRELATIONS for sign in (1, -1)])
    rest = 1 - r * r
    count, mine, theirs, product = (one[:, None] for one in (high - low, mine, theirs, product))
    ratio = -count * np.log(rest) / 2 - (mine - 2 * r * product + r * r * theirs) / (2 * rest) + mine / 2
    return _sum(prior[:, None] - log(r.size) + ratio)


@lru_cache(maxsize=16)
def _offsets(mine: int, theirs: int, first: int, last: int) -> tuple[Array, Array]:
    """The offsets from ``first`` to ``last``, and the square root of each one's overlap."""
    lags = np.arange(first, last + 1)
    return lags, np.sqrt(np.minimum(mine, lags + theirs) - np.maximum(lags, 0))


# The model's own arrays: noise is the least that must be there, whatever the signal.


def _centres(state: State, count: int) -> tuple[Array, Array, Array]:
    """Three guesses at this round's signal, made before it."""
    if not state.looks:
        return (np.zeros(count),) * 3
    return np.zeros(count), state.last, state.total / state.looks


def _floors(state: State, groups: Sequence[tuple[str, Array]]) -> list[float]:
    """Of each group, and of all together: noise smaller than planned around each guess.

    (1/s) exp(-d^2 (1/s^2 - 1) / 2) has expectation at most 1 for d normal with variance 1 and any mean.
    """
    if not groups:
        return [0.0] * (3 * len(FLOORS))
    sizes = [len(one) for _, one in groups]
    values = np.concatenate([one for _, one in groups])
    starts = np.cumsum([0, *sizes[:-1]])
    energy = np.array(
        [np.add.reduceat((values - centre) ** 2, starts) for centre in _centres(state, len(values))]
    ).T  # (groups, 3)
    energy = np.vstack([energy, energy.sum(axis=0)])
    counts = np.array([*sizes, len(values)])
    floors = np.array(FLOORS)
    won = -counts[:, None, None] * np.log(floors) - energy[:, :, None] * (floors**-2 - 1) / 2
    return [float(one) for one in won.ravel()]


def _few(values: Array) -> Array:
    return values[:: max(1, -(-len(values) // MOST_ENTRIES))]


def _entries(state: State, values: Array) -> Array:
    """The same entry by entry, around the last round's and the mean value."""
    _, last, mean = (_few(one) for one in _centres(state, len(values)))
    few = _few(values)
    return np.array(
        [
            -log(floor) - (few - centre) ** 2 * (floor**-2 - 1) / 2
            for centre in (last, mean)
            for floor in ENTRY_FLOORS
        ]
    )


def _centred(state: State, groups: Sequence[tuple[str, Array]]) -> Array:
    values = np.concatenate([one for _, one in groups]) if groups else np.empty(0)
    around: Array = values - _centres(state, len(values))[2]
    return around


def _remember(state: State, sight: Sight, values: Array) -> State:
    blocks = (*state.blocks, (sight.round, sight.witness))
    older = state.older if len(state.older) else np.zeros(len(sight.witness))
    for _, gone in blocks[:-KEPT_BLOCKS]:
        older = older + gone
    total = values if not state.looks else state.total + values
    return replace(state, blocks=blocks[-KEPT_BLOCKS:], older=older, last=values, total=total)


def _start(looks: int, rounds: int) -> float:
    """Logarithm of the part of every bet that starts in this round."""
    if not looks:
        return log(FIRST_START) if rounds > 1 else 0.0
    return log((1 - FIRST_START) / (rounds - 1)) if looks < rounds else -inf


def _sum(logs: Array) -> float:
    top = float(np.max(logs, initial=-inf))
    return top if top == -inf else top + log(float(np.exp(logs - top).sum()))


def _mean(logs: Array) -> float:
    return _sum(logs) - log(logs.size) if logs.size else -inf
