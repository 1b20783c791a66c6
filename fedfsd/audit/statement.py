"""The guarantee in sentences that can be quoted: for each region, for all of them, and its limits.

Two figures must not be confused. What the *grant* allows holds whatever was chosen in the light of
earlier releases: that is what a Renyi filter proves. What is *charged* so far is the filter's count; it
is a guarantee of its own only where the plans were chosen without looking.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from fedfsd.audit.attacker import recognised
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
from fedfsd.audit.words import chance, counted, listed, meaning, percent, quoted, said
from fedfsd.language import mark, say
from fedfsd.ledger.entry import Grant
from fedfsd.mechanism.statement import TWO_FIGURES

IDENTITIES = {
    "physical": mark("A vehicle key stands for one real vehicle in everything its source recorded."),
    "recording": mark(
        "A vehicle key stands for one vehicle in one recording; a car recorded under two keys is protected "
        "per key only."
    ),
}
RECORDED = {
    "camera": mark(
        "The vehicle is the car whose camera recorded. Others in its frames are covered only as part of that "
        "car's frames: a person whom several cars filmed is not protected as a person."
    ),
}
"""By task: who the vehicle is where that is not plain."""
GENERAL = {
    mark("Unit"): mark(
        "One vehicle: everything recorded about one vehicle key. The size of the roster is public."
    ),
    mark("Adjacency"): mark(
        "Zero-out: the data as they are, compared with the same data in which everything that one vehicle "
        "contributes is replaced by nothing."
    ),
    mark("Trust model"): mark(
        "Each region adds its own noise before anything leaves. The guarantee is against the coordinator, "
        "every other region and anybody they pass things on to, who see all that a region releases and may "
        "choose later plans after seeing it. A region is trusted with its own data only: to draw vehicles, "
        "clip and add noise as planned, and to keep the noise key secret."
    ),
    mark("Covered"): mark(
        "Every release that the ledger records, and every round that it books, released or not."
    ),
    mark("Two figures"): TWO_FIGURES,
    mark("Not covered"): mark(
        "What does not pass through the ledger, such as a model or settings chosen on the same data outside "
        "it; the time a reply takes; the car that carried the sensors, and a car under a second key, unless "
        "they are mapped to one key; a person with several vehicles, to whom the losses of all of them "
        "apply; what can be learned about traffic in general."
    ),
}
_ABOUT = (
    mark("rehearsal"),
    mark("guarantee"),
    mark("meaning"),
    mark("attacker"),
    mark("charged"),
    mark("plan"),
    mark("horizon"),
    mark("identity"),
    mark("vehicles in other regions"),
    mark("carried"),
    mark("before"),
    mark("vehicles"),
    mark("ended"),
)
"""What a sentence may be about; the documents name it in English."""


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
        "general": {say(name): say(text) for name, text in GENERAL.items()},
        "undecided": [f"{said(where)}: {said(finding)}" for where, finding in report.found(Kind.UNDECIDED)],
        "unproved": [say(one) for one in report.unproved],
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
        text = say(
            "Rehearsal, no guarantee: noise under a known key was used on data set {data_set} of region "
            "{region}, so no epsilon holds for any vehicle in it.",
            data_set=quoted(grant.data_set),
            region=case.title,
        )
        yield Sentence("rehearsal", text)
    else:
        yield Sentence("guarantee", _guarantee(case, grant, rosters))
        yield Sentence("meaning", meaning(grant.epsilon, grant.delta))
        yield Sentence("charged", _charged(chapter))
    yield from (Sentence("plan", _of_plan(run)) for run in chapter.runs)
    if not chapter.rehearsal:
        yield from (Sentence("attacker", text) for text in _attacker(chapter))
    text = say(
        "At most {max_plans} and {max_rounds}, with no end date; {plans} with {rounds} count so far.",
        max_plans=counted(grant.max_plans, "plan"),
        max_rounds=counted(grant.max_rounds, "round"),
        plans=counted(account.plans, "plan"),
        rounds=counted(account.rounds, "round"),
    )
    yield Sentence("horizon", text)
    for name in sorted({run.promise.identity for run in chapter.runs if run.promise}):
        yield Sentence("identity", say(IDENTITIES[name]), declared=True)
    for task in sorted({run.terms.task for run in chapter.runs if run.terms} & RECORDED.keys()):
        yield Sentence("identity", say(RECORDED[task]))
    elsewhere = case.declaration.practice.vehicles_in_other_regions if case.declaration else None
    if elsewhere:
        yield Sentence("vehicles in other regions", said(elsewhere), declared=True)
    carried = sum(one.carried_rho for one in chapter.grants)
    if carried:
        text = say(
            "Included are {nats:.4g} nats suffered outside this ledger, as the data officer declares.",
            nats=carried / NANO,
        )
        yield Sentence("carried", text, declared=True)
    if len(chapter.grants) > 1:
        before = listed([str(one.seq) for one in chapter.grants[:-1]])
        text = say(
            "Included is all that was charged under earlier grants (entries {entries}).", entries=before
        )
        yield Sentence("before", text)
    if chapter.grants[0].disjoint:
        text = say("The data officer declares that no vehicle of the grant before it is in these data.")
        yield Sentence("vehicles", text, declared=True)
    if chapter.replaced:
        yield Sentence("ended", say("A grant on other vehicles has followed: nothing more is charged here."))


def _guarantee(case: Case, grant: Grant, rosters: Sequence[int]) -> str:
    vehicles = say(" or ").join(f"{roster:,}" for roster in rosters)
    return say(
        "For each vehicle on the roster{vehicles}, all that region {region} releases under the grant on "
        "data set {data_set} (entry {entry} of its ledger) is, taken together, differentially private at "
        "the level of one vehicle with epsilon at most {epsilon} at delta {delta}, also where plans are "
        "chosen after looking at earlier releases.",
        vehicles=say(" ({number} vehicles)", number=vehicles) if rosters else "",
        region=case.title,
        data_set=quoted(grant.data_set),
        entry=grant.seq,
        epsilon=number(grant.epsilon),
        delta=chance(grant.delta),
    )


def _charged(chapter: Chapter) -> str:
    account, grant = chapter.account, chapter.grant
    if not account.spent + account.held:
        return say("Nothing is charged to this grant yet, and nothing has left under it.")
    spent, lifetime = chapter.epsilon(account.spent), chapter.epsilon(account.spent + account.held)
    part = (
        say(
            "of which {spent} is spent by rounds and the rest held for rounds still to come",
            spent=number(spent),
        )
        if account.held
        else say("all of it spent by rounds")
    )
    fixed = len(chapter.runs) == 1 and not (chapter.runs[0].settled and chapter.runs[0].unbooked)
    itself = (
        say("It is charged for one plan only, so this figure is itself a guarantee.")
        if fixed and not any(one.carried_rho for one in chapter.grants)
        else say(
            "This figure is itself a guarantee where nobody chose a plan, or ended one, after looking at "
            "earlier releases; where somebody did, the grant's epsilon is the guarantee."
        )
    )
    return say(
        "Of this grant's epsilon {granted}, epsilon_lifetime {lifetime} is charged at the same delta (Renyi "
        "order {alpha}), {part}. {itself}",
        granted=number(grant.epsilon),
        lifetime=number(lifetime),
        alpha=grant.alpha,
        part=part,
        itself=itself,
    )


def _attacker(chapter: Chapter) -> Iterator[str]:
    """What the plan that costs most leaves to an attacker."""
    costs = {run.entry.plan: run.epsilon(run.rounds) or 0.0 for run in chapter.runs}
    worst = max(costs, key=lambda plan: costs[plan], default=None)
    run = next((one for one in chapter.runs if one.entry.plan == worst), None)
    found = recognised(run.events) if run and costs[run.entry.plan] else None
    if run and found:
        yield say(
            "Of the vehicles that took part, whoever sees everything that plan {plan} releases recognises "
            "at most {strict} when one in 1,000 others may be accused by mistake, and at most {loose} when "
            "one in 100 may; guessing alone recognises 0.1 % and 1 %.",
            plan=run.entry.plan[:8],
            strict=percent(found[0]),
            loose=percent(found[1]),
        )


def _of_plan(run: Run) -> str:
    entry, booked = run.entry, len(run.reserves)
    what = say(
        "{plan}, model {model}, {released:,} of {rounds} released to {recipient} for {purpose}",
        plan=entry.plan[:8],
        model=quoted(run.terms.model if run.terms else "?"),
        released=len(run.releases),
        rounds=counted(entry.rounds, "round"),
        recipient=quoted(entry.recipient),
        purpose=quoted(entry.purpose),
    )
    if run.rehearsal:
        return say("{what}: a rehearsal, for which no epsilon holds.", what=what)
    epsilon = run.epsilon(run.rounds)
    if epsilon is None or run.promise is None or run.chapter.rehearsal:
        return say("{what}: no epsilon is stated for it.", what=what)
    part = ""
    if run.unbooked:
        cost = run.epsilon(run.reserves)
        so_far = (
            say("{rounds} booked: {epsilon}", rounds=counted(booked, "round"), epsilon=number(cost))
            if cost
            else say("no round booked")
        )
        part = (
            say(" (ended early, {so_far})", so_far=so_far)
            if run.settled
            else say(" ({so_far})", so_far=so_far)
        )
    return say(
        "{what}: this plan alone epsilon {epsilon} at delta {delta} by exact composition{part}; charged to "
        "the lifetime grant {charged} of {granted}, with all plans before it.",
        what=what,
        epsilon=number(epsilon),
        delta=chance(run.promise.target_delta),
        part=part,
        charged=number(run.chapter.epsilon(run.committed, run.grant)),
        granted=number(run.grant.epsilon),
    )
