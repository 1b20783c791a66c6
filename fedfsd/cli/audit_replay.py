"""``fedfsd audit replay``, ``canaries``, ``attack`` and ``selftest``: what this program makes of a plan."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedfsd.cli.answer import Answer, Json, table
from fedfsd.cli.destination import checked
from fedfsd.cli.extra import extra
from fedfsd.errors import NotReadyError, PlanError
from fedfsd.ledger import digest
from fedfsd.ledger.digest import coins_commitment
from fedfsd.plain_text import plain

if TYPE_CHECKING:
    from fedfsd.plan.plan import Plan

CONTRADICTED, UNDECIDED = 10, 11
PlanPath = Annotated[Path, typer.Argument(metavar="PLAN", help="A plan's document, or a run folder.")]
Regions = Annotated[
    list[str] | None, typer.Option("--region", metavar="NAME", help="Only this region; by default every one.")
]
Device = Annotated[str, typer.Option(metavar="NAME", help="Where to compute, as in train.toml.")]


def replay(
    plan: PlanPath,
    region: Regions = None,
    device: Device = "auto",
    _json: Json = False,
) -> Answer:
    """Run one round again on neighbouring made-up tables, and compare.

    Everything that enters or leaves the mechanism must be equal but the clipped sum, and that differs by
    at most C; and it must be what the plan's constants and the run key make of it. Reads no data and costs
    no budget; runners do the same before a plan's first round. Exit code 10: a fault.
    """
    with extra("training"):
        from fedfsd.runner import replay as work

    found, rows, lines = _plan(plan), [], []
    for name in region or found.regions:
        one = work.of_plan(found, name, device)
        rows.append(
            {"region": name, "faults": list(one.faults), "steps": one.runs, "seconds": round(one.seconds, 3)}
        )
        said = "; ".join(one.faults) or "as planned"
        lines.append(f"{name}: {said} ({one.runs} private steps in {one.seconds:.1f} s)")
    faulty = any(one["faults"] for one in rows)
    lines.append("verdict: " + ("not the plan's mechanism" if faulty else "the plan's mechanism"))
    return Answer(
        {"plan": found.hash, "regions": rows, "outcome": "contradicted" if faulty else "holds"},
        "\n".join(map(plain, lines)),
        CONTRADICTED if faulty else 0,
    )


def canaries(
    plan: PlanPath,
    region: Regions = None,
    device: Device = "auto",
    coins: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Coins that a region opened: look at the canaries of its real rounds instead.",
        ),
    ] = None,
    bundle: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", help="Beside --coins: the region's evidence. By default a run folder's."
        ),
    ] = None,
    releases: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Beside --coins: released updates. By default a run folder's."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="Write it for audit report: .json.")
    ] = None,
    _json: Json = False,
) -> Answer:
    """Train canaries with a plan's constants, or look at those of its rounds, and bound epsilon from below.

    Canaries are synthetic vehicles, each in or out by a secret coin; they go through this program's sampler,
    clipping, sum and noise for as many rounds as the plan has. Reads no data and costs no budget. Once a
    plan with canaries of its own is settled and a region opens its coins (--coins), released bytes show the
    same of its real rounds. Exit code 10: not the plan's mechanism; 11: too few vehicles for a bound, or
    rounds that are missing.
    """
    if output is not None:
        checked(output, ".json")
    found = _plan(plan)
    rows = _opened(found, plan, coins, bundle or (), releases) if coins else _trained(found, region, device)
    lines = [line for name, row in rows.items() for line in _told(name, row)]
    document = {
        "format": 1,
        "kind": "fedfsd-canaries",
        "plan": found.hash,
        "version": digest.version(),
        "code": digest.code(),
        "regions": rows,
    }
    if output is not None:
        output.write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        lines.append(f"written: {output}")
    wrong = any(_faulty(one) for one in rows.values())
    undecided = any(
        one["bounds"] is None or one["missing"] or one["committed"] is None for one in rows.values()
    )
    return Answer(
        document, "\n".join(map(plain, lines)), CONTRADICTED if wrong else UNDECIDED if undecided else 0
    )


def _trained(plan: Plan, regions: list[str] | None, device: str) -> dict[str, Any]:
    """By region, a training of canaries alone."""
    with extra("training"):
        from fedfsd.runner import canary
        from fedfsd.runner import replay as replays

    rows = {}
    for name in regions or plan.regions:
        replayed = replays.of_plan(plan, name, device)
        one = canary.trial(plan, name, device)
        rows[name] = {
            "of": "training",
            "epsilon": plan.region(name).epsilon,
            "steps": one.steps,
            "checks": [asdict(check) for check in one.checks],
            "bounds": one.bounds and asdict(one.bounds),
            "alarm": one.alarm,
            "replay": list(replayed.faults),
            "commitment": one.commitment,
            "committed": True,
            "missing": [],
            "noticed": None,
        }
    return rows


def _opened(
    plan: Plan, where: Path, files: Sequence[Path], bundles: Sequence[Path], releases: Path | None
) -> dict[str, Any]:
    """By region, the canaries of its rounds."""
    from fedfsd.audit import coins
    from fedfsd.audit.evidence import load

    if where.is_dir():
        bundles = bundles or sorted((where / "bundles").glob("*.zip"))
        releases = releases or where / "releases"
    evidence, rows = load(bundles, releases=releases), {}
    for one in coins.read(files):
        if one.plan != plan.hash:
            raise PlanError("coins", got=f"those of plan {one.plan[:8]}", expected=f"of plan {plan.hash[:8]}")
        found = coins.opened(one, evidence)
        rows[one.region] = {
            "of": "rounds",
            "epsilon": plan.region(one.region).epsilon,
            "steps": found.steps,
            "checks": [asdict(check) for check in found.checks],
            "bounds": found.bounds and asdict(found.bounds),
            "alarm": None,
            "replay": [],
            "commitment": coins_commitment(bytes.fromhex(one.seed)),
            "committed": found.committed,
            "missing": list(found.missing),
            "noticed": found.noticed if isfinite(found.noticed) else None,
        }
    return rows


def _told(name: str, row: dict[str, Any]) -> Iterator[str]:
    """One region's figures for people."""
    faults = [*row["replay"], *(f"{one['name']}: {one['meaning']}" for one in row["checks"] if one["fails"])]
    faults += [row["alarm"]] if row["alarm"] else []
    faults += [] if row["committed"] in (True, None) else ["coins that its ledger does not commit to"]
    what = "a training of canaries alone" if row["of"] == "training" else "the canaries of its rounds"
    yield f"{name}: {what}, {row['steps']} steps: {'; '.join(faults) or 'as planned'}"
    for check in row["checks"]:
        yield f"  {check['name']}: {check['found']:.3f}, planned {check['expected']:.3f}"
    if row["committed"] is None:
        yield "  a rehearsal: its ledger commits to no coins"
    if row["missing"]:
        yield f"  without the rounds {', '.join(map(str, row['missing']))}, whose released bytes are not here"
    if row["noticed"] is not None:
        yield f"  clipping to {row['noticed']:.2f} C or more would have shown"
    if row["bounds"] is None:
        yield "  too few vehicles for a lower bound on epsilon"
        return
    mine, claim = row["bounds"], "none" if row["epsilon"] is None else f"{row['epsilon']:.2f}"
    yield (
        f"  epsilon at least {mine['gaussian_pair']:.2f} (two Gaussians), {mine['one_run_f']:.2f} (trade-"
        f"off curves), {mine['one_run']:.2f} (any mechanism); claimed {claim}"
    )


