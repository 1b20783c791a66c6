"""``fedfsd region bundle`` and ``incident``: evidence and notes for auditors."""

from __future__ import annotations

from contextlib import closing
from enum import StrEnum
from typing import Annotated, Any

import typer

from fedfsd.cli.answer import Answer, Json, size
from fedfsd.cli.destination import Output, checked
from fedfsd.cli.folder import HERE, RegionFolder
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
