"""``fedfsd --version``: what is installed, said at once and without loading it."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from importlib import metadata

import pytest

from fedfsd.cli import version
from fedfsd.ledger import digest

pytest_plugins = ["typing_user"]


def test_it_prints_versions_and_the_hash_that_ledgers_hold(fedfsd):
    said = fedfsd("--version")
    assert (said.code, said.err) == (0, "")
    libraries = ", ".join(f"{name} {metadata.version(name)}" for name in version.LIBRARIES)
    assert said.out == f"fedfsd {digest.version()}\ncode {digest.code()}\n{libraries}\n"


def test_as_one_document(fedfsd):
    for words in (["--version", "--json"], ["--json", "--version"]):
        said = fedfsd(*words)
        assert said.code == 0
        assert json.loads(said.out) == {
            "version": digest.version(),
            "code": digest.code(),
            "libraries": {name: metadata.version(name) for name in version.LIBRARIES},
        }


def test_what_is_not_installed_has_no_version(fedfsd, monkeypatch):
    monkeypatch.setattr(version, "LIBRARIES", ("nothing-of-that-name",))
    assert fedfsd("--version").out.endswith("nothing-of-that-name not installed\n")
    assert json.loads(fedfsd("--version", "--json").out)["libraries"] == {"nothing-of-that-name": None}


@pytest.mark.parametrize("words", [["--version", "plan", "a.toml"], ["--json"], ["--versions"]])
def test_other_words_are_refused(fedfsd, words):
    assert fedfsd(*words).code == 2


def test_it_answers_in_half_a_second_of_work_and_imports_none_of_them():
    code = """
import sys
from fedfsd.cli.main import run
try:
    run(["--version"])
finally:
    print(*{"torch", "opacus", "flwr", "dp_accounting", "numpy"} & set(sys.modules), file=sys.stderr)
"""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stderr.strip() == ""
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 0.5
