"""A report as plain text for a terminal. What it quotes is printable already."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from textwrap import indent, wrap

from fedfsd.audit.finding import Kind
from fedfsd.audit.verdict import Outcome, Part, Report
from fedfsd.language import say
from fedfsd.mechanism.statement import TWO_FIGURES

ABREAST = 4
"""Regions beside each other in the table of outcomes."""
_WIDTH = 100


def text(report: Report) -> str:
    """Outcomes in columns, then everything found, then the verdict."""
    lines = [report.heading, ""] if report.heading else []
    for rows in _tables(report):
        widths = [max(len(line[column]) for line in rows) for column in range(len(rows[0]))]
        lines += ["  ".join(map(str.ljust, line, widths)).rstrip() for line in rows]
        lines.append("")
    told = [f"{part.title}: {_facts(part)}" for part in report.parts if part.region]
    lines += [*told, *wrap(TWO_FIGURES, _WIDTH), ""] if told else []
    for heading, kinds in _SECTIONS.items():
        found = report.found(*kinds)
        if found:
            lines.append(f"{heading}:")
            for where, finding in found:
                lines += _wrapped(f"{where}: {finding}")
                lines += [indent(note.rstrip("\n"), "    | ", lambda _: True) for note in finding.proof]
            lines.append("")
    lines += [f"{more} more findings are not shown" for more in [report.more] if more]
    lines.append("not proved by any of this:")
    for sentence in report.unproved:
        lines += _wrapped(sentence)
    return "\n".join([*lines, "", f"verdict: {report.headline}{_unread(report)}"])


def _unread(report: Report) -> str:
    """What the verdict leaves out because nobody asked for it."""
    answers = (one for part in report.parts for one in part.answers)
    left = any(one.name == "code" and one.outcome == Outcome.SKIPPED for one in answers)
    return "; the code on record was not compared with reviewed code (--code)" if left else ""


_SECTIONS = {
    "contradicted": (Kind.CONTRADICTED,),
    "cannot decide": (Kind.UNDECIDED,),
    "not checked": (Kind.SKIPPED, Kind.LEFT_OUT),
    "notes": (Kind.NOTE,),
}


def _facts(part: Part) -> str:
    """One line on what a ledger holds."""
    known = part.facts
    grants = "; ".join(
        f"{one['data_set']}: epsilon {number(one['epsilon_spent'])} spent, "
        f"{number(one['epsilon_lifetime'])} with all approved plans, of {number(one['epsilon'])} "
        f"at delta {one['delta']:g}"
        for one in known["grants"]
    )
    counts = ", ".join(f"{known[name]} {name}" for name in ("entries", "plans", "releases", "refusals"))
    simulated = " (simulated)" if known["simulated"] else ""
    return f"ledger {known['ledger'][:8]}{simulated}, {counts}; {grants or 'no grant'}"


def _tables(report: Report) -> Iterator[list[list[str]]]:
    """Outcomes: checks down, files across, a few files at a time."""
    alike: dict[tuple[str, ...], list[Part]] = {}
    for part in report.parts:
        alike.setdefault(tuple(one.name for one in part.answers), []).append(part)
    for parts in alike.values():
        for start in range(0, len(parts), ABREAST):
            yield _table(parts[start : start + ABREAST])


def _table(parts: Sequence[Part]) -> list[list[str]]:
    head = ["check", *(part.title for part in parts)]
    rows = [
        [one.name, *(str(part.answers[place].outcome) for part in parts)]
        for place, one in enumerate(parts[0].answers)
    ]
    return [head, *rows]


def _wrapped(sentence: str) -> list[str]:
    return wrap(sentence, _WIDTH, initial_indent="  ", subsequent_indent="    ", break_on_hyphens=False)


def number(value: float | None) -> str:
    """An epsilon for people, rounded against the claim."""
    return say("unknown") if value is None else f"{math.ceil(value * 100 - 1e-6) / 100:.2f}"
