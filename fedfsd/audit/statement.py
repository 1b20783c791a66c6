"""The guarantee in sentences that can be quoted: for each region, for all of them, and its limits.

Two figures must not be confused. What the *grant* allows holds whatever was chosen in the light of
earlier releases: that is what a Renyi filter proves. What is *charged* so far is the filter's count; it
is a guarantee of its own only where the plans were chosen without looking.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedfsd.audit.case import NO_DECLARATIONS, Case, cases, heading
from fedfsd.audit.chapter import Chapter, Run
from fedfsd.audit.declaration import Declaration
from fedfsd.audit.empirical import sentences
from fedfsd.audit.evidence import Evidence
from fedfsd.audit.finding import Kind
from fedfsd.audit.joint import joint
from fedfsd.audit.loss import NANO
from fedfsd.audit.text import number
from fedfsd.audit.verdict import Report
from fedfsd.audit.words import chance, counted, listed, meaning, quoted, said
from fedfsd.ledger.entry import Grant
from fedfsd.mechanism.statement import TWO_FIGURES

IDENTITIES = {
    "physical": "A vehicle key stands for one real vehicle in everything its source recorded.",
    "recording": "A vehicle key stands for one vehicle in one recording; a car recorded under two keys is "
    "protected per key only.",
}
GENERAL = {
    "Unit": "One vehicle: everything recorded about one vehicle key. The size of the roster is public.",
    "Adjacency": "Zero-out: the data as they are, compared with the same data in which everything that one "
    "vehicle contributes is replaced by nothing.",
    "Trust model": "Each region adds its own noise before anything leaves. The guarantee is against the "
    "coordinator, every other region and anybody they pass things on to, who see all that a region releases "
    "and may choose later plans after seeing it. A region is trusted with its own data only: to draw "
    "vehicles, clip and add noise as planned, and to keep the noise key secret.",
    "Covered": "Every release that the ledger records, and every round that it books, released or not.",
    "Two figures": TWO_FIGURES,
    "Not covered": "What does not pass through the ledger, such as a model or settings chosen on the same "
    "data outside it; the time a reply takes; the car that carried the sensors, and a car under a second "
    "key, unless they are mapped to one key; a person with several vehicles, to whom the losses of all of "
    "them apply; what can be learned about traffic in general.",
}


@dataclass(frozen=True)
class Sentence:
    """One sentence, what it is about, and whether it only repeats what the region declares."""

    about: str
    text: str
    declared: bool = False


def statement(
    evidence: Evidence,
    report: Report,
    declared: Mapping[str, Declaration] = NO_DECLARATIONS,
    *,
    vehicles_cross: bool = False,
) -> dict[str, Any]:
    """The statement as plain values; ``statement_text`` makes it a page.

    Args:
        report: what ``verify`` found of the same evidence.
        declared: what regions declare, by region.
        vehicles_cross: some vehicles are in several regions, so the losses of all regions add up.
    """
    found = cases(evidence, report, declared)
    return {
        "format": 1,
        "kind": "fedfsd-statement",
        "heading": heading(found),
        "outcome": str(report.outcome),
        "contradictions": [
            f"{said(where)}: {said(finding)}" for where, finding in report.found(Kind.CONTRADICTED)
        ],
        "regions": [region(case) | _tried(evidence, case) for case in found],
        "joint": joint(
            found,
            vehicles_cross=vehicles_cross,
            unread=[said(one.source) for one in evidence.refused if one.unread],
        ),
        "general": GENERAL,
        "undecided": [f"{said(where)}: {said(finding)}" for where, finding in report.found(Kind.UNDECIDED)],
        "unproved": list(report.unproved),
    }


def _tried(evidence: Evidence, case: Case) -> dict[str, Any]:
    """What trainings of canaries showed of the region's plans; absent where there were none."""
    ledger = case.course.ledger
    told = [] if case.withheld else list(sentences(evidence.canaries, ledger.region, ledger.plans))
    return {"empirical": told} if told else {}


