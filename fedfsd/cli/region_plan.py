"""``fedfsd region plans`` and ``plan``: what waits for approval, and what approving it would mean."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from fedfsd.cli.answer import Answer, Json, lines, rounded_up, size, table
from fedfsd.cli.config import Overrides
from fedfsd.cli.folder import HERE, RegionFolder
from fedfsd.language import say, say_count
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
    title = f"plan {plain(found['name'])} ({found['plan'][:DIGITS]}): {found['standing']}"
    return f"{title}\n{lines(facts(found))}"


def facts(found: dict[str, Any]) -> dict[str, str]:
    """Label and text of everything to weigh."""
    budget = found["budget"]
    told = {
        say("asked by"): say("{recipient}, for {purpose}", **_named(found, "recipient", "purpose")),
        say("beside"): ", ".join(found["others"]) or say("no other region"),
        say("trains"): say(
            "{task}, model {model} with {parameters:,} parameters",
            **_named(found, "task", "model", "parameters"),
        ),
        **_frozen(found),
        say("rounds"): say(
            "{rounds} of {steps}; in each step every vehicle with probability {sample_rate:g}, at most"
            " {windows_per_vehicle} examples of it",
            steps=say_count("{n} step", "{n} steps", found["local_steps"]),
            **_named(found, "rounds", "sample_rate", "windows_per_vehicle"),
        ),
        say("leaves"): say(
            "{each} a round, {all} in all; counts with weight {weight:.2f}",
            each=size(found["release_bytes"]),
            all=size(found["release_bytes"] * found["rounds"]),
            weight=found["weight"],
        ),
        say("vehicles"): say("{roster:,}, identity {identity}", **_named(found, "roster", "identity")),
        say("privacy"): _privacy(found),
    }
    if "charged" in budget:
        told |= _cost(budget)
    told[say("policy")] = (
        say("refuses: {why}", why="; ".join(found["objections"])) if found["objections"] else say("accepts")
    )
    if budget["objection"] is not None:
        told[say("budget")] = budget["objection"]
    elif budget["officer_signs"]:
        told[say("budget")] = say("above a cap of the grant: the data officer has to sign")
    if budget.get("transfer"):
        told[say("transfer")] = budget["transfer"]
    for number, one in enumerate(found["unnoticed"]):
        told[say("cannot be noticed") if number == 0 else " " * number] = one
    return told


def _named(found: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: found[name] for name in names}


def _frozen(found: dict[str, Any]) -> dict[str, str]:
    """The part of the model that stays as it is."""
    frozen = found["backbone"]
    if frozen is None:
        return {}
    source = (
        say("as the model's own reviewed code makes them")
        if frozen["source"] == "model"
        else say(
            "the weights file with SHA-256 {sha256}, for the runner's folder of backbones",
            sha256=frozen["sha256"],
        )
    )
    return {say("frozen"): say("{size:,} further parameters, {source}", size=frozen["size"], source=source)}


def _privacy(found: dict[str, Any]) -> str:
    if found["epsilon"] is None:
        return say("NONE: mode {mode}", mode=found["mode"])
    return say(
        "epsilon {epsilon} at delta {delta:g} for this plan alone; noise {noise}, clip {max_grad_norm:g}",
        epsilon=rounded_up(found["epsilon"]),
        **_named(found, "delta", "noise", "max_grad_norm"),
    )


def _cost(budget: dict[str, Any]) -> dict[str, str]:
    until = budget["lasts_until"]
    return {
        say("charged"): say(
            "{share:.1f} % of the lifetime grant of epsilon {granted:g} at delta {granted_delta:g} on"
            " {data_set}",
            share=100 * budget["share"],
            **_named(budget, "granted", "granted_delta", "data_set"),
        ),
        say("grant"): say(
            "at epsilon {before} before, {after} with this plan; {left:.1f} % left, more such plans: {more}",
            before=rounded_up(budget["before"]),
            after=rounded_up(budget["after"]),
            left=100 * budget["share_left"],
            more=budget["more_such_plans"],
        ),
        say("lasts"): say("no pace yet")
        if until is None
        else say("until {date} at the pace so far", date=until),
    }
