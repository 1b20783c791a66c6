"""``fedfsd region up`` and ``fedfsd coordinator up``: run one side's processes until Ctrl-C."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.extra import extra
from fedfsd.cli.folder import HERE, CoordinatorFolder, RegionFolder, Train
from fedfsd.plain_text import plain


def region(
    region: RegionFolder = HERE,
    train: Train = None,
    test_only: Annotated[
        bool,
        typer.Option(
            "--test-only", help="Also accept rehearsal plans (their noise key is public). For testing only."
        ),
    ] = False,
    gate_user: Annotated[
        str | None, typer.Option(metavar="USER", help="As root: run the gate as this user.")
    ] = None,
    train_user: Annotated[
        str | None, typer.Option(metavar="USER", help="As root: run the runner as this user.")
    ] = None,
    _json: Json = False,
) -> Answer:
    """Run the gate and the runner until Ctrl-C.

    Restarts them if they fail, and reports when they are ready and which separation this machine does not
    enforce. Stops cleanly on SIGTERM.
    """
    with extra("node"):
        from fedfsd.node.node import open_node
        from fedfsd.node.up import up

    node = open_node(region)
    up(
        node,
        train or region / "train",
        test_only=test_only,
        gate_user=gate_user,
        train_user=train_user,
        say=_say,
    )
    return Answer({"region": node.settings.name, "stopped": True}, f"region {node.settings.name} has stopped")


def coordinator(coordinator: CoordinatorFolder = HERE, _json: Json = False) -> Answer:
    """Run the engine and the gate until Ctrl-C.

    Restarts them if they fail, and reports when they are ready. Stops cleanly on SIGTERM.
    """
    with extra("node"):
        from fedfsd.coordinator.folder import open_coordinator
        from fedfsd.coordinator.up import up

    opened = open_coordinator(coordinator)
    up(opened, say=_say)
    return Answer({"federation": opened.name, "stopped": True}, f"coordinator {opened.name} has stopped")


def _say(sentence: str) -> None:
    print(plain(sentence), file=sys.stderr, flush=True)
