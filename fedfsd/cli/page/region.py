"""The pages of a region's folder: what ``region status`` and ``region plan`` know. Nothing is decided."""

from __future__ import annotations

import datetime
from contextlib import closing
from pathlib import Path
from typing import Any

from fedfsd import canonical
from fedfsd.cli import region_live, region_plan, region_status
from fedfsd.cli.page.site import Address, Page
from fedfsd.errors import NotReadyError
from fedfsd.language import say
from fedfsd.node import approve, offer
from fedfsd.node.node import Node, open_node
from fedfsd.node.running import live
from fedfsd.node.status import status
from fedfsd.plan import plan as plans
from fedfsd.plan.plan import Plan


def addresses(folder: Path) -> list[Address]:
    """The region's status, and every plan that waits for approval or was approved."""

    def overview() -> Page:
        return Page("region.html", values(folder), live=True)

    def plan(digits: str) -> Page:
        node = open_node(folder)
        found = offer.describe(node, _plan(node, digits), data_set=None, today=_today())
        told = {
            "title": found["name"],
            "heading": "",
            "found": found,
            "facts": region_plan.facts(found),
            "waits": found["standing"] == say("waits for approval"),
        }
        return Page("plan.html", told)

    return [Address("/", overview), Address("/plan/{digits}", plan)]


def values(folder: Path) -> dict[str, Any]:
    """What the template needs of a region."""
    node = open_node(folder)
    found = status(node, today=_today()) | live(node, folder / "train")
    return {
        "title": say("Region {region}", region=found["region"]),
        "heading": say("closed") if found["closed"] else "",
        "found": found,
        "live_text": region_live.text(found),
        "waiting": offer.on_offer(node),
        "tables": [(title, rows) for title, rows in region_status.tables(found) if rows],
        "head": region_status.head(found),
        "plan_key": say("plan"),
    }


def _plan(node: Node, digits: str) -> Plan:
    """The one plan, on offer or in the ledger, whose hash begins so."""
    offered = {path.stem: path for path in (node.folder / approve.OFFERED).glob("*.json")}
    with closing(node.open_ledger()) as ledger:
        booked = {name: run.entry.document for name, run in ledger.state.runs.items()}
    found = [name for name in {**offered, **booked} if name.startswith(digits)]
    if len(found) != 1:
        raise NotReadyError("plan", got="none or several with these digits", expected="the hash of one plan")
    if found[0] in booked:
        return plans.read(canonical.encode(booked[found[0]]).decode())
    return approve.read(offered[found[0]])


def _today() -> datetime.date:
    return datetime.datetime.now(datetime.UTC).date()
