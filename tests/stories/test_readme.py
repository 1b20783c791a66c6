"""The README does what it says: its Python example runs, its commands exist, its tree is the tree."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.S)
    for line in block.splitlines()
    if line.startswith("fedfsd")
]


@pytest.mark.slow
def test_the_python_example_runs(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", README, re.S)
    (tmp_path / "experiments").symlink_to(ROOT / "experiments")
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    fde, epsilon, report = done.stdout.split()
    assert 1 < float(fde) < 4
    assert 1.9 < float(epsilon) <= 2
    assert (tmp_path / report).read_text().startswith("<!")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_files_and_options_that_exist(command):
    words = command.split()
    groups = ("data", "config", "audit", "region", "coordinator", "keys")
    group = words[1:3] if words[1] in groups else words[1:2]
    done = subprocess.run(
        [sys.executable, "-c", "from fedfsd.cli.main import run; run()", *group, "--help"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    for word in words:
        if word.startswith("--"):
            assert word in done.stdout
        if word.endswith(".toml"):
            assert (ROOT / word).exists()


def test_the_file_tree_is_the_tree():
    (tree,) = re.findall(r"## Where things are\n\n```\n(.*?)```", README, re.S)
    told = {line.split()[0] for line in tree.splitlines() if not line.startswith(" ")}
    inside = {line.split()[0] for line in tree.splitlines() if line.startswith("  ")}
    for name in told:
        assert (ROOT / name).exists(), name
    packages = {f"{path.parent.name}/" for path in (ROOT / "fedfsd").glob("*/__init__.py")}
    assert packages == inside


@pytest.mark.parametrize(
    "file", sorted((ROOT / "clients" / "deploy").glob("*.toml")), ids=lambda file: file.stem
)
def test_every_deployed_policy_takes_the_quickstart(file):
    from fedfsd.config.experiment import Experiment
    from fedfsd.config.load import load
    from fedfsd.gate.policy import Policy, objections
    from fedfsd.simulation.prepare import prepare

    quick = load(Experiment, ROOT / "experiments" / "quickstart.toml", overrides=["pretraining.path=none"])
    assert objections(load(Policy, file), prepare(quick).plan, file.stem.upper()) == []


def test_the_flower_apps_are_thin():
    for app in ("server/app.py", "clients/app.py"):
        assert len((ROOT / app).read_text().splitlines()) <= 30
