"""The record of transfers across a border, as authorities ask for it: one row a plan, or one a release.

A row is about a group of releases: those of one plan under one permission in one year, or a single one.
What the ledger knows is filled in and follows from it; what only the region can say is taken from its file
and kept apart under the file's own names (``exporter.legal_entity``); what nobody says stays empty, and is
counted. A row repeats what a region wrote, made printable but otherwise word for word: it is a record, and
no statement of ours. ``column`` says what each column holds and which rule asks for it.
"""

from __future__ import annotations

import csv
import datetime
import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from itertools import groupby
from typing import Any

from fedfsd import canonical
from fedfsd.audit.case import NO_DECLARATIONS, Case, cases, heading
from fedfsd.audit.chapter import Crossing
from fedfsd.audit.column import DECLARED, KNOWN, SUM
from fedfsd.audit.crossing import releases
from fedfsd.audit.declaration import Declaration
from fedfsd.audit.evidence import Evidence, Ledger
from fedfsd.audit.loss import NANO
from fedfsd.audit.verdict import Report
from fedfsd.audit.witness import sightings
from fedfsd.audit.words import listed, version
from fedfsd.language import mark, say
from fedfsd.ledger.permission import year_of
from fedfsd.plain_text import plain

FLOAT_BYTES = 4
_FORMULA = tuple("=+-@\t\r＝＋－＠")
WORDS = (
    mark("private"),
    mark("rehearsal"),
    mark("vehicle"),
    mark("zero-out"),
    mark("physical"),
    mark("recording"),
    mark("received"),
    mark("undelivered"),
    mark("other bytes than the receipt's"),
)
"""Fixed words of the ledger and of receipts, as a record has them."""
_ADDED = tuple(one.name for one in KNOWN if one.over == SUM)
Row = dict[str, Any]


class Rows(StrEnum):
    """What one row is about."""

    plan = "plan"
    release = "release"


def transfers(
    evidence: Evidence,
    found: Report,
    declared: Mapping[str, Declaration] = NO_DECLARATIONS,
    *,
    rows: Rows = Rows.plan,
) -> dict[str, Any]:
    """The record as plain values: ``known`` and ``declared`` columns of every row, in order.

    Args:
        found: what ``verify`` made of the same evidence; each row says what came out.
        declared: what regions declare, by region.
        rows: about the releases of a plan (under one permission, in one year), or about each release.
    """
    judged = cases(evidence, found, declared)
    return {
        "format": 2,
        "kind": "fedfsd-transfers",
        "heading": heading(judged),
        "outcome": str(found.outcome),
        "rows": str(rows),
        "transfers": [
            {"known": known, "declared": told}
            for case in judged
            for told in (declared_columns(case.declaration),)
            for known in _known(case, evidence, rows)
        ],
        "empty": {
            case.course.ledger.region: [
                name for name, value in declared_columns(case.declaration).items() if value is None
            ]
            for case in judged
            if case.course.crossings
        },
    }


def missing(document: Mapping[str, Any]) -> list[str]:
    """One sentence a region on what it declares nowhere, and where the form is."""
    return [
        say(
            "{region}: {empty} of {all} declared fields are empty ({names}); template: "
            "fedfsd audit transfers --template -o declaration.toml, then --declaration declaration.toml",
            region=region,
            empty=len(names),
            all=len(DECLARED),
            names=listed(names, 3),
        )
        for region, names in document["empty"].items()
        if names
    ]


def as_csv(document: Mapping[str, Any]) -> str:
    """The same as a table; a cell that a spreadsheet would take for a formula begins with an apostrophe.

    In English columns have the names that programs read, in other languages headings.
    """
    rows = [{**one["known"], **one["declared"]} for one in document["transfers"]]
    columns = (*KNOWN, *DECLARED)
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)  # also where a semicolon parts the cells
    writer.writerow([one.name if say(one.title) == one.title else say(one.title) for one in columns])
    writer.writerows([[_cell(row[one.name]) for one in columns] for row in rows])
    return file.getvalue()


def declared_columns(declaration: Declaration | None) -> dict[str, str | None]:
    """What the region's file says, by its dotted names; the same names where there is no file."""
    told = declaration or Declaration(region="none")
    tables = told.model_dump(exclude={"region", "practice"})
    return {
        f"{table}.{key}": None if value is None else plain(value)
        for table, values in tables.items()
        for key, value in values.items()
    }


