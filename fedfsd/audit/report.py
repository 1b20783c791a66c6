"""The audit report: what auditors ask about privacy, in eighteen fields, for each region and for all.

One document of plain values; the Markdown and the page show nothing that is not in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedfsd.audit import document as verification
from fedfsd.audit import field_promise, field_proof
from fedfsd.audit.attacker import FALSE_POSITIVES, scale
from fedfsd.audit.case import NO_DECLARATIONS, Case, cases
from fedfsd.audit.crossing import releases
from fedfsd.audit.declaration import Declaration
from fedfsd.audit.empirical import beside_claims, sentences
from fedfsd.audit.evidence import Evidence
from fedfsd.audit.explained import glossary
from fedfsd.audit.fact import MEANINGS, Facts, Sources
from fedfsd.audit.plan_row import plans
from fedfsd.audit.statement import region, statement
from fedfsd.audit.timeline import timeline
from fedfsd.audit.verdict import Report
from fedfsd.audit.words import all_said
from fedfsd.language import mark, say

FIELDS: tuple[tuple[str, Callable[[Sources], Facts]], ...] = (
    (mark("Claim"), field_promise.claim),
    (mark("Trust model and adversary"), field_promise.trust_model),
    (mark("Privacy unit and identity"), field_promise.unit),
    (mark("Roster and what one vehicle contributes"), field_promise.roster),
    (mark("Adjacency"), field_promise.adjacency),
    (mark("Data accesses, covered and not"), field_promise.accesses),
    (mark("Outputs that crossed"), field_promise.outputs),
    (mark("Mechanism"), field_promise.mechanism),
    (mark("Accounting"), field_proof.accounting),
    (mark("Lifetime budget"), field_proof.lifetime),
    (mark("Tuning runs"), field_proof.tuning),
    (mark("Randomness"), field_proof.randomness),
    (mark("Side channels"), field_proof.side_channels),
    (mark("Deviations and incidents"), field_proof.deviations),
    (mark("Program, plans, keys and witnesses"), field_proof.provenance),
    (mark("Empirical audit"), field_proof.empirical),
    (mark("Utility"), field_proof.utility),
    (mark("Residual risks"), field_proof.residual_risks),
)


def report(
    evidence: Evidence,
    found: Report,
    declared: Mapping[str, Declaration] = NO_DECLARATIONS,
    *,
    vehicles_cross: bool = False,
) -> dict[str, Any]:
    """The report as plain values.

    Args:
        found: what ``verify`` made of the same evidence.
        declared: what regions declare, by region.
        vehicles_cross: some vehicles are in several regions, so the losses of all regions add up.
    """
    judged = cases(evidence, found, declared)
    stated = statement(evidence, found, declared, vehicles_cross=vehicles_cross)
    return {
        "format": 1,
        "kind": "fedfsd-audit-report",
        "heading": stated["heading"],
        "outcome": str(found.outcome),
        "headline": found.headline,
        "joint": stated["joint"],
        "marks": {str(name): say(meaning) for name, meaning in MEANINGS.items()},
        "regions": [_region(case, evidence) for case in judged],
        "contradictions": stated["contradictions"],
        "undecided": stated["undecided"],
        "verification": all_said(verification.document(found)),
        "attacker": _attacker(judged),
        "glossary": glossary(),
    }


def _attacker(found: Sequence[Case]) -> dict[str, Any]:
    """What an epsilon leaves to an attacker; beside the plan that costs most, the same with other noise."""
    costs = [
        (epsilon, run)
        for case in found
        if not case.withheld
        for run in case.course.runs.values()
        if not run.chapter.rehearsal and (epsilon := run.epsilon(run.rounds)) and run.promise
    ]
    document: dict[str, Any] = {"false_positives": list(FALSE_POSITIVES), "plan": None, "scale": []}
    if costs:
        _, run = max(costs, key=lambda pair: pair[0])
        delta = run.promise.target_delta if run.promise else 0.0
        document |= {"plan": run.entry.plan, "delta": delta, "scale": scale(run.events, delta)}
    return document


def _region(case: Case, evidence: Evidence) -> dict[str, Any]:
    stated, receipts, ledger = region(case), evidence.receipts, case.course.ledger
    given = Sources(
        case=case,
        plans=plans(case),
        releases=releases(case, receipts),
        data_sets=stated["data_sets"],
        receipts=receipts is not None,
        tried=tuple(sentences(evidence.canaries, ledger.region, ledger.plans)),
    )
    return {
        **stated,
        "fields": [
            {"number": number, "title": say(title), "facts": [fact.document() for fact in facts(given)]}
            for number, (title, facts) in enumerate(FIELDS, 1)
        ],
        "plans": given.plans,
        "releases": given.releases,
        "beside_claims": []
        if case.withheld
        else beside_claims(evidence.canaries, ledger.region, ledger.plans),
        "timelines": [timeline(case, chapter) for chapter in case.course.chapters],
    }


def merged(regions: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The fields of all regions as one list: each label with its answers, equal ones once, whose they are."""
    found = []
    for place, (title, _) in enumerate(FIELDS):
        labels: dict[str, dict[tuple[str, str, str], list[str]]] = {}
        for one in regions:
            for fact in one["fields"][place]["facts"]:
                answers = labels.setdefault(fact["label"], {})
                names = answers.setdefault((fact["value"], fact["mark"], fact["source"]), [])
                if one["region"] not in names:
                    names.append(one["region"])
        facts = [
            {
                "label": label,
                "answers": [
                    {
                        "value": value,
                        "mark": mark,
                        "source": source,
                        "regions": names if len(names) < len(regions) else [],
                    }
                    for (value, mark, source), names in answers.items()
                ],
            }
            for label, answers in labels.items()
        ]
        found.append({"number": place + 1, "title": say(title), "facts": facts})
    return found
