"""``fedfsd region up``: run a region's gate and runner until Ctrl-C."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json, plain
from fedfsd.cli.extra import extra
from fedfsd.cli.region_folder import HERE, Region

Train = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="The runner's folder; else train/ of the region."),
]


def up(
    region: Region = HERE,
    train: Train = None,
    test_only: Annotated[
        bool, typer.Option("--test-only", help="Take rehearsals too, whose noise is known. For trials.")
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

    Keeps both going, says when they are ready, and what separation this machine does not enforce. Stops
    cleanly on SIGTERM.
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
        say=lambda sentence: print(plain(sentence), file=sys.stderr, flush=True),
    )
    return Answer({"region": node.settings.name, "stopped": True}, f"region {node.settings.name} has stopped")
