import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedfsd.errors import PlanError
from fedfsd.mechanism.statement import Claim, best_guess, joint, paragraph, sentence

CN = Claim("CN", 8.0, 1e-4, 1337, "recording", epsilon_lifetime=8.737)
EU = Claim("EU", 2.0, 1e-5, 233, "physical")


def test_the_sentence_gives_the_factor_and_the_guess():
    text = sentence(8.0, 1e-4)
    assert "2,981 times (e^8.00)" in text
    assert "1 in 10,000" in text
    assert "right at most 99.97 %" in text
    assert text.count(".  ") == 0
    assert text.endswith(".")


@given(st.floats(0, 200), st.floats(1e-9, 0.5))
def test_figures_are_rounded_against_the_claim(epsilon, delta):
    text = sentence(epsilon, delta)
    bound = re.search(r"right at most ([\d.]+) %", text)
    guess = float(bound[1]) / 100 if bound else 1.0
    assert bound or (best_guess(epsilon, delta) > 0.9999 and "more than 99.99 %" in text)
    factor = float(re.search(r"at most ([\d.,e+]+) times", text)[1].replace(",", ""))
    chance = 1 / int(re.search(r"1 in ([\d,]+)", text)[1].replace(",", ""))
    assert guess >= best_guess(epsilon, delta) - 1e-8
    assert factor >= math.exp(epsilon) * (1 - 1e-7)
    assert chance >= delta * (1 - 1e-6)


def test_the_guess_is_the_best_test_of_the_gaussian_or_worse():
    # One release with mu = 1 is guessed right with Phi(1/2); epsilon at any delta may not say less.
    from fedfsd.mechanism.accountant import epsilon_pld
    from fedfsd.mechanism.event import Event

    truth = math.erfc(-0.5 / math.sqrt(2)) / 2
    for delta in (0.3, 0.1, 1e-3, 1e-6):
        assert best_guess(epsilon_pld([Event(1, 1.0, 1)], delta), delta) >= truth - 1e-9
    assert best_guess(0.0, 1e-9) == pytest.approx(0.5)


def test_the_paragraph_says_who_what_against_whom_and_what_is_left_out():
    text = paragraph([CN, EU])
    for phrase in (
        "1,337 rostered vehicles",
        "zero-out",
        "one car recorded under two keys is protected per key only",
        "epsilon 8.74",
        "Against: the coordinator, every other region",
        "Not covered:",
        "the car that carried the sensors",
        "All regions together: epsilon 8.00 at delta 1 in 10,000",
        "in one region only",
    ):
        assert phrase in text
    assert text.count("per key only") == 1
    assert "EU: in the worst case" not in text
    assert "CN: in the worst case" in text


def test_one_region_has_no_joint_claim():
    assert "All regions" not in paragraph([EU])
    assert "per key only" not in paragraph([EU])


def test_the_joint_claim_is_the_maximum():
    assert joint([CN, EU, Claim("US", 4.0, 1e-3, 1414, "physical")]) == (8.0, 1e-3)


def test_words_that_promise_too_much_never_appear():
    text = paragraph([CN, EU]).lower()
    assert not re.search(r"anonym|complian|complies|guarantee|impossible|fully|secure", text)


@pytest.mark.parametrize("epsilon", [math.inf, math.nan, -0.1])
def test_no_sentence_for_what_is_no_promise(epsilon):
    with pytest.raises(PlanError, match="epsilon"):
        sentence(epsilon, 1e-5)
    with pytest.raises(PlanError, match="epsilon"):
        paragraph([Claim("CN", epsilon, 1e-5, 10, "physical")])


def test_figures_in_words():
    assert "3,269,018 times" in sentence(15.0, 1e-4)
    assert "99.49 times (e^4.60)" in sentence(4.6, 1e-4)
    assert "102.52 times" not in sentence(4.63, 1e-4)
    assert "103 times (e^4.63)" in sentence(4.63, 1e-4)
    assert "e+10 times" in sentence(24.0, 1e-4)
    assert "1 in 3;" in sentence(0.0, 0.3)
    assert "right at most 50.01 %" in sentence(0.0, 1e-4)
    assert best_guess(1.0, 0.2) == pytest.approx((1 + 0.2 / math.e) / (1 + 1 / math.e))


def test_little_is_ruled_out_from_99_percent_on():
    for epsilon, said in ((4.59, False), (4.6, True)):
        text = paragraph([Claim("CN", epsilon, 1e-5, 10, "physical")])
        assert ("rules out little" in text) == said
    assert "All regions" in paragraph([EU, EU])
    assert "the grant stands at" not in paragraph([EU])
    assert paragraph([EU]).startswith("EU: epsilon 2.00 at delta 1 in 100,000, for each of 233 rostered")
