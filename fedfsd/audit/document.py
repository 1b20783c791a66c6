"""A report as one JSON document, and as SARIF 2.1.0 for tools that collect findings."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from fedfsd.audit.finding import Finding, Kind
from fedfsd.audit.verdict import Answer, Outcome, Part, Report
from fedfsd.ledger import digest

_SARIF = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
_RESULT = {  # SARIF's (kind, level) of a finding
    Kind.CONTRADICTED: ("fail", "error"),
    Kind.UNDECIDED: ("open", "none"),
    Kind.SKIPPED: ("notApplicable", "none"),
    Kind.LEFT_OUT: ("informational", "none"),
    Kind.NOTE: ("informational", "none"),
}


def document(report: Report) -> dict[str, Any]:
    """Everything in plain values."""
    return {
        "format": 1,
        "kind": "fedfsd-audit",
        "outcome": str(report.outcome),
        "headline": report.headline,
        "exit_code": report.exit_code,
        "verifier": {"version": digest.version(), "code": digest.code()},
        "parts": [_part(one) for one in report.parts],
        "unproved": list(report.unproved),
    }


def sarif(report: Report) -> dict[str, Any]:
    """The same as a SARIF log: a check is a rule, a finding a result, a check that holds a passed one."""
    rules = {one.name: one for part in report.parts for one in part.answers}
    return {
        "$schema": _SARIF,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "fedfsd audit verify",
                        "version": digest.version(),
                        "rules": [
                            {"id": name, "shortDescription": {"text": one.claim}}
                            for name, one in rules.items()
                        ],
                    }
                },
                "invocations": [
                    {
                        "executionSuccessful": True,
                        "exitCode": report.exit_code,
                        "exitCodeDescription": report.headline,
                    }
                ],
                "results": [
                    result
                    for part in report.parts
                    for one in part.answers
                    for result in _results(part, one, list(rules).index(one.name))
                ],
            }
        ],
    }


def _part(part: Part) -> dict[str, Any]:
    return {
        "source": part.source,
        "region": part.region,
        **part.facts,
        "checks": [
            {
                "name": one.name,
                "claim": one.claim,
                "outcome": str(one.outcome),
                "findings": [_finding(finding) for finding in one.findings],
                "more_findings": one.more,
            }
            for one in part.answers
        ],
    }


def _finding(finding: Finding) -> dict[str, Any]:
    return {
        "kind": str(finding.kind),
        "place": finding.place,
        "text": finding.text,
        "proof": list(finding.proof),
    }


def _results(part: Part, one: Answer, index: int) -> list[dict[str, Any]]:
    def result(kind: str, level: str, text: str, place: str = "") -> dict[str, Any]:
        where: dict[str, Any] = {"physicalLocation": {"artifactLocation": {"uri": quote(part.source)}}}
        if place:
            where["logicalLocations"] = [{"name": place}]
        return {
            "ruleId": one.name,
            "ruleIndex": index,
            "kind": kind,
            "level": level,
            "message": {"text": text},
            "locations": [where],
        }

    found = [result(*_RESULT[finding.kind], str(finding), finding.place) for finding in one.findings]
    if one.outcome == Outcome.HOLDS:
        found.insert(0, result("pass", "none", one.claim))
    return found
