"""Epsilon recomputed from the mechanisms by accountants that do not know of each other."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fedfsd.audit.evidence import Ledger
from fedfsd.audit.filter import sums
from fedfsd.audit.finding import Finding, contradiction, left_out, remark, undecided
from fedfsd.audit.loss import NANO, epsilon_lifetime, event_of, nano_nats, rounds_of
from fedfsd.errors import AccountingError, FedfsdError, PlanError
from fedfsd.language import say
from fedfsd.ledger.entry import PlanEntry
from fedfsd.mechanism import accountant
from fedfsd.mechanism.accountant import Epsilons
from fedfsd.mechanism.event import SMALLEST_DELTA, Event, delta_fault, delta_warning, merge

EQUAL = 1e-3  # versions of an accountant may differ by this much
UNDERSTATED = 0.01  # how far a statement may lie below the claim
OVERSTATED = 0.02  # from here on a statement above it is worth telling
MAX_EVENTS = 100  # distinct plans that are recomputed; each takes up to a few seconds
TOLD = 10  # plans after which somebody who waits is told
NOISE = (0.01, 1e6)  # least and most noise multiplier of which an epsilon is computed
MAX_LOSS = 100.0  # nats at order 2 of a plan of which an epsilon is computed


class Promise(BaseModel):
    """What a plan's document says of one region beyond its mechanism (FORMAT.md, section 6)."""

    model_config = ConfigDict(frozen=True, strict=True, hide_input_in_errors=True, allow_inf_nan=False)

    roster: Annotated[int, Field(ge=1)]
    identity: Literal["physical", "recording"]
    windows_per_vehicle: Annotated[int, Field(ge=1)]
    target_delta: Annotated[float, Field(gt=0, lt=1)]
    epsilon: float | None


def promise(plan: PlanEntry, region: str) -> Promise | None:
    """The promise of ``region`` in a plan's document; None where there is none to be read."""
    regions = plan.document.get("regions")
    try:
        return Promise.model_validate(regions.get(region) if isinstance(regions, dict) else None)
    except ValidationError:
        return None


@dataclass(frozen=True)
class _Case:
    events: tuple[Event, ...]
    delta: float


def check_rehearsal(ledger: Ledger) -> Iterator[Finding]:
    """No plan is a rehearsal, whose noise is known and which promises nothing."""
    for plan, read in ledger.terms.items():
        if read.mode == "rehearsal":
            yield undecided(f"entry {ledger.plans[plan].seq} (plan)", say("a rehearsal: no guarantee"))


def check_epsilon(ledger: Ledger, tell: Callable[[str], None]) -> Iterator[Finding]:
    """The epsilon that each plan states is what two accountants compute and a third one bounds."""
    stated: dict[_Case, dict[float, int]] = defaultdict(dict)
    for plan, read in ledger.terms.items():
        one, place = ledger.plans[plan], f"entry {ledger.plans[plan].seq} (plan), epsilon"
        said = promise(one, ledger.region)
        if said is None:
            yield contradiction(place, say("no roster, unit or delta"), say("the region's promise"))
        elif read.mode == "rehearsal":
            if said.epsilon is not None:
                yield contradiction(
                    place,
                    say("{epsilon} in a rehearsal", epsilon=said.epsilon),
                    say("none: its noise is known"),
                )
        elif fault := delta_fault(said.target_delta, said.roster):
            # Not contradicted: what the plan states may be true, it only promises nothing.
            yield undecided(
                place, say("{fault}: it allows the whole data of one vehicle to be released", fault=fault)
            )
        elif said.epsilon is None:
            yield left_out(say("{place}: none is stated", place=place))
        else:
            planned = event_of(one.document, ledger.region, read.rounds)
            events = merge(rounds_of(planned, read.rounds).events)
            beyond = _beyond(events, said.target_delta)
            if beyond:
                yield undecided(place, say("{beyond}: no epsilon is computed of such a plan", beyond=beyond))
            else:
                stated[_Case(events, said.target_delta)].setdefault(said.epsilon, one.seq)
        warning = said and read.mode == "private" and delta_warning(said.target_delta, said.roster)
        if warning:
            yield remark(warning, place)
    for number, (case, said_by) in enumerate(stated.items()):
        if number < MAX_EVENTS:
            if number and number % TOLD == 0:
                tell(f"{ledger.region}: epsilon of {number} of {min(len(stated), MAX_EVENTS)} plans computed")
            yield from _confirmed(case, said_by)
        else:
            yield undecided(
                f"entry {min(said_by.values())} (plan)",
                say("more than {max_events} different plans", max_events=MAX_EVENTS),
            )


