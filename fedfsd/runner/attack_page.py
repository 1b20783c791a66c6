"""What attacks found, as a page that a data officer can read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from fedfsd.plain_text import plain
from fedfsd.plan.plan import Plan
from fedfsd.runner.attack import FOUND, Attacked, Inversion, Membership

INTRO = """\
Two attacks were made on what the regions of this plan would release, on this machine, with synthetic
vehicles in the place of real ones; no data was read. Beside each stands the same attack on releases without
noise. That one must succeed: otherwise the attack would be too weak to show anything."""
MEMBERSHIP = """\
**Did a vehicle take part?** The attacker knows the vehicle's data and all others; all that is unknown is
whether it was used. Canaries are vehicles made to be as easy to recognise as any can be; the other rows are
of made-up driving, by shadow models. False alarms are vehicles that were not used."""
TABLE = """\
| seen | false alarms | recognised | allowed by epsilon | allowed by the plan's curve | without noise |
|---|---|---|---|---|---|"""
INVERSION = "**What did it drive?** The attacker takes the input of a layer from one vehicle's gradient."
LIMITS = """\
What this does not show: that no better attack exists. The guarantee is epsilon, not this page. A region that
runs another program is not attacked by this one."""


def page(plan: Plan, done: Mapping[str, Attacked]) -> str:
    """The page in Markdown; ``done`` by region."""
    title = f"# Attacks on plan {plain(plan.name)} ({plan.hash[:8]})"
    parts = [title, INTRO, *(part for name, one in done.items() for part in _region(name, one)), LIMITS]
    return "\n\n".join(parts)


def _region(name: str, one: Attacked) -> Iterator[str]:
    yield f"## {plain(name)}: {_verdict(one)}"
    yield MEMBERSHIP
    if not one.membership:
        yield "Not tried: too few vehicles on the roster, and a model with a frozen part."
    else:
        yield "\n".join([TABLE, *map(_row, one.membership)])
    yield INVERSION
    yield _inversion(one.inversion)


def _verdict(one: Attacked) -> str:
    if one.exceeds:
        return "an attack shows more than the plan allows"
    if not one.valid:
        return "a control failed, so nothing is shown"
    return "no attack shows more than the plan allows"


def _row(one: Membership) -> str:
    cells = (one.false_positives, one.true_positives, one.by_epsilon, one.by_curve, one.control)
    shown = ["not stated" if cell is None else f"{cell:.1%}" for cell in cells]
    return f"| {' | '.join([one.attacker, *shown])} |"


def _inversion(one: Inversion | None) -> str:
    if one is None:
        return "Not tried: the model has no linear layer with a bias, or has a frozen part."
    return (
        f"Of {one.tried} vehicles, each alone in a step, the input of `{plain(one.layer)}` was found (cosine"
        f" of {FOUND:g} or more) for {one.found}; without noise for {one.control}."
    )
