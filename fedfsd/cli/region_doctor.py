"""``fedfsd region doctor``: is this region fit to take part, and what mends it?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.extra import extra
from fedfsd.cli.region_folder import HERE, Region


def doctor(
    region: Region = HERE,
    train: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="The runner's folder; else train/ inside.")
    ] = None,
    test_only: Annotated[bool, typer.Option("--test-only", help="Plans may also be rehearsals.")] = False,
    _json: Json = False,
) -> Answer:
    """Check everything a round needs, with a fix for each failure.

    Data, disk, accelerator, clock, keys, certificate, coordinator, plans, budget, and that neither
    process can do what only the other may. Exit code 4 where a check failed.
    """
    import datetime

    from fedfsd.cli import doctor as findings

    with extra("node"):
        from fedfsd.node import doctor
        from fedfsd.node.node import open_node

    node = open_node(region)
    today = datetime.datetime.now(datetime.UTC).date()
    patient = doctor.Patient(
        node, train or region / "train", today, test_only or node.settings.border.test_only
    )
    return findings.answer(node.settings.name, doctor.examine(patient))
