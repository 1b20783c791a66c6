"""Fields 9 to 18 of a privacy report: how the loss was counted, what happened, and what stays open.

Each function is one field: what follows from the bundle, what somebody declares, and what nobody says.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

from fedfsd.audit.chapter import Chapter
from fedfsd.audit.fact import Fact, Facts, Sources
from fedfsd.audit.finding import Kind
from fedfsd.audit.keyring import keyring
from fedfsd.audit.loss import NANO
from fedfsd.audit.text import number
from fedfsd.audit.words import chance, counted, listed, version
from fedfsd.ledger.entry import WitnessEntry
from fedfsd.mechanism.statement import TWO_FIGURES


def accounting(given: Sources) -> Facts:
    """Which accountants, at which fineness, and what they say."""
    used = [f"{name} {version(name)}" for name in ("dp-accounting", "prv-accountant")]
    yield given.recomputed(
        "accountants",
        f"PLD and RDP by {used[0]}, PRV by {used[1]}; lifetime by the closed sum of Mironov, Talwar and "
        "Zhang (2019, section 3.3)",
    )
    yield given.recomputed("epsilon of a plan alone, PLD (the claim)", given.grouped(_pld))
    yield given.recomputed("the same by PRV: low, estimate, high", given.grouped(_prv))
    yield given.recomputed(
        "the same by RDP, an upper bound",
        given.grouped(lambda row: row["epsilon_rdp"] and f"{row['epsilon_rdp']:.4f}") or "none",
    )
    yield given.declared(
        "epsilon as the plan states it",
        given.grouped(lambda row: row["epsilon_stated"] and f"{row['epsilon_stated']:.4f}"),
        "plan",
    )
    for chapter in given.case.course.chapters:
        grant = chapter.grant
        yield given.recomputed(_of("Renyi order", chapter, given), grant.alpha)
        yield given.declared(_of("why this order", chapter, given), grant.explanation, "ledger")
        yield given.recomputed(_of("delta", chapter, given), _delta(chapter))


def lifetime(given: Sources) -> Facts:
    """What all runs together cost, and what is left."""
    yield given.by_program("why a plan is charged more for life", TWO_FIGURES)
    for chapter in given.case.course.chapters:
        grant, account = chapter.grant, chapter.account
        committed = account.spent + account.held
        claims = not chapter.rehearsal and not given.case.withheld
        stands = (("spent", account.spent), ("spent and held", committed), ("granted", grant.rho_max))
        for label, nano in stands:
            epsilon = f", epsilon {number(chapter.epsilon(nano))}" if claims else ""
            yield given.recomputed(_of(label, chapter, given), f"{nano / NANO:.6f} nats{epsilon}")
        yield given.recomputed(
            _of("left", chapter, given), f"{(grant.rho_max - committed) / NANO:.6f} nats for further plans"
        )
        yield given.recomputed(
            _of("plans and rounds", chapter, given),
            f"{account.plans:,} of {grant.max_plans:,} plans, "
            f"{account.rounds:,} of {grant.max_rounds:,} rounds",
        )
        carried = sum(one.carried_rho for one in chapter.grants)
        if carried:
            yield given.declared(
                _of("carried from elsewhere", chapter, given), f"{carried / NANO:.6f} nats", "ledger"
            )
    refused = Counter(one.code for one in given.case.course.refusals)
    words = [f"{code} ({count:,})" for code, count in sorted(refused.items())]
    yield given.recomputed("refused requests", listed(words))


def tuning(given: Sources) -> Facts:
    """Runs that searched for settings."""
    plans = counted(len(given.plans), "plan")
    yield given.recomputed("runs charged", f"{plans}, each charged in full to its grant, whatever it was for")
    yield given.by_region("runs outside the ledger", "tuning")


def randomness(given: Sources) -> Facts:
    """Where noise and sampling come from."""
    yield given.by_program(
        "generator", "AES-256-CTR under a key of 32 bytes from the operating system, one a plan"
    )
    yield given.by_program("numbers", "noise in float64, added to the sum before it becomes float32")
    yield given.by_program(
        "rounding",
        "after release 0.1.0 sum and noise are whole multiples of a power of two of at most 2^-20 sigma C, "
        "counted in the clipping norm; before, float64 as it is",
    )
    secrets = [row["key_commitment"] for row in given.plans if row["key_commitment"]]
    again = "none twice" if len(set(secrets)) == len(secrets) else "some used again"
    without = len(given.plans) - len(secrets)
    known = f"; {counted(without, 'plan')} with a known key" if without else ""
    yield given.recomputed("commitments to noise keys", f"{len(secrets):,}, {again}{known}")
    dtype = given.grouped(lambda row: row["model"] and "float32")
    yield given.recomputed("values that cross", dtype)


def side_channels(given: Sources) -> Facts:
    """What else could tell something."""
    yield given.recomputed(
        "sizes", given.grouped(lambda row: f"{row['release_bytes']:,} bytes, every release alike") or "none"
    )
    yield given.by_program("times", "the ledger keeps a date a round; when replies come is not counted")
    yield given.by_region("others", "side_channels")


def deviations(given: Sources) -> Facts:
    """What did not go as planned."""
    course = given.case.course
    aborted = sum(row["aborted"] for row in given.plans)
    open_rounds = sum(row["booked"] - row["released"] - row["aborted"] for row in given.plans)
    yield given.recomputed("reservations given up, charged nevertheless", f"{aborted:,}")
    yield given.recomputed("rounds booked and not released", f"{open_rounds:,}")
    early = [row["plan"][:8] for row in given.plans if row["settled"] and row["booked"] < row["rounds"]]
    yield given.recomputed("plans that ended early", listed(early))
    recoveries = course.ledger.recoveries
    lost = [f"up to {one.lost_size - one.seq:,} entries before entry {one.seq}" for one in recoveries]
    yield given.recomputed("recoveries from a backup", listed(lost))
    for one in course.incidents[:50]:
        about = f", plan {one.plan[:8]}" if one.plan else ""
        yield given.declared(f"incident in entry {one.seq} ({one.code}{about})", one.text, "ledger")
    yield given.recomputed("incidents recorded", f"{len(course.incidents):,}")
    yield given.by_region("others", "deviations")


def provenance(given: Sources) -> Facts:
    """Which program, which plans, whose keys, who watched."""
    course, ledger = given.case.course, given.case.course.ledger
    if ledger.genesis:
        yield given.declared(
            "program at the ledger's start", f"{ledger.genesis.version}, {ledger.genesis.code}", "ledger"
        )
    yield given.declared(
        "program of the plans", given.grouped(lambda row: f"{row['version']}, {row['code']}"), "ledger"
    )
    yield given.by_region("container", "container_sha256")
    yield given.recomputed(
        "plans, SHA-256 of their documents", listed([row["plan"] for row in given.plans], 20)
    )
    keys = keyring(ledger)
    for role, rows in (("node", keys.nodes), ("officer", keys.officers)) if keys else ():
        yield given.recomputed(f"{role} key", listed([str(one) for _, one in rows]))
    yield given.recomputed("key rotations", f"{len(course.rotations):,}")
    for name in ("identity", "witnesses"):
        yield _checked(given, name)
    last = ledger.checkpoints[-1][1] if ledger.checkpoints else 0
    booked = sum(isinstance(one, WitnessEntry) for one in ledger.entries())
    yield given.recomputed(
        "checkpoints",
        f"{len(ledger.checkpoints):,}, the last over {last:,} entries, root {ledger.tree.root().hex()}",
    )
    yield given.recomputed("cosigned checkpoints in the ledger", f"{booked:,}")


def empirical(given: Sources) -> Facts:
    """What was tested from released bytes, and what was tried with canaries."""
    for name in ("incidents", "releases"):
        yield _checked(given, name)
    for sentence in given.tried:
        yield given.declared("canaries", sentence, "file of audit canaries")
    yield given.by_region("protocol and results", "empirical_audit")


def utility(given: Sources) -> Facts:
    """What the loss bought."""
    yield given.by_region("quality by region, with the loss that measuring it cost", "utility")


def residual_risks(given: Sources) -> Facts:
    """What remains."""
    for sentence in given.case.report.unproved:
        yield given.by_program("what no ledger shows", sentence)
    yield given.by_region("others", "residual_risks")


def _checked(given: Sources, name: str) -> Fact:
    answers = [one for part in given.case.report.parts for one in part.answers if one.name == name]
    unseen = (Kind.SKIPPED, Kind.LEFT_OUT)
    told = [
        f"not checked: {finding}" if finding.kind in unseen else str(finding)
        for one in answers
        for finding in one.findings
    ]
    outcome = str(answers[0].outcome) if answers else "not checked"
    return given.recomputed(f"check of {name}", "; ".join([outcome, *told]))


def _of(label: str, chapter: Chapter, given: Sources) -> str:
    """The label, with the data set where there are several."""
    if len(given.case.course.chapters) == 1:
        return label
    return f"{label}, {chapter.grant.data_set} (entry {chapter.grant.seq})"


def _delta(chapter: Chapter) -> str:
    grant = chapter.grant
    rosters = sorted({run.promise.roster for run in chapter.runs if run.promise})
    against = f", {grant.delta * max(rosters):.3g} of 1 / N" if rosters else ""
    return f"{grant.delta:g}, {chance(grant.delta)}{against}"


def _pld(row: dict[str, Any]) -> str | None:
    if row["epsilon"] is None:
        return None
    epsilon = math.ceil(row["epsilon"] * 1e4 - 1e-6) / 1e4  # never shown smaller than it is
    return f"{epsilon:.4f} at delta {row['delta']:g}, loss discretised at {row['interval']:g} nats"


def _prv(row: dict[str, Any]) -> str | None:
    return row["epsilon_prv"] and ", ".join(f"{value:.4f}" for value in row["epsilon_prv"])
