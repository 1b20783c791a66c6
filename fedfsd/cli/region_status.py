"""``fedfsd region status``: budget spent, reserved and left, and what to do about it."""

from __future__ import annotations

from typing import Any

from fedfsd.cli import region_live, region_plan
from fedfsd.cli.answer import Answer, Json, rounded_up, size, table, warned
from fedfsd.cli.folder import HERE, RegionFolder, Train
from fedfsd.language import say
from fedfsd.plain_text import plain

WIDE = 80


def status(region: RegionFolder = HERE, train: Train = None, _json: Json = False) -> Answer:
    """Show what is running and the budget left.

    Also plans, last releases, refused requests, approvals and warnings. Refuses (exit code 4) where the
    ledger is an older copy than its mirror or a witness knows.
    """
    import datetime

    from fedfsd.node.node import open_node
    from fedfsd.node.offer import on_offer
    from fedfsd.node.running import live
    from fedfsd.node.status import status

    node = open_node(region)
    found = status(node, today=datetime.datetime.now(datetime.UTC).date())
    found |= live(node, train or region / "train")
    found["waiting"] = on_offer(node)
    parts = [head(found), region_live.text(found), *map(_grant, found["grants"])]
    if found["waiting"]:
        parts.append(
            f"plans that wait: fedfsd region plan HASH shows one\n{region_plan.listed(found['waiting'])}"
        )
    parts += [_section(title, rows) for title, rows in tables(found) if rows]
    return Answer(found, warned("\n\n".join(parts) + "\n", found["warnings"]))


def head(found: dict[str, Any]) -> str:
    """Whose ledger it is, how long, and what signs it."""
    checkpoint = found["checkpoint"]
    if checkpoint is None:
        signed = say("none yet: fedfsd region bundle signs one")
    else:
        signed = say(
            "{size} entries, {since} since", size=checkpoint["size"], since=checkpoint["entries_since"]
        )
        if checkpoint["cosigned_size"] is not None:
            by = ", ".join(map(plain, checkpoint["cosigned_by"]))
            signed += say("; {size} cosigned by {by}", size=checkpoint["cosigned_size"], by=by)
    told = say(
        "{region}, ledger {ledger}: {entries} entries, {size}",
        region=found["region"],
        ledger=found["ledger"][:8],
        entries=found["entries"],
        size=size(found["bytes"]),
    )
    told += say(", epoch {epoch}", epoch=found["epoch"]) if found["epoch"] else ""
    told += say(", CLOSED") if found["closed"] else ""
    return "\n".join(
        [
            told,
            say("last checkpoint: {signed}", signed=signed),
            say("for an auditor's trust file:"),
            *(f"  {line}" for line in found["trust_lines"]),
        ]
    )


def _grant(grant: dict[str, Any]) -> str:
    spent, charged = float(rounded_up(grant["epsilon_spent"])), float(rounded_up(grant["epsilon_lifetime"]))
    most = grant["epsilon"]
    rows = [
        {"": "spent", "epsilon": f"{spent:.2f}", "nano-nats": f"{grant['spent']:,}"},
        {"": "held", "epsilon": f"{charged - spent:.2f}", "nano-nats": f"{grant['held']:,}"},
        {"": "left", "epsilon": f"{most - charged:.2f}", "nano-nats": f"{grant['left']:,}"},
        {"": "granted", "epsilon": f"{most:.2f}", "nano-nats": f"{grant['rho_max']:,}"},
    ]
    text = [
        f"{plain(grant['data_set'])}: epsilon {charged:.2f} of {most:.2f} spent or held"
        f" (delta {grant['delta']:g}, order {grant['alpha']}, entry {grant['entry']})",
        table(rows),
        f"plans {grant['plans']:,} of {grant['max_plans']:,},"
        f" rounds {grant['rounds']:,} of {grant['max_rounds']:,}",
    ]
    if grant["last_plan"] is not None:
        text.append(f"more plans like {plain(grant['last_plan'])} that fit: {grant['more_like_it']}")
    return "\n".join(text)


def tables(found: dict[str, Any]) -> list[tuple[str, list[dict[str, object]]]]:
    """(title, rows) of all that is listed; a title may have no rows."""
    return [
        (
            say("plans (rounds)"),
            [
                {
                    say("plan"): one["plan"][:8],
                    say("name"): one["name"],
                    say("epsilon alone"): None if one["epsilon"] is None else rounded_up(one["epsilon"]),
                    say("planned"): one["rounds"],
                    say("reserved"): one["reserved"],
                    say("released"): one["released"],
                    say("given up"): one["aborted"],
                    say("state"): say("over") if one["settled"] else say("open"),
                }
                for one in found["plans"]
            ],
        ),
        (
            say("last releases"),
            [
                {
                    say("entry"): one["entry"],
                    say("plan"): one["plan"][:8],
                    say("round"): one["round"],
                    say("date"): one["date"],
                    say("size"): size(one["bytes"]),
                    say("to"): one["destination"],
                    say("approval"): one["approval"],
                }
                for one in found["releases"]
            ],
        ),
        (
            say("refused requests"),
            [
                {
                    say("entry"): one["entry"],
                    say("plan"): one["plan"][:8],
                    say("round"): one["round"],
                    say("why"): one["code"],
                }
                for one in found["refusals"]
            ],
        ),
        (
            say("approvals to transfer (this year)"),
            [
                {
                    say("number"): one["number"],
                    say("to"): one["recipient"],
                    say("until"): one["valid_until"],
                    say("days left"): one["days_left"],
                    say("releases"): say("{done} of {all}", done=one["releases"], all=one["max_releases"]),
                    say("size"): say("{done} of {all}", done=size(one["bytes"]), all=size(one["max_bytes"])),
                    say("state"): say("void")
                    if one["void"]
                    else say("ended")
                    if one["days_left"] < 0
                    else say("valid"),
                }
                for one in found["approvals"]
            ],
        ),
        (
            say("incidents"),
            [
                {
                    say("entry"): one["entry"],
                    say("what"): one["code"],
                    say("text"): plain(one["text"], limit=WIDE),
                }
                for one in found["incidents"]
            ],
        ),
    ]


def _section(title: str, rows: list[dict[str, object]]) -> str:
    return f"{title}\n{table(rows)}"