def _known(case: Case, evidence: Evidence, rows: Rows) -> Iterator[Row]:
    singles = list(_singles(case, evidence))
    if rows == Rows.release:
        yield from (_ordered(row) for _, row in singles)
        return

    def key(pair: tuple[Crossing, Row]) -> tuple[object, ...]:
        row = pair[1]
        return row["plan"], row["recipient"], row["approval"], (row["date_first"] or "")[:4], row["program"]

    for _, group in groupby(singles, key):
        crossings, told = zip(*group, strict=True)
        yield _ordered(_together(crossings, told))


def _singles(case: Case, evidence: Evidence) -> Iterator[tuple[Crossing, Row]]:
    """Each release with its row."""
    course, ledger = case.course, case.course.ledger
    numbers: Counter[tuple[str, int]] = Counter()
    volume: Counter[tuple[str, int]] = Counter()
    seen = _seen(ledger, evidence)
    shared = {
        "region": ledger.region,
        "ledger": ledger.id,
        "ledger_size": len(ledger.lines),
        "ledger_root": ledger.tree.root().hex(),
        "verification": say(str(case.report.outcome)),
        "heading": say(course.heading),
        "direction": say("out"),
        "releases": 1,
    }
    run = plain(evidence.receipts.run) if evidence.receipts else None
    for crossing, row in zip(course.crossings, releases(case, evidence.receipts), strict=True):
        counter = (row["destination"], year_of(row["date"]) if row["date"] else 0)
        numbers[counter] += 1
        volume[counter] += row["bytes"]
        reserved = crossing.reserve.seq if crossing.reserve else row["entry"]
        yield (
            crossing,
            {
                **dict.fromkeys(one.name for one in KNOWN),
                **shared,
                "record": f"{ledger.id}:{row['entry']}",
                "first_entry": row["entry"],
                "last_entry": row["entry"],
                "last_entry_hash": row["entry_hash"],
                "date_first": row["date"],
                "date_last": row["date"],
                # Nothing is trained before it is booked, and nothing is sent before its entry.
                "witnessed_after": max((at for size, at in seen if size <= reserved), default=None),
                "witnessed_before": min((at for size, at in seen if size > row["entry"]), default=None),
                "plan": row["plan"],
                "rounds": str(row["round"]),
                "recipient": plain(crossing.entry.destination),
                "sha256": row["sha256"],
                "bytes": row["bytes"],
                "schema": row["schema"],
                "delivery": say(row["delivery"] or ""),
                "receipts_of_run": run if row["delivery"] else None,
                "recipient_releases_in_year": numbers[counter],
                "recipient_bytes_in_year": volume[counter],
                **_of_plan(crossing),
                **_of_approval(case, crossing),
                **_privacy(case, crossing),
            },
        )


def _together(crossings: Sequence[Crossing], rows: Sequence[Row]) -> Row:
    """One row about several: sums are added up, running totals are the last, hashes are hashed."""
    first, last = rows[0], rows[-1]
    found = {
        **last,
        **{name: first[name] for name in ("record", "first_entry", "date_first", "witnessed_after")},
        **{name: _sum(row[name] for row in rows) for name in _ADDED},
        "rounds": _ranges([crossing.entry.round for crossing in crossings]),
        "sha256": _hashed([row["sha256"] for row in rows]),
        "inbound_arrays": _hashed([row["inbound_arrays"] for row in rows]),
        "delivery": ", ".join(
            f"{word or say('not known')} ({count:,})"
            for word, count in Counter(row["delivery"] for row in rows).items()
        )
        if any(row["delivery"] for row in rows)
        else "",
    }
    run = crossings[0].run
    if run is not None and last["epsilon_plan"] is not None:
        found["epsilon_row"] = run.epsilon(sorted({one.entry.round for one in crossings}))
    return found


def _ordered(row: Row) -> Row:
    return {one.name: row[one.name] if row[one.name] != "" else None for one in KNOWN}


