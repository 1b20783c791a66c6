"""What an attacker recognises: against exact curves, against (epsilon, delta), and as people read it."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from audit_kit import Region, audited, plan_of
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm

from fedfsd.audit import attacker
from fedfsd.audit.explained import CHECKS, GLOSSARY
from fedfsd.audit.report import report
from fedfsd.audit.report_page import page, text
from fedfsd.audit.statement import statement
from fedfsd.audit.words import percent
from fedfsd.cli import main
from fedfsd.mechanism.accountant import epsilon_pld, true_positives
from fedfsd.mechanism.event import Event

SHARES = (0.0001, 0.001, 0.01, 0.1, 0.5)


@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (4.0, 100), (0.7, 2), (30.0, 1000)])
def test_without_sampling_it_is_the_normal_curve(noise, steps):
    """T steps of noise sigma tell two normal distributions apart whose means differ by sqrt(T) / sigma."""
    exact = [float(norm.sf(norm.isf(share) - math.sqrt(steps) / noise)) for share in SHARES]
    found = true_positives([Event(1.0, noise, steps)], SHARES, coarse=True)
    assert found == pytest.approx(exact, rel=2e-3)
    assert all(one >= other - 1e-9 for one, other in zip(found, exact, strict=True))


@pytest.mark.parametrize(("rate", "noise"), [(0.1, 0.5), (0.3, 1.0), (0.02, 0.4)])
def test_one_sampled_step_is_the_better_of_two_tests(rate, noise):
    """The two distributions are a normal one and a mixture; whichever is the null, a threshold is best."""
    at = np.linspace(-10, 10, 20_001)
    alone, shifted = norm.sf(at / noise), norm.sf((at - 1) / noise)
    mixed = (1 - rate) * alone + rate * shifted
    shares = SHARES[:4]  # above, a mixture of both tests is better than either
    for share, found in zip(
        shares, true_positives([Event(rate, noise, 1)], shares, coarse=True), strict=True
    ):
        best = max(mixed[alone <= share].max(), (1 - alone)[1 - mixed <= share].max())
        assert found >= best - 1e-6
        assert found == pytest.approx(best, rel=0.02)


@settings(max_examples=6, deadline=None)
@given(
    rate=st.sampled_from((0.01, 0.1, 0.5, 1.0)),
    noise=st.floats(0.6, 20.0),
    steps=st.integers(1, 200),
    delta=st.sampled_from((1e-3, 1e-5)),
)
def test_it_never_passes_what_epsilon_and_delta_allow(rate, noise, steps, delta):
    events = [Event(rate, noise, steps)]
    epsilon = epsilon_pld(events, delta, coarse=True)
    for share, found in zip(SHARES, true_positives(events, SHARES, coarse=True), strict=True):
        assert share <= found <= 1
        most = min(math.exp(epsilon) * share + delta, 1 - math.exp(-epsilon) * (1 - delta - share))
        assert found <= most + 1e-3 * most  # the curve's lines lie at epsilons beside this one


@pytest.mark.slow
def test_other_noise_for_other_epsilons():
    events = (Event(0.1, 2.0, 12), Event(0.1, 3.0, 8))
    rows = attacker.scale(events, 1e-4)
    assert [one["epsilon"] for one in rows] == [1.0, 4.0, 8.0]
    for row in rows:
        factor = row["noise"] / 2.0
        noisier = [Event(one.sample_rate, one.noise_multiplier * factor, one.steps) for one in events]
        assert 0.99 * row["epsilon"] <= epsilon_pld(noisier, 1e-4) <= row["epsilon"] + 1e-3
    strict = [row["true_positives"][0] for row in rows]
    assert strict == sorted(strict)


def test_nothing_is_told_of_too_much_loss():
    assert attacker.recognised([Event(1.0, 1e-6, 1000)]) is None


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    folder = tmp_path_factory.mktemp("told")
    eu = Region(folder)
    eu.grant(epsilon=8.0)
    eu.run(plan_of())
    return audited(folder, eu)


def test_report_and_statement_say_it_of_the_plan(told):
    expected = true_positives([Event(0.1, 2.0, 12)], (0.001, 0.01))
    document = report(*told)
    (plan,) = document["regions"][0]["plans"]
    assert plan["true_positives"] == pytest.approx(expected, rel=1e-2)
    sentences = statement(*told)["regions"][0]["data_sets"][0]["sentences"]
    (said,) = (one["text"] for one in sentences if one["about"] == "attacker")
    for made in (said, page(document), text(document)):
        for share in plan["true_positives"]:
            assert percent(share) in made
    assert document["attacker"]["plan"] == plan["plan"]
    assert len(document["attacker"]["scale"]) == 3


def test_every_check_and_word_is_explained_where_it_stands(told):
    made = page(report(*told))
    for meaning in (*CHECKS.values(), *(meaning for _, meaning in GLOSSARY)):
        assert meaning.replace("'", "&#39;") in made


def test_dates_stand_on_the_timeline(told):
    document = report(*told)
    (line,) = document["regions"][0]["timelines"]
    assert [one["date"] for one in line["dates"]] == ["2026-11-22"]
    assert ">2026-11-22</text>" in page(document)


@pytest.mark.parametrize(
    ("words", "code", "shown"),
    [
        (["epsilon"], 0, "epsilon\n  The epsilon that each plan states"),
        ([], 0, "\nwitness block\n  Extra parameters"),
        (["nothing"], 2, ""),
    ],
    ids=str,
)
def test_the_command(capsys, words, code, shown):
    with pytest.raises(SystemExit) as end:
        main.run(["audit", "checks", *words])
    said = capsys.readouterr()
    assert end.value.code == code
    assert shown in said.out
    assert ("epsilon, lifetime" in said.err) == bool(code)


def test_one_document_of_all_checks(capsys):
    with pytest.raises(SystemExit):
        main.run(["audit", "checks", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in found["checks"]] == list(CHECKS)
    assert all(one["claim"] and one["meaning"] for one in found["checks"])
