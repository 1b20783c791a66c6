"""A report as plain text for a terminal. What it quotes is printable already."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from textwrap import indent

from fedfsd.audit.finding import Kind
from fedfsd.audit.verdict import Outcome, Part, Report
from fedfsd.language import mark, say
from fedfsd.mechanism.statement import TWO_FIGURES
from fedfsd.plain_text import columns, folded

ABREAST = 4
"""Regions beside each other in the table of outcomes."""
_WIDTH = 100


def text(report: Report) -> str:
    """Outcomes in columns, then everything found, then the verdict."""
    lines = [say(report.heading), ""] if report.heading else []
    for rows in _tables(report):
        widths = [max(columns(line[place]) for line in rows) for place in range(len(rows[0]))]
        lines += ["  ".join(map(_padded, line, widths)).rstrip() for line in rows]
        lines.append("")
    told = [f"{part.title}: {_facts(part)}" for part in report.parts if part.region]
    lines += [*told, *folded(say(TWO_FIGURES), _WIDTH).splitlines(), ""] if told else []
    for heading, kinds in _SECTIONS.items():
        found = report.found(*kinds)
        if found:
            lines.append(f"{say(heading)}:")
            for where, finding in found:
                lines += _wrapped(f"{where}: {finding}")
                lines += [indent(note.rstrip("\n"), "    | ", lambda _: True) for note in finding.proof]
            lines.append("")
    lines += [say("{more} more findings are not shown", more=more) for more in [report.more] if more]
    lines.append(say("not proved by any of this:"))
    for sentence in report.unproved:
        lines += _wrapped(say(sentence))
    verdict = say("verdict: {headline}", headline=report.headline)
    return "\n".join([*lines, "", f"{verdict}{_unread(report)}"])


def _padded(text: str, width: int) -> str:
    return text + " " * (width - columns(text))


def _unread(report: Report) -> str:
    """What the verdict leaves out because nobody asked for it."""
    answers = (one for part in report.parts for one in part.answers)
    left = any(one.name == "code" and one.outcome == Outcome.SKIPPED for one in answers)
    return say("; the code on record was not compared with reviewed code (--code)") if left else ""


_SECTIONS = {
    mark("contradicted"): (Kind.CONTRADICTED,),
    mark("cannot decide"): (Kind.UNDECIDED,),
    mark("not checked"): (Kind.SKIPPED, Kind.LEFT_OUT),
    mark("notes"): (Kind.NOTE,),
}


def _facts(part: Part) -> str:
    """One line on what a ledger holds."""
    known = part.facts
    grants = say("; ").join(
        say(
            "{data_set}: epsilon {spent} spent, {lifetime} with all approved plans, of {granted} at delta "
            "{delta:g}",
            data_set=one["data_set"],
            spent=number(one["epsilon_spent"]),
            lifetime=number(one["epsilon_lifetime"]),
            granted=number(one["epsilon"]),
            delta=one["delta"],
        )
        for one in known["grants"]
    )
    return say(
        "ledger {ledger}{simulated}, {entries} entries, {plans} plans, {releases} releases, {refusals} "
        "refusals; {grants}",
        ledger=known["ledger"][:8],
        simulated=say(" (simulated)") if known["simulated"] else "",
        **{name: known[name] for name in ("entries", "plans", "releases", "refusals")},
        grants=grants or say("no grant"),
    )


def _tables(report: Report) -> Iterator[list[list[str]]]:
    """Outcomes: checks down, files across, a few files at a time."""
    alike: dict[tuple[str, ...], list[Part]] = {}
    for part in report.parts:
        alike.setdefault(tuple(one.name for one in part.answers), []).append(part)
    for parts in alike.values():
        for start in range(0, len(parts), ABREAST):
            yield _table(parts[start : start + ABREAST])


def _table(parts: Sequence[Part]) -> list[list[str]]:
    head = [say("check"), *(part.title for part in parts)]
    rows = [
        [one.name, *(say(str(part.answers[place].outcome)) for part in parts)]
        for place, one in enumerate(parts[0].answers)
    ]
    return [head, *rows]


def _wrapped(sentence: str) -> list[str]:
    return folded(sentence, _WIDTH, lead="  ", indent="    ").splitlines()


def number(value: float | None) -> str:
    """An epsilon for people, rounded against the claim."""
    return say("unknown") if value is None else f"{math.ceil(value * 100 - 1e-6) / 100:.2f}"
