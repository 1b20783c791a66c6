"""``fedfsd completion``: what makes a shell complete commands, options and files."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import completion_init, get_completion_script  # type: ignore[attr-defined]

from fedfsd.cli.answer import Answer, Json

VARIABLE = "_FEDFSD_COMPLETE"
"""In the environment of a call by which a shell asks what may follow."""


class Shell(StrEnum):
    """Whose script."""

    bash = "bash"
    zsh = "zsh"
    fish = "fish"


def completion(shell: Annotated[Shell, typer.Argument(metavar="SHELL")], _json: Json = False) -> Answer:
    """Print what makes bash, zsh or fish complete the command.

    For bash into ~/.local/share/bash-completion/completions/fedfsd, for zsh into a file _fedfsd on its fpath,
    for fish into ~/.config/fish/completions/fedfsd.fish.
    """
    script = get_completion_script(prog_name="fedfsd", complete_var=VARIABLE, shell=shell.value)
    return Answer({"shell": shell.value, "script": script}, script)


def begin() -> None:
    """Where a shell asks, have typer answer it."""
    if VARIABLE in os.environ:
        completion_init()
