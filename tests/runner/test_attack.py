"""Attacks fail against the plan's noise, and succeed without it."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from plan.sample import REGION, by_round, planned

from experiments.planted.faults import BUGS
from fedfsd.plan.plan import WITNESS, BackbonePlan
from fedfsd.runner import attack, shadow
from fedfsd.runner.attack import Membership
from fedfsd.runner.attack_page import page
from fedfsd.task.forecasting.model import registry
from fedfsd.task.forecasting.window import WindowSpec

MODEL = registry.build("mlp", {}, WindowSpec(), seed=1)
SHAPES = {name: tuple(value.shape) for name, value in MODEL.named_parameters()} | {WITNESS: (4096,)}


@pytest.fixture(autouse=True)
def few_trainings(monkeypatch):
    monkeypatch.setattr(shadow, "SHADOWS", 8)
    monkeypatch.setattr(shadow, "TARGETS", 1)


PLAN = planned(SHAPES, roster=300, num_rounds=4, noise_multiplier=4.0)


def changed(plan, **of_region):
    mine = plan.region(REGION).model_copy(update=of_region)
    return plan.model_copy(update={"regions": {REGION: mine}})


def test_attacks_stay_below_what_is_allowed_and_their_controls_succeed():
    found = attack.attack(PLAN, REGION)
    assert (found.valid, found.exceeds) == (True, False)
    attackers = (attack.CANARIES, shadow.MODEL, shadow.UPDATES)
    expected = [(attacker, rate) for attacker in attackers for rate in attack.RATES]
    assert [(one.attacker, one.false_positives) for one in found.membership] == expected
    for one in found.membership:
        assert one.at_least <= one.true_positives <= 0.25
        assert one.false_positives <= one.by_curve <= one.by_epsilon
        assert one.control > 0.9
    assert found.inversion.found <= 2
    assert found.inversion.control > 20
    text = page(PLAN, {REGION: found})
    assert "CN: no attack shows more than the plan allows" in text
    assert f"without noise for {found.inversion.control}" in text


def test_without_noise_both_attacks_show_more_than_is_allowed(monkeypatch):
    BUGS["no noise"](monkeypatch)
    found = attack.attack(changed(PLAN, sample_rate=1.0), REGION)
    assert found.exceeds
    assert all(one.true_positives > 0.9 for one in found.membership)
    assert found.inversion.found > 20
    assert "shows more than the plan allows" in page(PLAN, {REGION: found})


def test_what_cannot_be_attacked_is_said():
    frozen = BackbonePlan(sha256="0" * 64, size=1, source="file")
    plan = planned(roster=20)
    plan = plan.model_copy(update={"model": plan.model.model_copy(update={"backbone": frozen})})
    assert not list(attack._membership(plan, REGION, "cpu"))
    blind = attack.Attacked((), None)
    text = page(plan, {REGION: blind})
    assert "too few vehicles" in text
    assert "no linear layer" in text


def test_a_control_that_fails_shows_nothing():
    one = Membership("x", 0.01, 0.02, 0.01, 0.5, 0.3, control=0.1)
    found = attack.Attacked((one,), None)
    assert (found.valid, found.exceeds) == (False, False)
    assert "a control failed" in page(PLAN, {REGION: found})
    assert dataclasses.replace(one, at_least=0.4).exceeds


@pytest.mark.parametrize(("hits", "count", "expected"), [(0, 10, 0.0), (10, 10, 0.001 ** (1 / 10))])
def test_the_bound_on_a_rate(hits, count, expected):
    assert attack._at_least(hits, count) == pytest.approx(expected, abs=1e-9)


def test_less_noise_is_less_in_every_round():
    plan = by_round((1.0, 2.0, 4.0))
    quiet = attack.quieter(plan.region(REGION), 0.5)
    assert np.allclose(quiet.mechanism.noise_multipliers, (0.5, 1.0, 2.0))
