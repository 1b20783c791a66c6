"""The Chinese README names commands, options, links and figures that there are."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from fedfsd.cli.main import tree

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "README.zh-CN.md").read_text(encoding="utf-8")
ENGLISH = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = [
    line.split("#")[0].split()
    for block in re.findall(r"```sh\n(.*?)```", TEXT, flags=re.S)
    for line in block.splitlines()
    if line.startswith("fedfsd")
]


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_and_option_is_one(words):
    command: click.Command = tree()
    rest = words[1:]
    while isinstance(command, click.Group):
        command, rest = command.commands[rest[0]], rest[1:]
    known = {name for one in command.params for name in one.opts}
    assert {word for word in rest if word.startswith("-")} <= known


def test_links_lead_somewhere_and_make_has_the_targets():
    for target in re.findall(r"\]\(([^)]+)\)", TEXT):
        assert (ROOT / target).exists(), target
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", TEXT, flags=re.M):
        assert f"\n{target}:" in makefile


def test_it_promises_what_the_english_one_does():
    for word in (
        "Python 3.11",
        "epsilon",
        "delta 1e-4",
        "1.8 GB",
        "Apache-2.0",
        "make demo",
        "make federation",
    ):
        assert word in TEXT
        assert word in ENGLISH
