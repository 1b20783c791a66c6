"""Check regions' evidence, offline, trusting neither the regions nor the coordinator.

The argument, in the order of the checks: a bundle is one list of entries (archive, entries, history), signed
by the region's own people (signatures, identity), and the only one there is (witnesses, succession). By it,
nothing was released that was not planned (plans, rounds), reserved (reservations, once), paid for (filter)
and permitted (approvals). What was promised is what the mathematics gives (rehearsal, epsilon, lifetime).
What arrived is what was released (receipts), it has the noise that was planned (incidents, releases), what
trained was reviewed (code), and the region's own program agrees (rules).

A check is known by its name, the function's without ``check_``; the order is for reading alone.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from fedfsd.audit.approval import check_approvals
from fedfsd.audit.booking import check_once, check_reservations
from fedfsd.audit.code import check_code
from fedfsd.audit.delivery import check_receipts, check_regions
from fedfsd.audit.epsilon import check_epsilon, check_lifetime, check_rehearsal
from fedfsd.audit.evidence import Evidence, Ledger, Refused
from fedfsd.audit.filter import Sum, check_filter, sums
from fedfsd.audit.finding import Finding, skipped
from fedfsd.audit.history import check_archive, check_entries, check_history
from fedfsd.audit.loss import epsilon_lifetime
from fedfsd.audit.origin import check_coordinator, check_identity, check_signatures
from fedfsd.audit.planned import check_plans, check_rounds
from fedfsd.audit.release import check_incidents, check_releases
from fedfsd.audit.replay import check_rules
from fedfsd.audit.succession import check_succession
from fedfsd.audit.verdict import Part, Report, Sheet
from fedfsd.audit.witness import check_heads, check_witnesses
from fedfsd.errors import PlanError


def _silent(_: str) -> None:
    """For who waits in any case."""


UNPROVED = (
    "that nothing left a region past its ledger: no record can show that",
    "that training did to the data what the ledger says; the witness block of a release shows the scale of "
    "its noise, the rest stands on the reviewed program whose hash the ledger names",
    "that rosters, data sets and the identity of vehicles are as declared, and that vehicles declared "
    "disjoint are",
    "any use of the data outside this mechanism, such as choosing a model or settings on them",
)


def verify(evidence: Evidence, tell: Callable[[str], None] = _silent) -> Report:
    """Run every check on every bundle, and those on what bundles and receipts say together.

    Args:
        tell: told from time to time how far a check is that takes long.
    """
    parts = [_refused(one) for one in evidence.refused]
    bundles = Counter(ledger.region for ledger in evidence.ledgers)
    for ledger in evidence.ledgers:
        title = f"{ledger.region} ({ledger.source})" if bundles[ledger.region] > 1 else ledger.region
        sheet = Sheet(ledger.source, region=ledger.region, title=title)
        sheet.run(check_archive, ledger)  # the archive's bytes
        sheet.rest = _rest(ledger)
        sheet.run(check_entries, ledger)  # canonical, numbered, one genesis
        sheet.run(check_history, ledger)  # roots of all checkpoints, each extending the one before
        sheet.run(check_signatures, ledger)  # by the keys in force
        sheet.run(check_identity, ledger, evidence)  # which are those of the trust file
        sheet.run(check_witnesses, ledger, evidence)  # nobody saw another history
        sheet.run(check_succession, ledger, evidence)  # no second ledger that forgets the first
        sheet.run(check_plans, ledger)  # hash, q, sigma, C and steps are the document's
        sheet.run(check_rounds, ledger)  # rounds and releases are as planned
        sheet.run(check_reservations, ledger)  # every release was reserved before it
        sheet.run(check_once, ledger)  # no round twice, no key again
        sheet.run(check_filter, ledger)  # at no prefix more loss than granted
        sheet.run(check_approvals, ledger)  # permission where it is needed
        sheet.run(check_rehearsal, ledger)  # noise that nobody knows
        sheet.run(check_epsilon, ledger, tell)  # each plan's epsilon is what was stated
        sheet.run(check_lifetime, ledger)  # and what is charged bounds all of it
        sheet.run(check_receipts, ledger, evidence)  # what arrived is what was released
        sheet.run(check_incidents, ledger)  # no update was found to be another mechanism's
        sheet.run(check_releases, ledger, evidence)  # nor is one, as far as its bytes show
        sheet.run(check_code, ledger, evidence)  # and what trained was reviewed
        sheet.run(check_rules, ledger)  # the region's own program agrees
        parts.append(sheet.part(_facts(ledger)))
    together = Sheet("receipts and checkpoints")
    together.run(check_coordinator, evidence)  # the receipts are the coordinator's
    together.run(check_regions, evidence)  # no receipt of a region that is missing
    together.run(check_heads, evidence)  # no checkpoint of a ledger that is missing
    return Report((*parts, together.part({})), UNPROVED)


def _refused(one: Refused) -> Part:
    """A file that is no bundle fails the check of the archive; the others have nothing to look at."""

    def check_archive() -> tuple[Any, ...]:
        """Every byte of the bundle is where the format wants it, and it is the ledger it says it is."""
        return (one.finding,)

    sheet = Sheet(one.source)
    sheet.run(check_archive)
    return sheet.part({})


def _rest(ledger: Ledger) -> Finding | None:
    """What the checks leave out of a ledger that a newer release went on with."""
    if ledger.newer is None:
        return None
    return skipped(f"the entries from {ledger.known} on, which a newer release wrote or which follow one")


def _facts(ledger: Ledger) -> dict[str, Any]:
    """What a reader wants to know before the checks."""
    kinds = Counter(one.type for one in ledger.entries())
    return {
        "ledger": ledger.id,
        "sha256": ledger.sha256,
        "entries": len(ledger.lines),
        "root": ledger.tree.root().hex(),
        "simulated": bool(ledger.genesis and ledger.genesis.simulated),
        "plans": kinds["plan"],
        "releases": kinds["release"],
        "refusals": kinds["refuse"],
        "incidents": kinds["incident"],
        # What a part of a ledger adds up to is no balance.
        "grants": []
        if ledger.newer
        else [_balance(label, account) for label, account in sums(ledger).items()],
    }


def _balance(label: str, account: Sum) -> dict[str, Any]:
    grant = account.grant

    def epsilon(rho: int) -> float | None:
        try:
            return epsilon_lifetime(rho, alpha=grant.alpha, delta=grant.delta) if rho else 0.0
        except PlanError:
            return None

    return {
        "data_set": label,
        "epsilon": grant.epsilon,
        "delta": grant.delta,
        "alpha": grant.alpha,
        "epsilon_spent": epsilon(account.spent),
        "epsilon_lifetime": epsilon(account.spent + account.held),
    }
