"""``fedfsd region pause``, ``resume``, ``stop``, ``refuse``: control a running region."""

from __future__ import annotations

from pathlib import Path

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.extra import extra
from fedfsd.cli.folder import HERE, RegionFolder
from fedfsd.cli.region_plan import PlanName
from fedfsd.plain_text import plain


def pause(region: RegionFolder = HERE, _json: Json = False) -> Answer:
    """Hold back all updates from the next byte on.

    Rounds go on, their updates wait. Survives restarts, and also takes effect when nothing is running now.
    """
    return _flag(region, paused=True)


def resume(region: RegionFolder = HERE, _json: Json = False) -> Answer:
    """Release what pause held back."""
    return _flag(region, paused=False)


def stop(region: RegionFolder = HERE, _json: Json = False) -> Answer:
    """Stop the region's processes cleanly.

    A round in progress is repeated after the next start, at no cost.
    """
    with extra("node"):
        from fedfsd.node.node import open_node
        from fedfsd.node.running import halt

    node = open_node(region)
    halt(node)
    return Answer({"region": node.settings.name, "stopped": True}, f"region {node.settings.name} has stopped")


def refuse(plan: PlanName, region: RegionFolder = HERE, _json: Json = False) -> Answer:
    """Refuse a plan on offer.

    PLAN is the beginning of its hash, as status shows it. The coordinator learns that this region refuses,
    but not why. End a plan that is already approved with settle.
    """
    with extra("node"):
        from fedfsd.node import approve, control
        from fedfsd.node.node import open_node

    node = open_node(region)
    named = approve.named(node, plan)
    control.ask(node, {"op": "decline", "plan": named.hash})
    text = f"plan {plain(named.name)} ({named.hash[:8]}): refused"
    return Answer({"region": node.settings.name, "plan": named.hash, "refused": True}, text)


def _flag(region: Path, *, paused: bool) -> Answer:
    with extra("node"):
        from fedfsd.node.node import open_node
        from fedfsd.node.running import hold

    node = open_node(region)
    running = hold(node, paused=paused)
    name = plain(node.settings.name)
    if paused:
        text = f"region {name} is paused: no update leaves until fedfsd region resume"
    else:
        text = f"region {name} may send updates again"
    if not running:
        text += "\nno gate is running now; this applies from the next start"
    return Answer({"region": node.settings.name, "paused": paused, "running": running}, text)
