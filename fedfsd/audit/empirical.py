"""What canaries showed of a plan's mechanism: the document of ``fedfsd audit canaries``.

They were trained alone, or stood beside vehicles in the plan's rounds.

A region, or anybody with its program, makes it; nothing in it is computed from data. It shows what that
program did on that machine, and is as believable as whoever ran it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from fedfsd.audit import handed
from fedfsd.config.load import Frozen
from fedfsd.language import mark, say
from fedfsd.ledger.entry import Hex32, Text

MOST_BYTES = 2**22


class CheckFound(Frozen):
    """One figure beside what it should be."""

    name: Text
    found: float
    expected: float
    fails: bool
    meaning: Text


class BoundsFound(Frozen):
    """Lower bounds on epsilon, each alone at ``confidence``."""

    canaries: Annotated[int, Field(ge=1)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    confidence: Annotated[float, Field(gt=0, lt=1)]
    one_run: float
    one_run_f: float
    gaussian_pair: float


class RegionFound(Frozen):
    """One region's mechanism."""

    epsilon: float | None
    """What the plan claims."""
    steps: Annotated[int, Field(ge=1)]
    checks: tuple[CheckFound, ...]
    bounds: BoundsFound | None
    alarm: str | None
    replay: tuple[str, ...]
    """The faults that a replay found."""
    commitment: Hex32
    """To the coins."""
    of: Literal["training", "rounds"] = "training"
    """Whether canaries were trained alone, or stood beside vehicles in the plan's rounds."""
    committed: bool | None = True
    """Of rounds: whether the ledger commits to the coins; None: to none."""
    missing: tuple[int, ...] = ()
    """Of rounds: those whose released bytes were not there."""
    noticed: float | None = None
    """Of rounds: from how many times C on clipping would have been noticed."""


class Found(Frozen):
    """The whole document."""

    format: Literal[1] = 1
    kind: Literal["fedfsd-canaries"] = "fedfsd-canaries"
    plan: Hex32
    version: Text
    code: Hex32
    """Hash of fedfsd's files, as an entry ``program`` has it."""
    regions: dict[str, RegionFound]


def read(paths: Sequence[Path]) -> tuple[Found, ...]:
    """The documents in files; see ``handed.read``."""
    source = "what fedfsd audit canaries PLAN -o FILE writes"
    return handed.read(Found, paths, most=MOST_BYTES, what="audit canaries", source=source)


def sentences(found: Sequence[Found], region: str, plans: Mapping[str, Any]) -> Iterator[str]:
    """What they say of a region's plans, ``plans`` by hash, in sentences to quote."""
    for document in found:
        one = document.regions.get(region)
        if document.plan not in plans or one is None:
            continue
        about = say(
            "plan {plan}, by fedfsd {version} (code {code})",
            plan=document.plan[:8],
            version=document.version,
            code=document.code[:8],
        )
        faults = [*one.replay, *(check.name for check in one.checks if check.fails)]
        faults += [one.alarm] if one.alarm else []
        faults += [say("coins that its ledger does not commit to")] if one.committed is False else []
        if faults:
            yield say(
                "{about}: its mechanism was tried and is not the plan's: {faults}",
                about=about,
                faults="; ".join(faults),
            )
            continue
        if one.of == "rounds":
            yield say(
                "{about}: {steps:,} private steps with canaries beside vehicles agree with the plan's "
                "sensitivity, sampling and noise, by released bytes and by coins to which {ledger}",
                about=about,
                steps=one.steps,
                ledger=say("the ledger committed") if one.committed else say("nothing committed"),
            )
            if one.missing:
                yield say(
                    "{about}: {count} rounds are missing from that", about=about, count=len(one.missing)
                )
        else:
            yield say(
                "{about}: a replay on neighbouring tables found no difference but a clipped sum within C, "
                "and {steps:,} private steps of canaries agree with the plan's sensitivity, sampling and "
                "noise",
                about=about,
                steps=one.steps,
            )
        if one.bounds is not None:
            mine = one.bounds
            yield say(
                "{about}: from {canaries:,} canaries epsilon is at least {pair:.2f} (two Gaussians, "
                "nominal), {curves:.2f} (trade-off curves) and {any:.2f} (any mechanism), each with "
                "{confidence:.0%} confidence at delta {delta:g}; claimed: {claimed}",
                about=about,
                canaries=mine.canaries,
                pair=mine.gaussian_pair,
                curves=mine.one_run_f,
                any=mine.one_run,
                confidence=mine.confidence,
                delta=mine.delta,
                claimed=say("none") if one.epsilon is None else f"{one.epsilon:.2f}",
            )


BOUNDS = (
    ("gaussian_pair", mark("two Gaussians")),
    ("one_run_f", mark("trade-off curves")),
    ("one_run", mark("any mechanism")),
)
"""Lower bounds, the tightest first; each assumes less than the one before."""


def beside_claims(found: Sequence[Found], region: str, plans: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The lower bounds that they state of a region's plans, each beside its claim."""
    return [
        {
            "plan": document.plan,
            "of": one.of,
            "epsilon": one.epsilon,
            "delta": one.bounds.delta,
            "confidence": one.bounds.confidence,
            "canaries": one.bounds.canaries,
            "bounds": {name: getattr(one.bounds, name) for name, _ in BOUNDS},
        }
        for document in found
        if document.plan in plans
        and (one := document.regions.get(region)) is not None
        and one.bounds is not None
    ]
