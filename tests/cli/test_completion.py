"""``fedfsd completion``: each shell that is here completes the command as a person would see it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["typing_user"]
BASH = """
source ./script
COMP_WORDS=(fedfsd re); COMP_CWORD=1
_fedfsd_completion fedfsd
echo "${COMPREPLY[@]}"
COMP_WORDS=(fedfsd region approve --dry); COMP_CWORD=3
_fedfsd_completion fedfsd
echo "${COMPREPLY[@]}"
"""
FISH = """
source ./script
complete -C 'fedfsd re'
complete -C 'fedfsd region approve --dry'
"""
# zsh's own menu needs a terminal; what it shows is what the function's call answers.
ZSH = """
autoload -U compinit && compinit -D
source ./script
whence -w _fedfsd_completion
env _TYPER_COMPLETE_ARGS="fedfsd re" _FEDFSD_COMPLETE=complete_zsh fedfsd
env _TYPER_COMPLETE_ARGS="fedfsd region approve --dry" _FEDFSD_COMPLETE=complete_zsh fedfsd
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "words"),
    [("bash", ["--norc", "-c", BASH]), ("fish", ["--no-config", "-c", FISH]), ("zsh", ["-f", "-c", ZSH])],
)
def test_a_shell_completes(fedfsd, folder, shell, words):
    script = fedfsd("completion", shell)
    assert script.code == 0
    if shutil.which(shell) is None:
        pytest.skip(f"no {shell} here")
    (folder / "script").write_text(script.out, encoding="utf-8")
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {"PATH": path, "HOME": str(folder), "LC_ALL": "C.UTF-8"}
    done = subprocess.run([shell, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "region" in done.stdout
    assert "--dry-run" in done.stdout
    assert "simulate" not in done.stdout


def test_another_shell_is_refused(fedfsd):
    assert fedfsd("completion", "tcsh").code == 2
