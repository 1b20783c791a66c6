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


@dataclass
class Typed(Stage):
    """``up`` and ``run`` start processes, as a person's would; other commands do only where they must."""

    say: Callable[[str], None] = lambda line: None

    def fedfsd(self, *words: object, code: int = 0, at: str = "") -> str:
        """As the stage's."""
        if self.within.get(at):
            return super().fedfsd(*words, code=code, at=at)
        self.show(words)
        ended, out, err = self.typed(words)
        if ended != code:
            raise StageError(f"{shlex.join(map(str, words))}\n{err or out}")
        return out

    def typed(self, words: tuple[object, ...]) -> tuple[object, str, str]:
        """Exit code, what went to stdout, what went to stderr."""
        out, err = io.StringIO(), io.StringIO()
        ended: object = 0
        with redirect_stdout(out), redirect_stderr(err):
            try:
                main.run([str(word) for word in words])
            except SystemExit as end:
                ended = end.code
        return ended, out.getvalue(), err.getvalue()

    def ready(self, name: str) -> bool:
        """As the stage's."""
        words: tuple[object, ...] = ("coordinator", "status", "-C", self.coordinator)
        if name != "coordinator":
            words = ("region", "status", "--region", self.places[name].folder)
        ended, out, _ = self.typed((*words, "--json"))
        return ended == 0 and bool(json.loads(out).get("ready"))