def region(case: Case) -> dict[str, Any]:
    """What one region's evidence lets anybody say."""
    ledger = case.course.ledger
    entity = case.declaration.exporter.legal_entity if case.declaration else None
    document = {
        "region": case.title,
        "legal_entity": said(entity) if entity else None,
        "heading": case.course.heading,
        "outcome": str(case.report.outcome),
        "source": said(ledger.source),
        "sha256": ledger.sha256,
        "ledger": ledger.id,
        "entries": len(ledger.lines),
        "root": ledger.tree.root().hex(),
        "withheld": case.withheld,
    }
    if case.withheld:
        contradictions = [said(one) for one in case.findings(Kind.CONTRADICTED)]
        return document | {"guarantee": False, "contradictions": contradictions, "data_sets": []}
    chapters = [data_set(case, chapter) for chapter in case.course.chapters]
    return document | {
        "guarantee": bool(chapters) and all(one["guarantee"] for one in chapters),
        "contradictions": [],
        "data_sets": chapters,
    }


def data_set(case: Case, chapter: Chapter) -> dict[str, Any]:
    """Figures and sentences for the vehicles of one data set."""
    grant, account = chapter.grant, chapter.account
    rosters = sorted({run.promise.roster for run in chapter.runs if run.promise})
    return {
        "data_set": said(grant.data_set),
        "grant": grant.seq,
        "guarantee": not chapter.rehearsal,
        "epsilon_grant": None if chapter.rehearsal else grant.epsilon,
        "epsilon_lifetime": None if chapter.rehearsal else chapter.epsilon(account.spent + account.held),
        "epsilon_spent": None if chapter.rehearsal else chapter.epsilon(account.spent),
        "delta": grant.delta,
        "alpha": grant.alpha,
        "vehicles": rosters,
        "identities": sorted({run.promise.identity for run in chapter.runs if run.promise}),
        "plans": [_plan(run) for run in chapter.runs],
        "max_plans": grant.max_plans,
        "max_rounds": grant.max_rounds,
        "sentences": [asdict(one) for one in _sentences(case, chapter, rosters)],
    }


def _plan(run: Run) -> dict[str, Any]:
    booked, void = len(run.reserves), run.chapter.rehearsal
    return {
        "plan": run.entry.plan,
        "rehearsal": run.rehearsal,
        "epsilon": None if void else run.epsilon(run.rounds),
        "epsilon_stated": run.promise.epsilon if run.promise else None,
        "epsilon_booked": None if void else run.epsilon(run.reserves),
        "epsilon_lifetime": None if void else run.chapter.epsilon(run.committed, run.grant),
        "delta": run.promise.target_delta if run.promise else None,
        "rounds": run.entry.rounds,
        "booked": booked,
        "released": len(run.releases),
    }


def _sentences(case: Case, chapter: Chapter, rosters: Sequence[int]) -> Iterator[Sentence]:
    grant, account = chapter.grant, chapter.account
    if chapter.rehearsal:
        yield Sentence(
            "rehearsal",
            f"Rehearsal, no guarantee: noise under a known key was used on data set {quoted(grant.data_set)} "
            f"of region {case.title}, so no epsilon holds for any vehicle in it.",
        )
    else:
        yield Sentence("guarantee", _guarantee(case, grant, rosters))
        yield Sentence("meaning", meaning(grant.epsilon, grant.delta))
        yield Sentence("charged", _charged(chapter))
    yield from (Sentence("plan", _of_plan(run)) for run in chapter.runs)
    yield Sentence(
        "horizon",
        f"At most {counted(grant.max_plans, 'plan')} and {counted(grant.max_rounds, 'round')}, with no end "
        f"date; {counted(account.plans, 'plan')} with {counted(account.rounds, 'round')} count so far.",
    )
    for name in sorted({run.promise.identity for run in chapter.runs if run.promise}):
        yield Sentence("identity", IDENTITIES[name], declared=True)
    elsewhere = case.declaration.practice.vehicles_in_other_regions if case.declaration else None
    if elsewhere:
        yield Sentence("vehicles in other regions", said(elsewhere), declared=True)
    carried = sum(one.carried_rho for one in chapter.grants)
    if carried:
        loss = f"{carried / NANO:.4g} nats suffered outside this ledger"
        yield Sentence("carried", f"Included are {loss}, as the data officer declares.", declared=True)
    if len(chapter.grants) > 1:
        before = listed([str(one.seq) for one in chapter.grants[:-1]])
        yield Sentence("before", f"Included is all that was charged under earlier grants (entries {before}).")
    if chapter.grants[0].disjoint:
        new = "The data officer declares that no vehicle of the grant before it is in these data."
        yield Sentence("vehicles", new, declared=True)
    if chapter.replaced:
        yield Sentence("ended", "A grant on other vehicles has followed: nothing more is charged here.")