def check_lifetime(ledger: Ledger) -> Iterator[Finding]:
    """What each grant is charged bounds the loss of everything reserved on it, by another accountant too."""
    for label, account in sums(ledger).items():
        grant, place = account.grant, f"grant of {label}"
        events = account.events
        try:
            charged = epsilon_lifetime(account.spent, alpha=grant.alpha, delta=grant.delta)
            booked = nano_nats(events, grant.alpha)
            ours = epsilon_lifetime(booked, alpha=grant.alpha, delta=grant.delta)
            theirs = _epsilon_at_order(events, grant.alpha, grant.delta) if events else 0.0
        except (AccountingError, PlanError) as error:  # another check tells where a grant's own are wrong
            yield left_out(
                say(
                    "{place}: a second accountant, which cannot compute it: {got}", place=place, got=error.got
                )
            )
            continue
        if charged < ours or theirs > ours + EQUAL:
            yield contradiction(
                place,
                say("epsilon {charged:.4f}", charged=charged),
                say("at least {least:.4f}", least=max(ours, theirs)),
            )
        elif events:
            terms = (
                say(
                    "delta {delta:g}, order {alpha}, set by a simulation",
                    delta=grant.delta,
                    alpha=grant.alpha,
                )
                if grant.simulated
                else say("delta {delta:g}, order {alpha}", delta=grant.delta, alpha=grant.alpha)
            )
            yield remark(
                say(
                    "epsilon {charged:.6g} of {epsilon:.6g} spent ({terms})",
                    charged=charged,
                    epsilon=grant.epsilon,
                    terms=terms,
                ),
                place,
            )


def _beyond(events: Sequence[Event], delta: float) -> str:
    """What puts a plan outside the range in which every verifier must compute its epsilon."""
    noise = [one.noise_multiplier for one in events]
    if delta < SMALLEST_DELTA:
        return f"delta {delta:g} is below {SMALLEST_DELTA:g}"
    if not NOISE[0] <= min(noise) <= max(noise) <= NOISE[1]:
        return f"a noise multiplier is not between {NOISE[0]:g} and {NOISE[1]:g}"
    if nano_nats(events, 2) > MAX_LOSS * NANO:
        return f"its loss at order 2 is above {MAX_LOSS:g} nats"
    return ""


def _confirmed(case: _Case, said_by: dict[float, int]) -> Iterator[Finding]:
    """PLD bounds it from above, first on a coarse grid, ten times cheaper; PRV is a second opinion."""
    place = f"entry {min(said_by.values())} (plan), epsilon"
    found = _asked(case, coarse=True)
    if not isinstance(found, Epsilons) or min(said_by) < found.pld - UNDERSTATED:
        found = _asked(case, coarse=False)
    if isinstance(found, Epsilons):
        yield remark(f"PLD {found.pld:.4f}, PRV {found.prv:.4f}, RDP {found.rdp:.4f}", place)
        claim = min(found.pld, found.prv)  # on a grid that had to be coarse, PLD lies above the other
    else:
        try:
            claim = accountant.epsilon_pld(case.events, case.delta)
        except (AccountingError, PlanError) as error:
            yield undecided(place, say("PLD cannot compute it: {got}", got=error.got))
            return
        # The page defines epsilon, and PLD bounds it: a second opinion that fails changes no answer.
        yield remark(
            say(
                "PLD says {claim:.4f}; not confirmed by a second accountant: {got}",
                claim=claim,
                got=found.got,
            ),
            place,
        )
    for epsilon, seq in said_by.items():
        at = f"entry {seq} (plan), epsilon"
        if epsilon < claim - UNDERSTATED:
            yield contradiction(at, epsilon, say("at least {claim:.4f}", claim=claim))
        elif epsilon > claim + OVERSTATED:
            yield remark(
                say("{epsilon:g} is stated where the plan costs {claim:.4f}", epsilon=epsilon, claim=claim),
                at,
            )


def _asked(case: _Case, *, coarse: bool) -> Epsilons | FedfsdError:
    """What three accountants say, or why not."""
    try:
        return accountant.check(case.events, case.delta, coarse=coarse)
    except (AccountingError, PlanError) as error:
        return error


def _epsilon_at_order(events: Iterable[Event], alpha: int, delta: float) -> float:
    """Epsilon by dp-accounting's Renyi divergence at one order."""
    import dp_accounting as dp
    from dp_accounting import rdp

    counted: Counter[tuple[float, float]] = Counter()
    for one in events:
        counted[one.sample_rate, one.noise_multiplier] += one.steps
    ledger = rdp.RdpAccountant([alpha], dp.NeighboringRelation.REPLACE_SPECIAL)
    try:
        for (rate, noise), steps in counted.items():
            step = dp.GaussianDpEvent(noise)
            ledger.compose(step if rate == 1 else dp.PoissonSampledDpEvent(rate, step), steps)
        return float(ledger.get_epsilon(delta))
    except (ArithmeticError, ValueError) as error:
        raise AccountingError("RDP (dp-accounting)", got=error, expected="a finite epsilon") from None
