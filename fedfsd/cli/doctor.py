"""``fedfsd region doctor`` and ``fedfsd coordinator doctor``: is this side ready, and what fixes it?"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.extra import extra
from fedfsd.cli.folder import HERE, CoordinatorFolder, RegionFolder, Train
from fedfsd.plain_text import plain

if TYPE_CHECKING:
    from fedfsd.service.diagnosis import CheckResult

NOT_FIT = 4


def region(
    region: RegionFolder = HERE,
    train: Train = None,
    test_only: Annotated[bool, typer.Option("--test-only", help="Also accept rehearsal plans.")] = False,
    _json: Json = False,
) -> Answer:
    """Check everything a round needs, with a fix for each failure.

    Data, windows, disk, accelerator, clock, keys, certificate, coordinator, plans, budget, and that neither
    process can do what is reserved for the other. "waits" is what fedfsd region up does by itself, or what
    comes after another check. Exit code 4: a check failed.
    """
    with extra("node"):
        from fedfsd.node import doctor
        from fedfsd.node.node import open_node

    node = open_node(region)
    today = datetime.datetime.now(datetime.UTC).date()
    patient = doctor.Patient(
        node, train or region / "train", today, test_only or node.settings.border.test_only
    )
    return _answer(node.settings.name, doctor.examine(patient))


def coordinator(coordinator: CoordinatorFolder = HERE, _json: Json = False) -> Answer:
    """Check everything a run needs, with a fix for each failure.

    Disk, keys, root, certificates, revoked list, regions, engine and ports. Exit code 4: a check failed.
    """
    with extra("node"):
        from fedfsd.coordinator import doctor
        from fedfsd.coordinator.folder import open_coordinator

    hub = open_coordinator(coordinator)
    return _answer(hub.name, doctor.examine(hub))


def _answer(name: str, results: Sequence[CheckResult]) -> Answer:
    """A line a check, and below it the fix where one is needed."""
    width = max(len(one.check) for one in results)
    text = []
    for one in results:
        text.append(f"{one.outcome:5}  {one.check.ljust(width)}  {plain(one.found)}")
        if one.fix is not None:
            label = "then" if one.outcome == "waits" else "fix"
            text.append(f"{'':5}  {'':{width}}  {label}: {plain(one.fix)}")
    fit = all(one.outcome != "fail" for one in results)
    document = {"name": name, "fit": fit, "checks": [asdict(one) for one in results]}
    return Answer(document, "\n".join(text), 0 if fit else NOT_FIT)
