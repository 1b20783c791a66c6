"""``fedfsd region pause``, ``resume``, ``stop``: what an operator says to a running region."""

from __future__ import annotations

from fedfsd.cli.answer import Answer, Json, plain
from fedfsd.cli.extra import extra
from fedfsd.cli.region_folder import HERE, Region


def pause(region: Region = HERE, _json: Json = False) -> Answer:
    """Hold the outbox before the next byte.

    Rounds go on, their updates wait. Holds across restarts, and also where nothing runs now.
    """
    return _flag(region, paused=True)


def resume(region: Region = HERE, _json: Json = False) -> Answer:
    """Let go what pause held."""
    return _flag(region, paused=False)


def stop(region: Region = HERE, _json: Json = False) -> Answer:
    """End what runs of the region, cleanly.

    A round in hand is done again, at no cost, when it runs again.
    """
    with extra("node"):
        from fedfsd.node.halt import halt
        from fedfsd.node.node import open_node

    node = open_node(region)
    halt(node)
    return Answer({"region": node.settings.name, "stopped": True}, f"region {node.settings.name} has stopped")


def _flag(region: Region, *, paused: bool) -> Answer:
    with extra("node"):
        from fedfsd.node.halt import hold
        from fedfsd.node.node import open_node

    node = open_node(region)
    running = hold(node, paused=paused)
    name = plain(node.settings.name)
    if paused:
        text = f"region {name} is paused: nothing leaves until fedfsd region resume"
    else:
        text = f"region {name} may send again"
    if not running:
        text += "\nno gate runs now; it holds for the next one"
    return Answer({"region": node.settings.name, "paused": paused, "running": running}, text)
