"""Federations that run a round each in turn, so that one machine's moods meet all of them alike.

The ServerApp calls ``Turn.arrive`` after every round and goes on when it is its turn again; whoever measures
calls ``lend``. They meet in two files: a line for every arrival, with the seconds that the round took, and a
byte for every turn that was given.
"""

from __future__ import annotations

import time
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

_LOOK_SECONDS = 0.005
KEY = "turn"
"""In the run configuration: the file of arrivals."""

server = ServerApp()


@server.main()
def conduct(grid: Grid, context: Context) -> None:
    """Our own ServerApp, but that each round after the first waits for its turn."""
    from fedfsd.simulation import apps
    from fedfsd.simulation.trail import Trail

    turn, finish = Turn(Path(str(context.run_config[KEY]))), Trail.on_round

    def on_round(trail: Trail, done: object) -> None:
        finish(trail, done)
        turn.arrive()

    Trail.on_round = on_round
    apps.coordinate(grid, context)


class Turn:
    """The side of a federation."""

    def __init__(self, file: Path) -> None:
        self._file, self._arrivals, self._started = file, 0, time.monotonic()

    def arrive(self) -> None:
        """Note how long the round took, from the turn that was given for it, and wait for the next turn."""
        with self._file.open("a") as file:
            file.write(f"{time.monotonic() - self._started}\n")
        self._arrivals += 1
        while _size(given(self._file)) < self._arrivals:
            time.sleep(_LOOK_SECONDS)
        self._started = time.monotonic()


def given(file: Path) -> Path:
    """The file of turns beside a file of arrivals."""
    return file.with_suffix(".given")


def arrivals(file: Path) -> list[float]:
    """Seconds of each round so far; of the first, since the federation's own start."""
    text = file.read_text() if file.exists() else ""
    return [float(line) for line in text.split("\n")[:-1]]


def lend(file: Path) -> None:
    """Let one more round run."""
    with given(file).open("a") as turns:
        turns.write(".")


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0
