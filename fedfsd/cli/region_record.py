"""``fedfsd region bundle``, ``coins`` and ``incident``: evidence and notes for auditors."""

from __future__ import annotations

import json
from contextlib import closing
from enum import StrEnum
from typing import Annotated, Any

import typer

from fedfsd.cli.answer import Answer, Json, size
from fedfsd.cli.destination import Output, checked
from fedfsd.cli.extra import extra
from fedfsd.cli.folder import HERE, RegionFolder, Train
from fedfsd.plain_text import plain


class IncidentOption(StrEnum):
    """What something happened to."""

    key = "key"
    data = "data"
    software = "software"
    transfer = "transfer"
    other = "other"


def bundle(output: Output, region: RegionFolder = HERE, _json: Json = False) -> Answer:
    """Write the bundle for auditors.

    All entries and checkpoints, the last checkpoint signed now over everything. Nothing in it is secret.
    """
    from fedfsd import canonical
    from fedfsd.ledger import bundle
    from fedfsd.node.node import open_node

    checked(output, ".zip")
    with closing(open_node(region).open_ledger()) as ledger:
        ledger.bundle(output)
        keys = [f"officer {ledger.state.officer}", f"node {ledger.state.node}"]
    made = bundle.read(output)
    document: dict[str, Any] = {
        "file": str(output),
        "sha256": canonical.sha256(output.read_bytes()),
        "bytes": output.stat().st_size,
        "region": made.manifest.region,
        "ledger": made.manifest.ledger,
        "entries": made.manifest.size,
        "checkpoints": len(made.checkpoints),
        "trust_lines": keys,
    }
    text = (
        f"{plain(output)}: {made.manifest.size} entries, {len(made.checkpoints)} checkpoints,"
        f" {size(document['bytes'])}\nsha256 {document['sha256']}\n"
        f"check it: fedfsd audit verify {plain(output)} --trust trust.keys"
    )
    return Answer(document, text)


def coins(
    plan: Annotated[str, typer.Argument(metavar="PLAN")],
    output: Output,
    region: RegionFolder = HERE,
    train: Train = None,
    _json: Json = False,
) -> Answer:
    """Open the canaries of a settled plan to an auditor.

    Which of its synthetic vehicles took part, as the plan's entry committed before the first round. From it,
    the bundle and the released updates, fedfsd audit canaries computes what the runner saw. Nothing in it is
    about a vehicle of the region. PLAN is the beginning of the plan's hash, or its file.
    """
    with extra("node"):
        from fedfsd.node.coins import opened
        from fedfsd.node.node import open_node

    checked(output, ".json")
    found = opened(open_node(region), train or region / "train", plan)
    document = found.model_dump(mode="json")
    output.write_text(json.dumps(document) + "\n", encoding="utf-8")
    text = (
        f"{plain(output)}: the coins of plan {found.plan[:8]} in {found.region}\n"
        f"check them: fedfsd audit canaries PLAN --coins {plain(output)} --bundle BUNDLE --releases FOLDER"
    )
    return Answer({"file": str(output), **document}, text)


def incident(
    what: Annotated[IncidentOption, typer.Argument()],
    text: Annotated[str, typer.Argument(metavar="TEXT")],
    region: RegionFolder = HERE,
    plan: Annotated[
        str | None, typer.Option(metavar="PLAN", help="The plan it concerns: the beginning of its hash.")
    ] = None,
    _json: Json = False,
) -> Answer:
    """Record an incident for auditors.

    Entries are permanent. Up to 2000 characters, nothing about a person or a vehicle.
    """
    from fedfsd.node import approve
    from fedfsd.node.node import open_node

    with closing(open_node(region).open_ledger()) as ledger:
        concerned = approve.find(ledger.state, plan).entry.plan if plan else None
        ledger.incident(what.value, text, plan_hash=concerned)
        seq = ledger.state.size - 1
    return Answer({"entry": seq, "code": what.value, "plan": concerned, "text": text}, f"entry {seq}")