def selftest(device: Device = "auto", _json: Json = False) -> Answer:
    """Audit a right training and two wrong ones: can the audit fail?

    One training of canaries as planned, one with half of the noise, one without clipping. Exit code 10: a
    fault was not found, or one was found in the right training.
    """
    with extra("training"):
        from fedfsd.runner import selftest as work

    rows, document, good = [], [], True
    for one in work.run(device):
        bounds = one.trial.bounds
        rows.append(
            {
                "training": one.name,
                "released bytes": "noise" if one.statistics else "-",
                "replay": f"{len(one.replay)} faults" if one.replay else "-",
                "canaries": ", ".join(one.canaries) or "-",
                "epsilon >=": bounds and bounds.gaussian_pair,
                "claim": work.EPSILON,
            }
        )
        document.append(
            {
                "training": one.name,
                "released_bytes": one.statistics,
                "replay": list(one.replay),
                "canaries": list(one.canaries),
                "bounds": bounds and asdict(bounds),
                "claim": work.EPSILON,
                "as_it_should_be": one.as_it_should_be,
            }
        )
        good = good and one.as_it_should_be
    told = "the audit finds what is wrong, and nothing in what is right"
    said = f"verdict: {told if good else 'the audit itself is wrong'}"
    return Answer(
        {"trainings": document, "good": good}, f"{table(rows)}\n{said}", 0 if good else CONTRADICTED
    )


def attack(
    plan: PlanPath,
    region: Regions = None,
    device: Device = "auto",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The page, to hand on: .md.")
    ] = None,
    _json: Json = False,
) -> Answer:
    """Attack what a plan releases: who took part, and what they drove?

    Membership (LiRA, offline) of canaries and, with shadow models, of made-up vehicles, beside what epsilon
    and the plan's own curve allow; and reconstruction of an input from a gradient. Each has a control
    without noise that must succeed. Reads no data. Exit code 10: an attack shows more than is allowed; 11: a
    control failed, or no attack could be made.
    """
    if output is not None:
        checked(output, ".md")
    with extra("training"):
        from fedfsd.runner import attack as work
        from fedfsd.runner.attack_page import page

    found = _plan(plan)
    done = {name: work.attack(found, name, device) for name in region or found.regions}
    document = {"plan": found.hash, "regions": {name: asdict(one) for name, one in done.items()}}
    exceeds = any(one.exceeds for one in done.values())
    blind = any(not one.valid or (not one.membership and one.inversion is None) for one in done.values())
    text = page(found, done)
    if output is not None:
        output.write_text(text + "\n", encoding="utf-8")
        text = f"written: {plain(output)}"
    return Answer(document, text, CONTRADICTED if exceeds else UNDECIDED if blind else 0)


def _plan(path: Path) -> Plan:
    from fedfsd.plan import plan as plans

    path = path / "plan.json" if path.is_dir() else path
    try:
        found = plans.read(path.read_text(encoding="utf-8").rstrip("\n"))
    except (OSError, UnicodeDecodeError):
        raise NotReadyError(str(path), got="nothing readable", expected="a plan, or a run folder") from None
    if found.mode == "none":
        raise PlanError("mode", got="none", expected="a private plan, or a rehearsal")
    return found


def _faulty(one: dict[str, Any]) -> bool:
    failed = any(check["fails"] for check in one["checks"])
    return bool(one["replay"] or one["alarm"] or failed or one["committed"] is False)


COMMANDS = (
    ("replay", replay, "runs/quickstart"),
    ("canaries", canaries, "runs/quickstart -o canaries.json"),
    ("selftest", selftest, ""),
    ("attack", attack, "runs/quickstart -o attacks.md"),
)
