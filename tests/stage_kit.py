"""A stage whose commands are called in the test's own process: a process for each takes a second of CPU."""

from __future__ import annotations

import io
import json
import shlex
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass

from experiments.federation.stage import Stage, StageError
from fedfsd.cli import main
from fedfsd.service.supervise import standing


def typed(*words: object) -> tuple[object, str, str]:
    """One command in this process: exit code, what went to stdout, what went to stderr."""
    out, err = io.StringIO(), io.StringIO()
    ended: object = 0
    with redirect_stdout(out), redirect_stderr(err):
        try:
            main.run([str(word) for word in words])
        except SystemExit as end:
            ended = end.code
    return ended, out.getvalue(), err.getvalue()


@dataclass
class Typed(Stage):
    """``up`` and ``run`` start processes, as a person's would; other commands do only where they must."""

    say: Callable[[str], None] = lambda line: None

    def fedfsd(self, *words: object, code: int = 0, at: str = "") -> str:
        """As the stage's."""
        if self.within.get(at):
            return super().fedfsd(*words, code=code, at=at)
        self.show(words)
        ended, out, err = typed(*words)
        if ended != code:
            raise StageError(f"{shlex.join(map(str, words))}\n{err or out}")
        return out

    def ready(self, name: str) -> bool:
        """As the stage's, asked once the supervisor says so: a status reads a whole ledger."""
        folder = self.coordinator if name == "coordinator" else self.places[name].folder
        found = standing(folder)
        if found is None or not all(one["ready"] for one in found["processes"]):
            return False
        words = ("coordinator", "status", "-C") if name == "coordinator" else ("region", "status", "--region")
        ended, out, _ = typed(*words, folder, "--json")
        return ended == 0 and bool(json.loads(out).get("ready"))