def _guarantee(case: Case, grant: Grant, rosters: Sequence[int]) -> str:
    vehicles = " or ".join(f"{roster:,}" for roster in rosters)
    return (
        f"For each vehicle on the roster{f' ({vehicles} vehicles)' if rosters else ''}, all that region "
        f"{case.title} releases under the grant on data set {quoted(grant.data_set)} (entry {grant.seq} of "
        f"its ledger) is, taken together, differentially private at the level of one vehicle with epsilon at "
        f"most {number(grant.epsilon)} at delta {chance(grant.delta)}, also where plans are chosen after "
        f"looking at earlier releases."
    )


def _charged(chapter: Chapter) -> str:
    account, grant = chapter.account, chapter.grant
    if not account.spent + account.held:
        return "Nothing is charged to this grant yet, and nothing has left under it."
    spent, lifetime = chapter.epsilon(account.spent), chapter.epsilon(account.spent + account.held)
    part = (
        f"of which {number(spent)} is spent by rounds and the rest held for rounds still to come"
        if account.held
        else "all of it spent by rounds"
    )
    fixed = len(chapter.runs) == 1 and not (chapter.runs[0].settled and chapter.runs[0].unbooked)
    itself = (
        "It is charged for one plan only, so this figure is itself a guarantee."
        if fixed and not any(one.carried_rho for one in chapter.grants)
        else "This figure is itself a guarantee where nobody chose a plan, or ended one, after looking at "
        "earlier releases; where somebody did, the grant's epsilon is the guarantee."
    )
    return (
        f"Of this grant's epsilon {number(grant.epsilon)}, epsilon_lifetime {number(lifetime)} is charged at "
        f"the same delta (Renyi order {grant.alpha}), {part}. {itself}"
    )


def _of_plan(run: Run) -> str:
    entry, booked = run.entry, len(run.reserves)
    what = (
        f"{entry.plan[:8]}, model {quoted(run.terms.model if run.terms else '?')}, "
        f"{len(run.releases):,} of {counted(entry.rounds, 'round')} released "
        f"to {quoted(entry.recipient)} for {quoted(entry.purpose)}"
    )
    if run.rehearsal:
        return f"{what}: a rehearsal, for which no epsilon holds."
    epsilon = run.epsilon(run.rounds)
    if epsilon is None or run.promise is None or run.chapter.rehearsal:
        return f"{what}: no epsilon is stated for it."
    part = ""
    if run.unbooked:
        cost = run.epsilon(run.reserves)
        so_far = f"{counted(booked, 'round')} booked: {number(cost)}" if cost else "no round booked"
        part = f" (ended early, {so_far})" if run.settled else f" ({so_far})"
    return (
        f"{what}: this plan alone epsilon {number(epsilon)} at delta {chance(run.promise.target_delta)} by "
        f"exact composition{part}; charged to the lifetime grant "
        f"{number(run.chapter.epsilon(run.committed, run.grant))} of {number(run.grant.epsilon)}, with all "
        f"plans before it."
    )
