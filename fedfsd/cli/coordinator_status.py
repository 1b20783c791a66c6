"""``fedfsd coordinator status``: processes, regions, plans on offer, what arrived."""

from __future__ import annotations

from typing import Any

from fedfsd.cli.answer import Answer, Json, table, warned
from fedfsd.cli.extra import extra
from fedfsd.cli.folder import HERE, CoordinatorFolder
from fedfsd.cli.region_live import listed, processes
from fedfsd.plain_text import plain


def status(coordinator: CoordinatorFolder = HERE, _json: Json = False) -> Answer:
    """Show what is running and the state of every region.

    Certificates, outstanding rounds, refusals, plans on offer with each region's answer, and updates received
    for each plan.
    """
    with extra("node"):
        from fedfsd.coordinator.folder import open_coordinator
        from fedfsd.coordinator.status import status

    found = status(open_coordinator(coordinator))
    parts = [_head(found)]
    parts += [f"{title}\n{table(rows)}" for title, rows in _tables(found) if rows]
    return Answer(found, warned("\n\n".join(parts) + "\n", found["warnings"]))


def _head(found: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"{found['federation']}, {plain(found['address'])}: {'ready' if found['ready'] else 'NOT ready'}",
            f"processes: {processes(found['up'], 'fedfsd coordinator up')}",
            f"certificate: {found['certificate_days']} days left, root: {found['root_days']}",
        ]
    )


def _tables(found: dict[str, Any]) -> list[tuple[str, list[dict[str, object]]]]:
    return [
        (
            "regions",
            [
                {
                    "region": one["name"],
                    "state": one["state"],
                    "days left": one["certificate_days"],
                    "roster": one["declared"] and one["declared"]["roster"],
                    "seen": one["seen"],
                    "outstanding": _round(one["task"]),
                    "last": _round(one["last"]),
                    "refusals": listed(one["refusals"]) or None,
                }
                for one in found["regions"]
            ],
        ),
        (
            "plans on offer",
            [
                {
                    "plan": one["plan"][:8],
                    "name": one["name"],
                    "rounds": one["rounds"],
                    "answers": ", ".join(
                        f"{name} {said or 'pending'}" for name, said in one["answers"].items()
                    ),
                }
                for one in found["plans"]
            ],
        ),
        (
            "received (releases, newest round)",
            [
                {
                    "plan": one["plan"][:8],
                    "regions": ", ".join(
                        f"{name} {mine['releases']} ({mine['last_round']})"
                        for name, mine in one["regions"].items()
                    ),
                }
                for one in found["received"]
            ],
        ),
    ]


def _round(task: dict[str, Any] | None) -> str | None:
    if not task:
        return None
    return f"{task['plan'][:8]} round {task['round']} {task.get('stage') or task.get('outcome')}"
