"""``fedfsd audit replay``: does this machine's program run the mechanism that a plan says?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedfsd.cli.answer import Answer, Json
from fedfsd.cli.extra import extra
from fedfsd.errors import NotReadyError, PlanError
from fedfsd.plain_text import plain

CONTRADICTED = 10


def replay(
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan's document, or a run folder.")],
    region: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Only this region; by default every one.")
    ] = None,
    device: Annotated[str, typer.Option(metavar="NAME", help="Where to compute, as in train.toml.")] = "auto",
    _json: Json = False,
) -> Answer:
    """Run one round again on neighbouring made-up tables, and compare.

    Everything that enters or leaves the mechanism must be equal but the clipped sum, and that differs by
    at most C; and it must be what the plan's constants and the run key make of it. Reads no data and costs
    no budget; runners do the same before a plan's first round. Exit code 10: a fault.
    """
    with extra("training"):
        from fedfsd.plan import plan as plans
        from fedfsd.runner import replay as work

    path = plan / "plan.json" if plan.is_dir() else plan
    try:
        found = plans.read(path.read_text(encoding="utf-8").rstrip("\n"))
    except (OSError, UnicodeDecodeError):
        raise NotReadyError(str(path), got="nothing readable", expected="a plan, or a run folder") from None
    if found.mode == "none":
        raise PlanError("mode", got="none", expected="a private plan, or a rehearsal")
    document, lines = [], []
    for name in region or found.regions:
        one = work.of_plan(found, name, device)
        document.append(
            {"region": name, "faults": list(one.faults), "steps": one.runs, "seconds": round(one.seconds, 3)}
        )
        said = "; ".join(one.faults) or "as planned"
        lines.append(f"{name}: {said} ({one.runs} private steps in {one.seconds:.1f} s)")
    faulty = any(one["faults"] for one in document)
    lines.append("verdict: " + ("not the plan's mechanism" if faulty else "the plan's mechanism"))
    return Answer(
        {"plan": found.hash, "regions": document, "outcome": "contradicted" if faulty else "holds"},
        "\n".join(map(plain, lines)),
        CONTRADICTED if faulty else 0,
    )


COMMANDS = (("replay", replay, "runs/quickstart"),)
