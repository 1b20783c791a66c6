"""``fedfsd region approve``, ``approve-transfer`` and ``settle``: a plan's budget and its way abroad."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from fedfsd.cli import region_plan
from fedfsd.cli.answer import Answer, Json, rounded_up, warned
from fedfsd.cli.config import Overrides
from fedfsd.cli.folder import HERE, RegionFolder
from fedfsd.cli.region_plan import DataSet, PlanName
from fedfsd.cli.region_sign import Draft, OfficerKey, finish
from fedfsd.errors import BudgetError, RefusedError, UsageError
from fedfsd.plain_text import plain

if TYPE_CHECKING:
    from fedfsd.node.approve import Approved
    from fedfsd.node.node import Node


def approve(
    plan: PlanName,
    region: RegionFolder = HERE,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask; for scripts.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    data_set: DataSet = None,
    overrides: Overrides = None,
    officer_key: OfficerKey = None,
    output: Draft = None,
    program: Annotated[
        bool, typer.Option("--program", help="Also accept the program that the runner has now.")
    ] = False,
    _json: Json = False,
) -> Answer:
    """Show a plan, ask, and reserve its whole cost, or say why not.

    PLAN is the plan.json that the coordinator sent, or the beginning of the hash of one that came over the
    border (with --yes 16 digits or more). The running gate has the runner make its run key. Exit code 12:
    the budget does not allow it, or it is above a cap and was drafted for the officer; 13: the policy
    refuses it. Approving it again changes nothing, but with --program: after an upgrade of the runner an
    open plan goes on with the new program only once a person has accepted it.
    """
    import datetime

    from fedfsd.ledger.key import SigningKey
    from fedfsd.node import approve, offer
    from fedfsd.node.node import open_node

    node = open_node(region, overrides=overrides or [])
    found = approve.named(node, plan)
    today = datetime.datetime.now(datetime.UTC).date()
    if dry_run:
        described = offer.describe(node, found, data_set=data_set, today=today)
        return Answer(described, region_plan.described(described))
    if yes:
        approve.demand_named_fully(plan)
    else:
        _ask(region_plan.described(offer.describe(node, found, data_set=data_set, today=today)))
    officer = SigningKey.read(officer_key) if officer_key else None
    made = approve.approve(
        node, found, data_set=data_set, officer=officer, today=today.isoformat(), anew=program
    )
    _tell(node)
    mine = found.region(node.settings.name)
    document = {
        "approved": made.seq is not None,
        "entry": made.seq,
        "plan": made.entry.plan,
        "name": found.name,
        "epsilon": mine.epsilon,
        "delta": mine.target_delta,
        "epsilon_lifetime": made.balance.epsilon_lifetime,
        "epsilon_granted": made.balance.epsilon,
        "delta_granted": made.balance.delta,
        "rho": made.entry.rho,
        "rho_left": made.balance.left,
        "more_such_plans": made.fitting,
        "recipient": made.entry.recipient,
        "purpose": made.entry.purpose,
        "file": None,
        "warnings": list(made.warnings),
    }
    text = _text(found.name, mine.epsilon or 0.0, mine.target_delta, made)
    if made.seq is None:
        drafted = finish(node, made.entry, officer_key=None, output=output, exit_code=BudgetError.exit_code)
        head = f"{text}\nnot approved yet: above a cap of the grant, so the data officer signs it\n"
        return replace(
            drafted, document={**document, "file": drafted.document["file"]}, text=head + drafted.text
        )
    return Answer(document, warned(text, made.warnings))


def approve_transfer(
    authority: Annotated[str, typer.Option(metavar="TEXT", help="The authority that permits it.")],
    number: Annotated[str, typer.Option(metavar="TEXT", help="Its reference number; never reused.")],
    valid_from: Annotated[str, typer.Option("--from", metavar="YYYY-MM-DD", help="The first day.")],
    valid_until: Annotated[str, typer.Option("--until", metavar="YYYY-MM-DD", help="The last day.")],
    max_releases: Annotated[int, typer.Option(min=0, help="Updates in a calendar year.")],
    max_bytes: Annotated[int, typer.Option(min=0, help="Bytes in a calendar year.")],
    model: Annotated[
        list[str], typer.Option(metavar="NAME", help="A model that may be trained, or * for any; repeatable.")
    ],
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A task that may be trained; any if left out; repeatable."),
    ] = None,
    region: RegionFolder = HERE,
    data_set: DataSet = None,
    overrides: Overrides = None,
    officer_key: OfficerKey = None,
    output: Draft = None,
    _json: Json = False,
) -> Answer:
    """Draft a permission to transfer updates.

    Recipient and purpose are those of region.toml. Dates are days in UTC; they can only restrict.
    """
    from fedfsd.node import grant
    from fedfsd.node.node import open_node

    node = open_node(region, overrides=overrides or [])
    made = grant.permission(
        node,
        data_set=data_set,
        authority=authority,
        number=number,
        tasks=tuple(task or ()),
        models=tuple(model),
        valid=(valid_from, valid_until),
        max_releases=max_releases,
        max_bytes=max_bytes,
    )
    return finish(node, made, officer_key=officer_key, output=output)


def settle(
    plan: PlanName,
    region: RegionFolder = HERE,
    _json: Json = False,
) -> Answer:
    """End a plan and free its unused budget.

    PLAN is the beginning of its hash, as status shows it, or its file. Its run key is destroyed: no round
    of it can follow.
    """
    from contextlib import closing

    from fedfsd.node import approve
    from fedfsd.node.node import open_node

    node = open_node(region)
    with closing(node.open_ledger()) as ledger:
        run = approve.find(ledger.state, plan)
        approve.settle(node, ledger, run.entry.plan)
        reserved, released, freed = ledger.state.settlement(run)
    document = {"plan": run.entry.plan, "reserved": reserved, "released": released, "freed": freed}
    return Answer(
        document,
        f"{plain(run.entry.plan[:8])}: {released} of {run.entry.rounds} rounds released, "
        f"{freed / 1e9:.4g} nats free again",
    )


def _ask(described: str) -> None:
    """Go on only where a person who saw the plan says yes."""
    if not sys.stdin.isatty():
        raise UsageError(
            "region approve",
            got="nobody to ask",
            expected="a terminal, or --yes",
            hint="--dry-run shows the plan; --yes approves it without a question",
        )
    typer.echo(described, err=True)
    if not typer.confirm("approve this plan?", err=True):
        raise RefusedError("region approve", got="no", expected="a yes", hint="fedfsd region refuse PLAN")


def _tell(node: Node) -> None:
    """A gate that runs answers the coordinator at once; any other will when it starts."""
    from contextlib import suppress

    from fedfsd.errors import NotReadyError
    from fedfsd.node import control

    with suppress(NotReadyError):
        control.ask(node, {"op": "approve-notify"}, seconds=5.0)


def _text(name: str, epsilon: float, delta: float, made: Approved) -> str:
    balance = made.balance
    alone, granted = rounded_up(epsilon), f"{balance.epsilon:.2f}"
    if delta != balance.delta:  # two figures at two deltas cannot be compared unsaid
        alone, granted = f"{alone} (delta {delta:g})", f"{granted} (delta {balance.delta:g})"
    stands = "fits" if made.seq is None else f"approved as entry {made.seq}"
    return (
        f"plan {plain(name)} ({made.entry.plan[:8]}) on {plain(balance.data_set)}: {stands}\n"
        f"this plan alone {alone}; "
        f"charged to the lifetime grant {rounded_up(balance.epsilon_lifetime)} of {granted}\n"
        f"more such plans that fit then: {made.fitting}\n"
        f"to {plain(made.entry.recipient)}, for {plain(made.entry.purpose)}"
    )
