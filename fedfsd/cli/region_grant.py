"""``fedfsd region grant``: what may be lost in total on one data set, with what its order means."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json, rounded_up, table
from fedfsd.cli.folder import HERE, RegionFolder
from fedfsd.cli.region_sign import Draft, OfficerKey, finish


def grant(
    epsilon: Annotated[float, typer.Option(help="What all plans on the data set may ever cost.")],
    delta: Annotated[float, typer.Option(help="Below 1 / number of vehicles.")],
    data_set: Annotated[str, typer.Option(metavar="LABEL", help="What the data set is called.")],
    region: RegionFolder = HERE,
    data: Annotated[
        Path | None, typer.Option(metavar="PATH", help="Its tables, to commit to their content as well.")
    ] = None,
    for_plan: Annotated[
        Path | None, typer.Option("--for", metavar="PLAN", help="Choose the order for plans like this one.")
    ] = None,
    alpha: Annotated[int | None, typer.Option(help="The order, 2 to 64, instead of a chosen one.")] = None,
    max_plans: Annotated[int, typer.Option(min=1, help="The horizon in plans.")] = 1000,
    max_rounds: Annotated[int, typer.Option(min=1, help="The horizon in rounds of them all.")] = 100_000,
    plan_cap: Annotated[
        float | None, typer.Option(metavar="EPSILON", help="Alone charged more, a plan needs the officer.")
    ] = None,
    recipient_cap: Annotated[
        float | None, typer.Option(metavar="EPSILON", help="So do plans of one recipient together.")
    ] = None,
    approval_required: Annotated[
        bool, typer.Option("--approval-required", help="Each transfer needs an approval.")
    ] = False,
    disjoint: Annotated[
        bool,
        typer.Option("--disjoint", help="No vehicle was in the data before: spent loss begins at zero."),
    ] = False,
    carried_rho: Annotated[
        int, typer.Option(metavar="NANO-NATS", min=0, help="Loss suffered in an earlier ledger.")
    ] = 0,
    officer_key: OfficerKey = None,
    output: Draft = None,
    _json: Json = False,
) -> Answer:
    """Draft a lifetime budget for the officer.

    One order is fixed for good: at it all plans are added up. A second grant on a label succeeds the
    first, keeps its order and what is spent.
    """
    from contextlib import closing

    from fedfsd.node import approve, grant
    from fedfsd.node.node import open_node

    node = open_node(region)
    plan = approve.read(for_plan) if for_plan else None
    event = plan.event(node.settings.name) if plan else None
    wish = grant.Wish(
        data_set=data_set,
        epsilon=epsilon,
        delta=delta,
        alpha=alpha,
        plan=event,
        max_plans=max_plans,
        max_rounds=max_rounds,
        plan_cap=plan_cap,
        recipient_cap=recipient_cap,
        approval_required=approval_required,
        disjoint=disjoint,
        carried_rho=carried_rho,
    )
    with closing(node.open_ledger()) as ledger:
        state = ledger.state
    made = grant.make(state, wish, policy=node.policy(), salts=node.salts, data=data)
    answer = finish(node, made, officer_key=officer_key, output=output)
    if plan is None or event is None:
        return answer
    orders = grant.orders(made, event, rounds=plan.num_rounds, state=state)
    rows = [
        {
            "order": f"{one.alpha}{' (the grant)' if one.alpha == made.alpha else ''}",
            "such a plan alone is charged": rounded_up(one.epsilon_charged),
            "such plans that fit": one.fitting,
        }
        for one in orders
    ]
    return replace(
        answer,
        document={**answer.document, "orders": [asdict(one) for one in orders]},
        text=f"{table(rows)}\n{answer.text}",
    )
