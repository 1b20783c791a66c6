"""Mutation score of the code that a privacy promise depends on most.

    python -m experiments.mutation                       # everything, about an hour of one core
    python -m experiments.mutation --only renyi --show   # one file; with what each survivor changes
    python -m experiments.mutation --sample 50 --seed 1  # that many of each file

A mutant is the code with one small fault (``mutants.py``); it is killed when a test fails (``trial.py``).
A survivor is either a test that is missing or a fault that makes no difference anybody could see: the second
kind is listed, with its reason, in ``survivors.toml``. The score counts both as survivors. Exit status 1: a
survivor that is not listed, a listed one that is killed, or a file below 90%.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import tomllib
from dataclasses import dataclass
from pathlib import Path

from experiments.mutation import trial
from experiments.mutation.mutants import Mutant, mutants

KNOWN = Path(__file__).with_name("survivors.toml")
TARGET = 0.9

MECHANISM = tuple(
    f"fedfsd/mechanism/{name}.py"
    for name in ("accountant", "calibration", "event", "influence", "kind", "renyi", "statement")
)
JUDGE = ("judge", "content_of", "_energy", "witness_std", "max_update_norm", "_gains")


@dataclass(frozen=True)
class Target:
    """Files, or some functions of one, and the tests that are about them."""

    paths: tuple[str, ...]
    tests: tuple[str, ...]
    functions: tuple[str, ...] = ()


TARGETS = (
    Target(
        MECHANISM,
        (
            "fedfsd/mechanism",
            "tests/mechanism",
            "tests/plan",
            "tests/gate/test_judge.py",
            "tests/gate/test_gate_by_round.py",
            "tests/gate/test_policy.py",
            "tests/ledger/test_ledger_by_round.py",
            "tests/audit/test_second_formula.py",
        ),
    ),
    Target(
        ("fedfsd/ledger/budget.py",),
        (
            "tests/ledger/test_budget.py",
            "tests/ledger/test_ledger.py",
            "tests/ledger/test_ledger_by_round.py",
            "tests/ledger/test_ledger_course.py",
            "tests/ledger/test_vectors.py",
        ),
    ),
    Target(
        ("fedfsd/gate/gate.py",),
        ("tests/gate/test_judge.py", "tests/gate/test_gate_by_round.py", "tests/gate/test_round.py"),
        JUDGE,
    ),
    Target(
        ("fedfsd/audit/filter.py",),
        (
            "tests/audit/test_filter.py",
            "tests/audit/test_misdeed.py",
            "tests/audit/test_audit_by_round.py",
        ),
    ),
)


def main() -> int:
    """Try every mutant, print the score of each file and what survived."""
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument(
        "--only", nargs="+", default=[""], help="only files whose path contains one of these"
    )
    arguments.add_argument("--sample", type=int, help="at most this many mutants of each file")
    arguments.add_argument("--seed", type=int, default=1, help="which ones")
    arguments.add_argument("--show", action="store_true", help="print each mutant as it is tried")
    given = arguments.parse_args()
    paths = [path for target in TARGETS for path in target.paths]
    for one in given.only:
        if not any(one in path for path in paths):
            arguments.error(f"--only: no file has {one} in its path: {', '.join(paths)}")
    trial.preload()
    known = _known()
    good = True
    for target in TARGETS:
        wanted = [path for path in target.paths if any(one in path for one in given.only)]
        reach = trial.reach([trial.ROOT / path for path in wanted], target.tests) if wanted else {}
        for path in wanted:
            tried = _chosen(path, target.functions, given.sample, given.seed)
            lived = _survivors(tried, reach[trial.ROOT / path], show=given.show)
            good &= _tell(path, tried, lived, known, whole=given.sample is None)
    return 0 if good else 1


def _chosen(path: str, functions: tuple[str, ...], sample: int | None, seed: int) -> list[Mutant]:
    found = [
        one
        for one in mutants(path, (trial.ROOT / path).read_text(encoding="utf-8"))
        if not functions or one.place.partition(".")[0] in functions
    ]
    if sample is None or sample >= len(found):
        return found
    return sorted(random.Random(seed).sample(found, sample), key=lambda one: one.number)


def _survivors(tried: list[Mutant], reach: trial.Reach, *, show: bool) -> list[Mutant]:
    lived = []
    for one in tried:
        started = time.monotonic()
        survived = trial.survives(one, reach)
        if survived:
            lived.append(one)
        if show:
            word = "survived" if survived else "killed"
            print(f"{word:8} {time.monotonic() - started:5.1f} s  {_place(one)}", flush=True)
    return lived


def _tell(
    path: str,
    tried: list[Mutant],
    lived: list[Mutant],
    known: dict[tuple[str, str, str, str, int], str],
    *,
    whole: bool,
) -> bool:
    """Print a file's score; whether it is as good as it should be."""
    score = 1 - len(lived) / len(tried)
    fresh = [one for one in lived if one.name not in known]
    print(
        f"{path}: {score:.1%} of {len(tried)} mutants killed; {len(lived)} survived, "
        f"{len(lived) - len(fresh)} of them listed as equivalent",
        flush=True,
    )
    for one in fresh:
        print(f"  survived: {_place(one)}")
    there = {one.name for one in tried}
    gone = [
        name
        for name in known
        if name[0] == path and name not in {one.name for one in lived} and (whole or name in there)
    ]
    for name in gone:
        print(f"  listed, but {'killed' if name in there else 'no longer there'}: {name[1:]}")
    return score >= TARGET and not fresh and not gone


def _place(one: Mutant) -> str:
    nth = f" (number {one.nth} there)" if one.nth > 1 else ""
    return f"{one.path}:{one.line} {one.place or 'top'}: {one.change}{nth} in: {one.source}"


def _known() -> dict[tuple[str, str, str, str, int], str]:
    """Survivors that cannot be killed, with the reason."""
    listed = tomllib.loads(KNOWN.read_text(encoding="utf-8"))["survivor"]
    return {
        (one["path"], one["place"], one["source"], one["change"], one.get("nth", 1)): one["reason"]
        for one in listed
    }


if __name__ == "__main__":
    sys.exit(main())
