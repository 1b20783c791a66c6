"""The study of how many vehicles an epsilon needs: its points, and what is read of them."""

from __future__ import annotations

import math

import pytest

from experiments.enough import __main__ as study
from fedfsd.simulation import enough
from fedfsd.simulation.enough import Enough

KNOWN = Enough(
    rests_on="a test",
    delta=1e-6,
    seeds=[1],
    start=3.0,
    noiseless=2.0,
    vehicles=[100, 1000, 10_000],
    errors={1.0: [4.0, 2.5, 2.0], 4.0: [2.8, 2.1, 2.0]},
    checks=[],
)


@pytest.mark.parametrize(
    ("epsilon", "vehicles", "share"),
    [
        (1.0, 1000, 0.5),
        (1.0, math.sqrt(1000 * 10_000), 0.75),  # half way by logarithms
        (2.0, 1000, 0.7),  # half way between the epsilons
        (1.0, 1, -1.0),  # the nearest that was measured
        (9.0, 10**9, 1.0),
    ],
)
def test_shares_between_the_points(epsilon, vehicles, share):
    assert KNOWN.kept(epsilon, vehicles) == pytest.approx(share)


def test_the_need_is_where_the_share_is_reached():
    assert KNOWN.needed(0.5, 1.0) == pytest.approx(1000, rel=1e-6)
    assert KNOWN.kept(1.0, KNOWN.needed(0.8, 1.0)) == pytest.approx(0.8)
    assert KNOWN.needed(1.01, 1.0) == math.inf
    assert KNOWN.needed(0.9, 4.0) < KNOWN.needed(0.9, 1.0)
    assert enough.counted(math.inf) == "more than were measured"
    assert "at epsilon 1, and" in KNOWN.rule()


def test_what_the_study_writes_is_what_is_read(monkeypatch):
    """More vehicles are the same ones with less noise; at a small size."""
    world = study.opened(1, "pretraining.steps=20")
    plan = study.plan_for(world, 4.0)
    brief = plan.model_copy(update={"num_rounds": 2})
    none = study.trained(world, brief, 10**12, most=60, seed=1)
    loud = study.trained(world, brief.model_copy(update={"regions": {
        name: one.model_copy(update={"noise_multiplier": 1e5}) for name, one in brief.regions.items()
    }}), 60, most=60, seed=1)  # fmt: skip
    assert none < world.fde(world.initial) + 0.05
    assert loud > none + 1
    monkeypatch.setattr(enough, "measured", lambda: KNOWN)
    assert "epsilon 4; these regions count as 100,000, which kept 100% (a test)" in (enough.said(plan) or "")
    assert enough.said(plan.model_copy(update={"mode": "rehearsal"})) is None
    monkeypatch.setattr(
        study, "trained", lambda world, plan, count, *, most, seed: 2.0 + 10 / min(count, most)
    )
    monkeypatch.setattr(study, "opened", lambda seed: world)
    monkeypatch.setattr(study, "plan_for", lambda world, epsilon: plan)
    found = study.measure([1], epsilons=(1.0, 8.0), vehicles=(100, 1000))
    known = enough.read(study.written(found))
    assert known.errors == {1.0: [2.1, 2.01], 8.0: [2.1, 2.01]}
    assert known.noiseless == 2.01
    assert known.checks[0]["full_fde_m"] < known.checks[0]["scaled_fde_m"]
    assert "| 1 | 2.10 | 2.01 |" in study.text(known)
