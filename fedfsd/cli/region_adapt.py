"""``fedfsd region adapt``: the region's own model, for use inside its jurisdiction."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fedfsd.cli.answer import Answer, Json, table
from fedfsd.cli.config import Overrides
from fedfsd.cli.extra import extra
from fedfsd.cli.folder import HERE, RegionFolder, Train
from fedfsd.plain_text import plain


def adapt(
    run: Annotated[str, typer.Argument(metavar="RUN")],
    region: RegionFolder = HERE,
    train: Train = None,
    overrides: Overrides = None,
    now: Annotated[bool, typer.Option("--now", help="Do not wait for open plans to end.")] = False,
    _json: Json = False,
) -> Answer:
    """Train the shared model on, for this region alone.

    RUN is a folder with plan.json and model.safetensors of a run, or the beginning of a plan's hash: then the
    model that the plan's last round here was sent. The runner trains it on the region's own drives without
    noise, and ends by a fifth of the training vehicles; --set changes a key of an experiment's [resident].
    The model stays in the runner's folder: it is not private and must not leave. Nobody outside is told.
    """
    with extra("node"):
        from fedfsd.node.node import open_node
        from fedfsd.node.own_model import adapt as work

    card = work(open_node(region), train or region / "train", run, settings=overrides or [], now=now)
    return Answer(card, _text(card))


def _text(card: dict[str, Any]) -> str:
    keys = [key for key in next(iter(card["figures"].values()), {}) if key.endswith(("_m", "_rate"))]
    rows = [{"model": name, **{key: one[key] for key in keys}} for name, one in card["figures"].items()]
    found = "no test vehicle of this region has an example: nothing was measured"
    if rows:
        one = card["figures"]["resident"]
        found = (
            f"{table(rows)}\n{one['test_windows']} examples of {one['test_vehicles']} of its own test "
            "vehicles; alone: the same training from the plan's public start"
        )
    ended = f"after {card['epochs']} epochs" if card["epochs"] else "at once: training on did not help"
    return (
        f"{found}\n"
        f"best on {card['held_out']} of {card['vehicles']} vehicles, held out, {ended}\n"
        f"{plain(card['not_private'])}\n{plain(card['must_not_leave'])}\n{plain(card['file'])}"
    )
