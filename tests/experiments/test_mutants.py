"""The mutation score is of what it says: every kind of fault, survivors found, listed ones still there."""

from __future__ import annotations

import ast
import doctest
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from experiments.mutation import trial
from experiments.mutation.__main__ import KNOWN, TARGETS
from experiments.mutation.mutants import mutants, mutated

ROOT = Path(__file__).parents[2]
SOURCE = '''
"""Words 1."""
LIMIT: Annotated[int, Field(ge=1)] = 3

@cache(7)
def f(a, b=True):
    """Words 2."""
    if not a and b:
        raise ValueError(f"words {1 + 1}")
    for one in a:
        if one is None:
            continue
        self.sum = one
    total += -one ** 2
    check(total)
    return max(total // 2, 0) if b else a[0] <= 1.5
'''


def test_every_kind_of_fault_and_no_words():
    assert [(one.place, one.change) for one in mutants("x.py", SOURCE)] == [
        ("", "1 -> 2"),
        ("", "3 -> 4"),
        ("f", "True -> False"),
        ("f", "and -> or"),
        ("f", "not a -> a"),
        ("f", "statement -> nothing"),
        ("f", "is -> is not"),
        ("f", "continue -> break"),
        ("f", "statement -> nothing"),
        ("f", "+= -> -="),
        ("f", "statement -> nothing"),
        ("f", "-one ** 2 -> one ** 2"),
        ("f", "** -> *"),
        ("f", "2 -> 3"),
        ("f", "statement -> nothing"),
        ("f", "b -> not"),
        ("f", "max -> min"),
        ("f", "// -> *"),
        ("f", "2 -> 3"),
        ("f", "0 -> 1"),
        ("f", "<= -> >"),
        ("f", "<= -> <"),
        ("f", "0 -> 1"),
        ("f", "1.5 -> 3.0"),
    ]


def test_each_mutant_is_the_file_with_that_one_fault():
    found = mutants("x.py", SOURCE)
    whole = ast.unparse(mutated(SOURCE, None))
    texts = [ast.unparse(mutated(SOURCE, one.number)) for one in found]
    assert whole == ast.unparse(ast.parse(SOURCE))
    assert len({whole, *texts}) == len(found) + 1
    assert len({one.name for one in found}) == len(found)
    for text in texts:
        compile(text, "x.py", "exec")
        changed = [
            pair for pair in zip(whole.splitlines(), text.splitlines(), strict=False) if len(set(pair)) > 1
        ]
        assert changed


def test_tests_that_reach_the_line_come_fastest_first():
    found = trial.Reach({"a": {1, 2}, "b": {2}, "c": {3}}, {"a": 5.0, "b": 1.0, "c": 2.0})
    assert found.tests(2) == ["b", "a"]
    assert found.tests(9) == ["b", "c", "a"]  # runs at import: everybody's


TRIALS = """
from experiments.mutation import trial
from experiments.mutation.mutants import mutants

path = "fedfsd/ledger/budget.py"
found = mutants(path, (trial.ROOT / path).read_text(encoding="utf-8"))
(one,) = [each for each in found if each.place == "Account" and each.source == "spent: int = 0"]
weak = "tests/ledger/test_budget.py::test_nano_nats_for_people"
strong = "tests/ledger/test_budget.py::test_a_new_account_is_empty"
for tests in ([weak], [weak, strong]):
    reach = trial.Reach({test: {one.line} for test in tests}, dict.fromkeys(tests, 1.0))
    print(trial.survives(one, reach))
"""


@pytest.mark.slow
def test_a_weak_test_lets_a_mutant_live_and_a_good_one_kills_it():
    """In a process that has not imported fedfsd, as the command's."""
    done = subprocess.run([sys.executable, "-c", TRIALS], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"], done.stderr


def test_its_example_is_true():
    assert doctest.testmod(sys.modules[mutants.__module__]).failed == 0


def test_what_is_listed_as_equivalent_is_there_and_has_a_reason():
    named = {
        one.name
        for target in TARGETS
        for path in target.paths
        for one in mutants(path, (ROOT / path).read_text(encoding="utf-8"))
    }
    for one in tomllib.loads(KNOWN.read_text(encoding="utf-8"))["survivor"]:
        assert (one["path"], one["place"], one["source"], one["change"], one.get("nth", 1)) in named
        assert len(one["reason"]) > 20


def test_every_target_and_its_tests_exist():
    for target in TARGETS:
        assert all((ROOT / path).exists() for path in (*target.paths, *target.tests))
