"""``fedfsd region plans`` and ``plan``: what waits for approval, and what approving it would mean."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fedfsd.cli.answer import Answer, Json, lines, rounded_up, size, table
from fedfsd.cli.config import Overrides
from fedfsd.cli.folder import HERE, RegionFolder
from fedfsd.plain_text import plain

DIGITS = 12
"""Of a hash, as shown."""

PlanName = Annotated[str, typer.Argument(metavar="PLAN")]
DataSet = Annotated[
    str | None, typer.Option(metavar="LABEL", help="The data set; optional if there is only one grant.")
]


def plans(region: RegionFolder = HERE, _json: Json = False) -> Answer:
    """List the plans that wait for approval."""
    from fedfsd.node.node import open_node
    from fedfsd.node.offer import waiting

    found = waiting(open_node(region))
    if not found:
        return Answer({"plans": []}, "no plan waits for approval")
    following = f"fedfsd region plan {found[0]['plan'][:DIGITS]} shows what approving it would mean"
    return Answer({"plans": found}, f"{listed(found)}\n{following}")


def plan(
    plan: PlanName,
    region: RegionFolder = HERE,
    data_set: DataSet = None,
    overrides: Overrides = None,
    _json: Json = False,
) -> Answer:
    """Show what approving a plan would mean.

    PLAN is the plan.json that the coordinator sent, or the beginning of the hash of one that came over the
    border. Nothing is booked.
    """
    import datetime

    from fedfsd.node import approve, offer
    from fedfsd.node.node import open_node

    node = open_node(region, overrides=overrides or [])
    today = datetime.datetime.now(datetime.UTC).date()
    found = offer.describe(node, approve.named(node, plan), data_set=data_set, today=today)
    return Answer(found, described(found))


def listed(found: list[dict[str, Any]]) -> str:
    """Waiting plans as a table."""
    return table(
        [
            {
                "plan": one["plan"][:DIGITS],
                "name": plain(one["name"]),
                "epsilon": "none" if one["epsilon"] is None else rounded_up(one["epsilon"]),
                "delta": f"{one['delta']:g}",
                "rounds": one["rounds"],
                "task": one["task"],
                "model": one["model"],
            }
            for one in found
        ]
    )


def described(found: dict[str, Any]) -> str:
    """All of ``node.offer.describe`` for a person."""
    budget = found["budget"]
    facts = {
        "asked by": f"{found['recipient']}, for {found['purpose']}",
        "beside": ", ".join(found["others"]) or "no other region",
        "trains": f"{found['task']}, model {found['model']} with {found['parameters']:,} parameters",
        **_frozen(found),
        "rounds": f"{found['rounds']} of {_count(found['local_steps'], 'step')}; in each step every vehicle"
        f" with probability {found['sample_rate']:g}, at most {found['windows_per_vehicle']} examples of it",
        "leaves": f"{size(found['release_bytes'])} a round, {size(found['release_bytes'] * found['rounds'])}"
        f" in all; counts with weight {found['weight']:.2f}",
        "vehicles": f"{found['roster']:,}, identity {found['identity']}",
        "privacy": _privacy(found),
    }
    if "charged" in budget:
        facts |= _cost(budget)
    facts["policy"] = "accepts" if not found["objections"] else "refuses: " + "; ".join(found["objections"])
    if budget["objection"] is not None:
        facts["budget"] = budget["objection"]
    elif budget["officer_signs"]:
        facts["budget"] = "above a cap of the grant: the data officer has to sign"
    if budget.get("transfer"):
        facts["transfer"] = budget["transfer"]
    for number, one in enumerate(found["unnoticed"]):
        facts["cannot be noticed" if number == 0 else " " * number] = one
    return f"plan {plain(found['name'])} ({found['plan'][:DIGITS]}): {found['standing']}\n{lines(facts)}"


def _frozen(found: dict[str, Any]) -> dict[str, str]:
    """The part of the model that stays as it is."""
    frozen = found["backbone"]
    if frozen is None:
        return {}
    source = {
        "file": f"the weights file with SHA-256 {frozen['sha256']}, for the runner's folder of backbones",
        "model": "as the model's own reviewed code makes them",
    }[frozen["source"]]
    return {"frozen": f"{frozen['size']:,} further parameters, {source}"}


def _privacy(found: dict[str, Any]) -> str:
    if found["epsilon"] is None:
        return f"NONE: mode {found['mode']}"
    return (
        f"epsilon {rounded_up(found['epsilon'])} at delta {found['delta']:g} for this plan alone;"
        f" noise {found['noise']}, clip {found['max_grad_norm']:g}"
    )


def _cost(budget: dict[str, Any]) -> dict[str, str]:
    until = budget["lasts_until"]
    return {
        "charged": f"{100 * budget['share']:.1f} % of the lifetime grant of epsilon {budget['granted']:g}"
        f" at delta {budget['granted_delta']:g} on {budget['data_set']}",
        "grant": f"at epsilon {rounded_up(budget['before'])} before, {rounded_up(budget['after'])} with"
        f" this plan; {100 * budget['share_left']:.1f} % left, more such plans: {budget['more_such_plans']}",
        "lasts": "no pace yet" if until is None else f"until {until} at the pace so far",
    }


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