def _sum(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _hashed(hashes: Sequence[str | None]) -> str | None:
    """The hash itself; of several the SHA-256 over them, in hex, one a line."""
    if len(hashes) == 1 or None in hashes:
        return hashes[0] if len(hashes) == 1 else None
    return canonical.sha256("".join(f"{one}\n" for one in hashes).encode())


def _ranges(numbers: Sequence[int]) -> str:
    """1-3, 5"""
    found: list[list[int]] = []
    for number in sorted(set(numbers)):
        if found and number == found[-1][-1] + 1:
            found[-1][1:] = [number]
        else:
            found.append([number])
    return ", ".join("-".join(map(str, one)) for one in found)


def _seen(ledger: Ledger, evidence: Evidence) -> list[tuple[int, str]]:
    """(number of entries, time) of every cosignature by a witness of the trust file."""
    return [(size, _time(seconds)) for size, seconds in sightings(ledger, evidence) if seconds < 2**37]


def _time(seconds: int) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _of_plan(crossing: Crossing) -> Row:
    """What was sent and what for."""
    run = crossing.run
    if run is None:
        return {}
    promise = run.promise
    return {
        "purpose": plain(run.entry.purpose),
        "data_set": plain(run.grant.data_set),
        "data_commitment": run.grant.data_commitment,
        "object": say("model update"),
        "task": plain(run.terms.task[:200]) if run.terms else None,
        "model": plain(run.terms.model[:200]) if run.terms else None,
        "inbound_arrays": crossing.reserve.arrays if crossing.reserve else None,
        "arrays": len(_arrays(run.entry.document)),
        "parameters": crossing.entry.bytes // FLOAT_BYTES,
        "dtype": "float32",
        "masked": say("no"),
        "mode": say(run.terms.mode) if run.terms else None,
        "vehicles": promise.roster if promise else None,
        "identity": say(promise.identity) if promise else None,
        "program": run.entry.code,
    }


def _of_approval(case: Case, crossing: Crossing) -> Row:
    """By which permission, and within which envelope."""
    one = crossing.entry
    approval = case.course.approvals.get(one.approval) if one.approval is not None else None
    if approval is None:
        return {"decision": say("released"), "decision_rule": say("no approval is named"), "approval": None}
    return {
        "decision": say("released"),
        "decision_rule": say("recipient, purpose, task, model, dates and volume within the approval"),
        "approval": one.approval,
        "approval_authority": plain(approval.authority),
        "approval_number": plain(approval.number),
        "approval_recipient": plain(approval.recipient),
        "approval_purpose": plain(approval.purpose),
        "approval_tasks": plain(", ".join(approval.tasks)) if approval.tasks else say("any task"),
        "approval_models": plain(", ".join(approval.models)),
        "approval_valid_from": approval.valid_from,
        "approval_valid_until": approval.valid_until,
        "approval_releases_in_year": one.approval_releases,
        "approval_max_releases": approval.max_releases,
        "approval_bytes_in_year": one.approval_bytes,
        "approval_max_bytes": approval.max_bytes,
    }


def _privacy(case: Case, crossing: Crossing) -> Row:
    """The mechanism of this object, and the loss with it; no epsilon where none may be stated."""
    run, reserve = crossing.run, crossing.reserve
    if run is None or reserve is None:
        return {}
    event, grant = reserve.event, run.grant
    found: Row = {
        "unit": say(event.unit),
        "adjacency": say(event.adjacency),
        "mechanism": say("Gaussian, Poisson-sampled"),
        "max_grad_norm": event.max_grad_norm,
        "noise_multiplier": event.noise_multiplier,
        "sample_rate": event.sample_rate,
        "steps": event.steps,
        "accountant": say(
            "{accountant} (PLD); Renyi filter of order {alpha}",
            accountant=f"dp-accounting {version('dp-accounting')}",
            alpha=grant.alpha,
        ),
        "random_generator": say("AES-256-CTR, key from the operating system"),
        "rho_nats": reserve.rho / NANO,
        "rho_spent_nats": crossing.spent / NANO,
        "rho_granted_nats": grant.rho_max / NANO,
    }
    if case.withheld or run.chapter.rehearsal or run.promise is None:
        return found
    return found | {
        "delta": run.promise.target_delta,
        "epsilon_row": run.epsilon([reserve.round]),
        "epsilon_plan": run.epsilon(run.rounds),
        "epsilon_cumulative": run.chapter.epsilon(crossing.spent, grant),
        "epsilon_granted": grant.epsilon,
        "delta_granted": grant.delta,
    }


def _arrays(document: Mapping[str, Any]) -> Sequence[Any]:
    model = document.get("model")
    arrays = model.get("arrays") if isinstance(model, Mapping) else None
    return arrays if isinstance(arrays, list) else []


def _cell(value: object) -> str:
    """A cell that is text and nothing else."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.9g}"
    text = str(value)
    return f"'{text}" if text.lstrip(" ").startswith(_FORMULA) else text
