"""CONTRIBUTING.md is true: its files and tests exist, and following a list works in a copy of the tree."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (.+?)\n(.+?)(?=^### |\Z)", TEXT, re.MULTILINE | re.DOTALL))
ADDED = (
    "A reader",
    "A model",
    "A task",
    "A strategy",
    "A mechanism",
    "An audit check",
    "A finding of the data check",
    "A border message",
    "An experiment key",
)


def touched(section: str) -> list[str]:
    """The paths in the first column of a section's table."""
    rows = re.findall(r"^\| (`.+?) \|", SECTIONS[section], re.MULTILINE)
    return [path for row in rows for path in re.findall(r"`([^`]+)`", row)]


def proofs(section: str) -> list[str]:
    """The tests that a section names as its proof."""
    return re.findall(r"`(tests/[^`]+)`", SECTIONS[section].partition("\nProof")[2])


def test_it_says_how_to_add_each_of_them():
    assert tuple(SECTIONS) == ADDED


@pytest.mark.parametrize("section", ADDED)
def test_every_file_that_is_named_is_there(section):
    assert touched(section)
    for path in touched(section):
        # Where the file is new, the folder that it goes to is there.
        place = ROOT / path.partition("/NAME")[0]
        assert place.exists(), path


@pytest.mark.parametrize("section", ADDED)
def test_every_proof_that_is_named_is_a_test(section):
    assert proofs(section)
    for proof in proofs(section):
        path, _, name = proof.partition("::")
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        found = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert not name or name in found, proof


@pytest.fixture
def copy(tmp_path):
    """A copy of what an addition touches, the tests beside it, and a way to run tests in it."""
    for folder in ("fedfsd", "tests"):
        # With what is compiled already, which is true of the copies, too.
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=shutil.ignore_patterns("release_*"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def edit(copy: Path, path: str, old: str, new: str) -> None:
    """Replace what must occur once in a file."""
    text = (copy / path).read_text(encoding="utf-8")
    assert text.count(old) == 1, (path, old)
    (copy / path).write_text(text.replace(old, new), encoding="utf-8")


def python(copy: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, *words],
        cwd=copy,
        env=os.environ | {"PYTHONPATH": str(copy)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_following_the_lists_adds_a_key_a_check_and_a_model(copy):
    """One after the other in one copy; a process that runs the tests of all three takes seconds to start."""
    command = add_a_key(copy)
    add_a_check(copy)
    add_a_model(copy)
    key = [one for one in proofs("An experiment key") if "evolution" not in one]
    check = [
        "tests/audit/test_region_file.py::test_every_check_says_what_it_checks",
        "tests/audit/test_misdeed.py::test_an_honest_ledger_holds",
        "tests/audit/test_hostile.py::test_a_damaged_bundle_does_not_hide_the_others",
        "tests/audit/test_command.py::test_sarif_is_what_tools_expect",
    ]
    tests = [*key, *check, *proofs("A model")]
    said = python(
        copy, "-m", "pytest", "-v", "-p", "no:cacheprovider", *tests, "-k", "twin or not test_model"
    )
    for proof in tests:  # each of them was chosen and ran
        assert re.search(rf"^{re.escape(proof)}\b.* PASSED", said, re.MULTILINE), proof
    (copy / "named.toml").write_text('format = 2\nname = "x"\n[data]\nNAME = 3\n', encoding="utf-8")
    assert "data.NAME = 3" in python(copy, "-c", command, "config", "check", "named.toml")


def add_a_key(copy: Path) -> str:
    """An experiment's; what runs a command."""
    key = 'path: str = "embedded"'
    edit(copy, "fedfsd/config/experiment.py", key, f"{key}\n    NAME: int = 0")
    start = "    found = deepcopy(dict(document))\n"
    left_out = '    if found["data"].pop("NAME"):\n        return None\n'
    edit(copy, "fedfsd/config/format_1.py", f"{start}    if", f"{start}{left_out}    if")
    command = "from fedfsd.cli.main import run; run()"
    schema = python(copy, "-c", command, "config", "schema", "experiment")
    (copy / "fedfsd/config/experiment.schema.json").write_text(schema, encoding="utf-8")
    return command


def add_a_check(copy: Path) -> None:
    """An audit's."""
    (copy / "fedfsd/audit/extra.py").write_text(
        "from collections.abc import Iterator\n\n"
        "from fedfsd.audit.evidence import Ledger\nfrom fedfsd.audit.finding import Finding\n\n\n"
        "def check_extra(ledger: Ledger) -> Iterator[Finding]:\n"
        '    """Nothing is wrong with it."""\n    yield from ()\n'
    )
    verify = "fedfsd/audit/verify.py"
    imported = "from fedfsd.audit.filter import"
    edit(copy, verify, imported, f"from fedfsd.audit.extra import check_extra\n{imported}")
    line = "        sheet.run(check_rounds, ledger)"
    edit(copy, verify, line, f"        sheet.run(check_extra, ledger)\n{line}")
    table = "CHECKS: Mapping[str, str] = {\n"
    edit(copy, "fedfsd/audit/explained.py", table, f'{table}    "extra": mark("Nothing."),\n')


def add_a_model(copy: Path) -> None:
    """Of forecasting."""
    models = copy / "fedfsd/task/forecasting/model"
    shutil.copy(models / "mlp.py", models / "twin.py")
    edit(copy, "fedfsd/gate/policy.py", '("mlp", "gru"', '("twin", "mlp", "gru"')
