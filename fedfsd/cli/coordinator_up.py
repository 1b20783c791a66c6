"""``fedfsd coordinator up``: run the engine and the gate until Ctrl-C."""

from __future__ import annotations

import sys

from fedfsd.cli.answer import Answer, Json, plain
from fedfsd.cli.coordinator_folder import HERE, Folder
from fedfsd.cli.extra import extra


def up(coordinator: Folder = HERE, _json: Json = False) -> Answer:
    """Run the engine and the gate until Ctrl-C.

    Keeps both going and says when they are ready. Stops cleanly on SIGTERM.
    """
    with extra("node"):
        from fedfsd.coordinator.folder import open_coordinator
        from fedfsd.coordinator.up import up

    opened = open_coordinator(coordinator)
    up(opened, say=lambda sentence: print(plain(sentence), file=sys.stderr, flush=True))
    return Answer({"federation": opened.name, "stopped": True}, f"coordinator {opened.name} has stopped")
