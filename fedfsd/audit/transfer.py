"""The record of transfers across a border: one row a release, as authorities ask for it.

What the ledger knows is filled in and follows from it; what only the region can say is taken from its
file and kept apart under the file's own names (``exporter.legal_entity``); what nobody says stays empty.
A row repeats what a region wrote, made printable but otherwise word for word: it is a record, and no
statement of ours.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from fedfsd.audit.case import NO_DECLARATIONS, Case, cases, heading
from fedfsd.audit.chapter import Crossing
from fedfsd.audit.crossing import releases
from fedfsd.audit.declaration import Declaration
from fedfsd.audit.evidence import Evidence
from fedfsd.audit.loss import NANO
from fedfsd.audit.verdict import Report
from fedfsd.audit.words import version
from fedfsd.ledger.permission import year_of
from fedfsd.plain_text import plain

FLOAT_BYTES = 4
# In the order of a record: whose, what was sent, by which permission, at which privacy loss, and arrived?
_COLUMNS = """
record region ledger entry entry_hash ledger_size ledger_root verification heading
direction date plan round mode recipient purpose data_set data_commitment vehicles identity
object model inbound_arrays arrays parameters dtype bytes sha256 schema masked program
decision decision_rule approval approval_authority approval_number approval_recipient approval_purpose
approval_models approval_valid_from approval_valid_until approval_releases_in_year
approval_max_releases approval_bytes_in_year approval_max_bytes
recipient_releases_in_year recipient_bytes_in_year
unit adjacency mechanism max_grad_norm noise_multiplier sample_rate steps
delta epsilon_object epsilon_plan epsilon_cumulative epsilon_granted delta_granted
rho_nats rho_spent_nats rho_granted_nats accountant random_generator
delivery receipts_of_run
"""
KNOWN = tuple(_COLUMNS.split())
_FORMULA = tuple("=+-@\t\r＝＋－＠")


def transfers(
    evidence: Evidence, found: Report, declared: Mapping[str, Declaration] = NO_DECLARATIONS
) -> dict[str, Any]:
    """The record as plain values: ``known`` and ``declared`` columns of every release, in order.

    Args:
        found: what ``verify`` made of the same evidence; each row says what came out.
        declared: what regions declare, by region.
    """
    judged = cases(evidence, found, declared)
    return {
        "format": 1,
        "kind": "fedfsd-transfers",
        "heading": heading(judged),
        "outcome": str(found.outcome),
        "transfers": [
            {"known": known, "declared": told}
            for case in judged
            for told in (declared_columns(case.declaration),)
            for known in _known(case, evidence)
        ],
    }


def as_csv(document: Mapping[str, Any]) -> str:
    """The same as a table; a cell that a spreadsheet would take for a formula begins with an apostrophe."""
    rows = [{**one["known"], **one["declared"]} for one in document["transfers"]]
    columns = [*KNOWN, *declared_columns(None)]
    file = io.StringIO()
    writer = csv.writer(file, quoting=csv.QUOTE_ALL)  # also where a semicolon parts the cells
    writer.writerow(columns)
    writer.writerows([[_cell(row[name]) for name in columns] for row in rows])
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


def _known(case: Case, evidence: Evidence) -> Iterator[dict[str, Any]]:
    course, ledger = case.course, case.course.ledger
    numbers: Counter[tuple[str, int]] = Counter()
    volume: Counter[tuple[str, int]] = Counter()
    run = plain(evidence.receipts.run) if evidence.receipts else None
    root = ledger.tree.root().hex()
    for crossing, row in zip(course.crossings, releases(case, evidence.receipts), strict=True):
        counter = (row["destination"], year_of(row["date"]) if row["date"] else 0)
        numbers[counter] += 1
        volume[counter] += row["bytes"]
        values: dict[str, Any] = {
            "record": f"{ledger.id}:{row['entry']}",
            "region": ledger.region,
            "ledger": ledger.id,
            "entry": row["entry"],
            "entry_hash": row["entry_hash"],
            "ledger_size": len(ledger.lines),
            "ledger_root": root,
            "verification": str(case.report.outcome),
            "heading": course.heading,
            "direction": "out",
            "date": row["date"],
            "plan": row["plan"],
            "round": row["round"],
            "recipient": plain(crossing.entry.destination),
            "sha256": row["sha256"],
            "bytes": row["bytes"],
            "schema": row["schema"],
            "delivery": row["delivery"],
            "receipts_of_run": run if row["delivery"] else None,
            "recipient_releases_in_year": numbers[counter],
            "recipient_bytes_in_year": volume[counter],
            **_of_plan(crossing),
            **_of_approval(case, crossing),
            **_privacy(case, crossing),
        }
        yield {name: values.get(name) for name in KNOWN}


def _of_plan(crossing: Crossing) -> dict[str, Any]:
    """What was sent and what for."""
    run = crossing.run
    if run is None:
        return {}
    promise = run.promise
    return {
        "purpose": plain(run.entry.purpose),
        "data_set": plain(run.grant.data_set),
        "data_commitment": run.grant.data_commitment,
        "object": "model update",
        "model": plain(run.terms.model[:200]) if run.terms else None,
        "inbound_arrays": crossing.reserve.arrays if crossing.reserve else None,
        "arrays": len(_arrays(run.entry.document)),
        "parameters": crossing.entry.bytes // FLOAT_BYTES,
        "dtype": "float32",
        "masked": "no",
        "mode": run.terms.mode if run.terms else None,
        "vehicles": promise.roster if promise else None,
        "identity": promise.identity if promise else None,
        "program": run.entry.code,
    }


def _of_approval(case: Case, crossing: Crossing) -> dict[str, Any]:
    """By which permission, and within which envelope."""
    one = crossing.entry
    approval = case.course.approvals.get(one.approval) if one.approval is not None else None
    if approval is None:
        return {"decision": "released", "decision_rule": "no approval is named"}
    return {
        "decision": "released",
        "decision_rule": "recipient, purpose, model, dates and volume within the approval",
        "approval": one.approval,
        "approval_authority": plain(approval.authority),
        "approval_number": plain(approval.number),
        "approval_recipient": plain(approval.recipient),
        "approval_purpose": plain(approval.purpose),
        "approval_models": plain(", ".join(approval.models)),
        "approval_valid_from": approval.valid_from,
        "approval_valid_until": approval.valid_until,
        "approval_releases_in_year": one.approval_releases,
        "approval_max_releases": approval.max_releases,
        "approval_bytes_in_year": one.approval_bytes,
        "approval_max_bytes": approval.max_bytes,
    }


def _privacy(case: Case, crossing: Crossing) -> dict[str, Any]:
    """The mechanism of this object, and the loss with it; no epsilon where none may be stated."""
    run, reserve = crossing.run, crossing.reserve
    if run is None or reserve is None:
        return {}
    event, grant = reserve.event, run.grant
    found: dict[str, Any] = {
        "unit": event.unit,
        "adjacency": event.adjacency,
        "mechanism": "Gaussian, Poisson-sampled",
        "max_grad_norm": event.max_grad_norm,
        "noise_multiplier": event.noise_multiplier,
        "sample_rate": event.sample_rate,
        "steps": event.steps,
        "accountant": f"dp-accounting {version('dp-accounting')} (PLD); Renyi filter of order {grant.alpha}",
        "random_generator": "AES-256-CTR, key from the operating system",
        "rho_nats": reserve.rho / NANO,
        "rho_spent_nats": crossing.spent / NANO,
        "rho_granted_nats": grant.rho_max / NANO,
    }
    if case.withheld or run.chapter.rehearsal or run.promise is None:
        return found
    return found | {
        "delta": run.promise.target_delta,
        "epsilon_object": run.epsilon([reserve.round]),
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
