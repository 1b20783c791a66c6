"""What all regions together claim: the largest of their epsilons, or all of their losses added up.

The maximum holds for a vehicle that is in one data set of one region only. For one that is in all of
them the Renyi losses are added at the smallest of the grants' orders: a loss at a higher order bounds
the loss at a lower one, so the sum is a bound whoever chose what after seeing which release.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedfsd.audit.case import Case
from fedfsd.audit.chapter import Chapter
from fedfsd.audit.loss import epsilon_lifetime
from fedfsd.audit.text import number
from fedfsd.audit.words import chance, meaning
from fedfsd.errors import PlanError
from fedfsd.language import say


def joint(found: Sequence[Case], *, vehicles_cross: bool, unread: Sequence[str] = ()) -> dict[str, Any]:
    """Epsilon and delta over all regions, with the sentence that states them.

    Args:
        unread: files that may be bundles of further regions, which only a newer release can read.
    """
    chapters = [(case, chapter) for case in found for chapter in case.course.chapters]
    why = _missing(found, [chapter for _, chapter in chapters], unread)
    document: dict[str, Any] = {
        "guarantee": not why,
        "vehicles_cross": vehicles_cross,
        "epsilon_grant": None,
        "epsilon_lifetime": None,
        "delta": None,
        "sentences": [say("No joint guarantee: {why}.", why=why)] if why else [],
    }
    if why:
        return document
    delta = max(chapter.grant.delta for _, chapter in chapters)
    granted, charged = _added(chapters, delta) if vehicles_cross else _largest(chapters)
    return document | {
        "epsilon_grant": granted,
        "epsilon_lifetime": charged,
        "delta": delta,
        "sentences": [
            _sentence(granted, charged, delta, vehicles_cross=vehicles_cross),
            *([meaning(granted, delta)] if granted is not None else []),
        ],
    }


def _missing(found: Sequence[Case], chapters: Sequence[Chapter], unread: Sequence[str]) -> str:
    """Why nothing can be said of all regions; empty where something can."""
    wrong = [case.title for case in found if case.contradicted]
    if wrong:
        return say("the evidence of {regions} is contradicted", regions=", ".join(wrong))
    newer = [*(case.title for case in found if case.withheld), *unread]
    if newer:
        return say("the evidence of {regions} cannot be read in full", regions=", ".join(newer))
    if not chapters:
        return say("there is no grant")
    if any(chapter.rehearsal for chapter in chapters):
        return say("part of the evidence is a rehearsal")
    return ""


def _largest(chapters: Sequence[tuple[Case, Chapter]]) -> tuple[float, float]:
    grants = [chapter.grant.epsilon for _, chapter in chapters]
    charged = [chapter.epsilon(chapter.account.spent + chapter.account.held) for _, chapter in chapters]
    return max(grants), max(epsilon or 0.0 for epsilon in charged)


def _added(chapters: Sequence[tuple[Case, Chapter]], delta: float) -> tuple[float | None, float | None]:
    alpha = min(chapter.grant.alpha for _, chapter in chapters)
    granted = sum(chapter.grant.rho_max for _, chapter in chapters)
    charged = sum(chapter.loss(alpha) + chapter.account.held for _, chapter in chapters)
    try:
        return (
            epsilon_lifetime(granted, alpha=alpha, delta=delta),
            epsilon_lifetime(charged, alpha=alpha, delta=delta) if charged else 0.0,
        )
    except PlanError:
        return None, None


def _sentence(granted: float | None, charged: float | None, delta: float, *, vehicles_cross: bool) -> str:
    figures = say(
        "epsilon at most {granted} at delta {delta} by the grants, of which {charged} is charged",
        granted=number(granted),
        delta=chance(delta),
        charged=number(charged),
    )
    if vehicles_cross:
        return say(
            "All regions together, for a vehicle that may be in every data set of every region: {figures}, "
            "the losses of all of them added up.",
            figures=figures,
        )
    return say(
        "All regions together: {figures}, the largest of the regions', provided that each vehicle is in one "
        "data set of one region only, which the evidence cannot show.",
        figures=figures,
    )
