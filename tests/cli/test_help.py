"""Help is short, frozen and fast. Write it anew: python tests/cli/test_help.py > tests/cli/help.txt"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["typing_user"]

FROZEN = Path(__file__).with_name("help.txt")
COMMANDS = (
    "",
    "simulate",
    "plan",
    "compare",
    "clean",
    "data",
    "data generate",
    "data import",
    "data check",
    "data show",
    "region",
    "region init",
    "region grant",
    "region plans",
    "region plan",
    "region approve",
    "region approve-transfer",
    "region sign",
    "region add",
    "region up",
    "region doctor",
    "region status",
    "region pause",
    "region resume",
    "region stop",
    "region settle",
    "region bundle",
    "region incident",
    "region recover",
    "region rotate",
    "region close",
    "coordinator",
    "coordinator init",
    "coordinator invite",
    "coordinator doctor",
    "coordinator run",
    "coordinator up",
    "coordinator status",
    "keys",
    "keys new",
    "keys show",
    "audit",
    "audit verify",
    "audit statement",
    "audit report",
    "audit transfers",
    "config",
    "config check",
    "config schema",
    "config pins",
    "config code",
)
HEAVY = {"torch", "flwr", "opacus", "dp_accounting", "numpy", "pyarrow", "pydantic", "matplotlib", "rich"}


def test_help_is_as_it_was(fedfsd):
    parts = []
    for command in COMMANDS:
        said = fedfsd(*command.split(), "--help")
        assert said.code == 0
        assert not said.err
        parts.append(said.out)
    assert "\n\n".join(parts) == FROZEN.read_text(encoding="utf-8")


def test_every_command_shows_an_example():
    for part in FROZEN.read_text(encoding="utf-8").split("\nUsage: "):
        assert "Example:" in part or "COMMAND" in part.splitlines()[0]


def test_no_words_means_help(fedfsd):
    said = fedfsd()
    assert said.code == 0
    assert "simulate" in said.out


def test_help_imports_nothing_heavy():
    code = "import sys, fedfsd.cli.main; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stdout.split())


@pytest.mark.parametrize(
    "words",
    [
        ["simulat"],
        ["data"],
        ["data", "chek"],
        ["simulate"],
        ["simulate", "a.toml", "b.toml"],
        ["simulate", "a.toml", "--engin", "local"],
        ["simulate", "a.toml", "--engine", "spark"],
        ["data", "generate", "--vehicles", "many", "-o", "a.parquet"],
        ["data", "import", "x", "-o", "a.parquet"],
        ["config", "schema", "plan"],
    ],
)
def test_a_wrong_call_is_exit_code_2_with_the_way_to_help(fedfsd, folder, words):
    said = fedfsd(*words)
    assert said.code == 2
    assert not said.out
    assert said.err.startswith("usage: fedfsd")
    assert said.err.count("\n") == 1
    assert "--help" in said.err
    said = fedfsd(*words, "--json")
    assert said.code == 2
    assert said.error["code"] == "usage"
    assert not list(folder.iterdir())


if __name__ == "__main__":
    command = Path(sys.executable).with_name("fedfsd")
    environment = {**os.environ, "COLUMNS": "80", "TERM": "dumb"}
    print(
        "\n\n".join(
            subprocess.run(
                [command, *words.split(), "--help"], capture_output=True, text=True, env=environment
            ).stdout
            for words in COMMANDS
        ),
        end="",
    )
