"""The lifetime budget of one data set: a Renyi filter at one order, in whole nano-nats. No clock, no file.

``held`` is what approved plans may still book, ``spent`` what their rounds have booked. Both count
against the grant, so two approved plans cannot strand each other.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from fedfsd.errors import BudgetError
from fedfsd.ledger.entry import Charge, Grant, PlanEntry
from fedfsd.ledger.error import EvidenceError
from fedfsd.ledger.terms import Terms
from fedfsd.mechanism.calibration import what_fits
from fedfsd.mechanism.kind import GaussianText
from fedfsd.mechanism.renyi import NANO, epsilon_lifetime

SLACK = 1e-9  # two machines' logarithms may differ in the last digit


@dataclass(frozen=True)
class Balance:
    """Where a data set stands; ``spent``, ``held``, ``rho_max`` in nano-nats at order ``alpha``."""

    data_set: str
    grant: int
    alpha: int
    delta: float
    epsilon: float
    rho_max: int
    spent: int
    held: int
    plans: int
    rounds: int

    @property
    def left(self) -> int:
        """What another plan may hold."""
        return self.rho_max - self.spent - self.held

    @property
    def epsilon_spent(self) -> float:
        """Epsilon at ``delta`` of what rounds have spent."""
        return self._epsilon(self.spent)

    @property
    def epsilon_lifetime(self) -> float:
        """Epsilon at ``delta`` once every approved plan has run to its end."""
        return self._epsilon(self.spent + self.held)

    def _epsilon(self, rho: int) -> float:
        """Nothing spent is nothing, not the constant of the conversion."""
        return epsilon_lifetime(rho, alpha=self.alpha, delta=self.delta) if rho else 0.0


@dataclass
class Account:
    """The live grant of one data set with its sums."""

    grant: Grant
    spent: int = 0
    held: int = 0
    plans: int = 0
    rounds: int = 0
    recipients: Counter[str] = field(default_factory=Counter)

    @property
    def balance(self) -> Balance:
        """A picture of the account."""
        return Balance(
            data_set=self.grant.data_set,
            grant=self.grant.seq,
            alpha=self.grant.alpha,
            delta=self.grant.delta,
            epsilon=self.grant.epsilon,
            rho_max=self.grant.rho_max,
            spent=self.spent,
            held=self.held,
            plans=self.plans,
            rounds=self.rounds,
        )

    def hold(self, plan: PlanEntry) -> None:
        """Set the whole of a plan's loss aside.

        Raises:
            BudgetError: more than is left, beyond the horizon, or above a cap without the officer.
        """
        grant, balance = self.grant, self.balance
        if plan.rho > balance.left:
            raise BudgetError(
                f"grant of {grant.data_set}",
                got=f"a plan that costs {nats(plan.rho)}",
                expected=f"at most {nats(balance.left)}, what is left of {nats(grant.rho_max)}",
                hint=what_fits(
                    plan.event,
                    [plan.rho_of(number) for number in range(1, plan.rounds + 1)],
                    left=balance.left,
                    alpha=grant.alpha,
                ),
            )
        if self.plans + 1 > grant.max_plans or self.rounds + plan.rounds > grant.max_rounds:
            raise BudgetError(
                f"grant of {grant.data_set}",
                got=f"plan {self.plans + 1} with {self.rounds + plan.rounds} rounds in all",
                expected=f"at most {grant.max_plans} plans with {grant.max_rounds} rounds",
                hint="ask the data officer for a successor grant with a longer horizon",
            )
        recipient = self.recipients[plan.recipient] + plan.rho
        if plan.signatures.officer is None and (plan.rho > grant.plan_cap or recipient > grant.recipient_cap):
            raise BudgetError(
                f"grant of {grant.data_set}",
                got=f"a plan of {nats(plan.rho)}, {nats(recipient)} for this recipient in all",
                expected=f"at most {nats(grant.plan_cap)} a plan and {nats(grant.recipient_cap)} a recipient",
                hint="have the data officer sign this plan",
            )
        self.held += plan.rho
        self.plans += 1
        self.rounds += plan.rounds
        self.recipients[plan.recipient] = recipient

    def draw(self, rho: int) -> None:
        """Book one round out of the hold."""
        self.held -= rho
        self.spent += rho

    def free(self, *, rho: int, rounds: int, recipient: str) -> None:
        """Give back what a settled plan never reserved."""
        self.held -= rho
        self.rounds -= rounds
        self.recipients[recipient] -= rho

    def worst(self, reach: str) -> Charge:
        """What a recovery must charge."""
        lost = self.held if reach == "rounds" else self.grant.rho_max - self.spent
        return Charge(grant=self.grant.seq, rho=lost)

    def succeed(self, grant: Grant, *, open_plans: bool) -> Account:
        """The account under a successor grant, with all its sums unless the data are disjoint.

        Raises:
            BudgetError: another order, less or shorter than is spent or held, or disjoint with open plans.
        """
        if grant.disjoint:
            demand(not open_plans, grant, "disjoint data while plans are open", "settled plans first")
            return opened(grant)
        demand(grant.alpha == self.grant.alpha, grant, f"order {grant.alpha}", f"order {self.grant.alpha}")
        spent = self.spent + grant.carried_rho
        demand(
            spent + self.held <= grant.rho_max,
            grant,
            f"{nats(grant.rho_max)} in all",
            f"at least {nats(spent + self.held)}, spent or held already",
        )
        demand(
            self.plans <= grant.max_plans and self.rounds <= grant.max_rounds,
            grant,
            f"a horizon of {grant.max_plans} plans with {grant.max_rounds} rounds",
            f"at least {self.plans} plans with {self.rounds} rounds, approved already",
        )
        return Account(grant, spent, self.held, self.plans, self.rounds, Counter(self.recipients))


def opened(grant: Grant) -> Account:
    """The account of a data set's first grant. BudgetError where it is spent already."""
    demand(grant.carried_rho <= grant.rho_max, grant, "more carried than granted", "room for a plan")
    return Account(grant, spent=grant.carried_rho)


def check_epsilon(grant: Grant) -> None:
    """EvidenceError where rho_max allows more than the epsilon that was promised."""
    allowed = epsilon_lifetime(grant.rho_max, alpha=grant.alpha, delta=grant.delta)
    if allowed > grant.epsilon + SLACK:
        raise EvidenceError(
            f"grant of {grant.data_set}", got=f"epsilon {grant.epsilon}", expected=f"at least {allowed}"
        )


def check_plan(plan: PlanEntry, terms: Terms, grant: Grant) -> None:
    """EvidenceError where a plan's entry does not say what its document and the grant make it."""
    rho_round, rho = losses(terms, grant.alpha)
    expected = (terms.event, terms.rounds, rho_round, rho, terms.release_bytes)
    if (plan.event, plan.rounds, plan.rho_round, plan.rho, plan.release_bytes) != expected:
        raise EvidenceError(
            f"plan {plan.plan[:8]}", got="an event or a loss of its own", expected="its document's"
        )


def losses(terms: Terms, alpha: int) -> tuple[int | tuple[int, ...], int]:
    """(``rho_round``, ``rho``) of a plan's entry: what its rounds cost, and all of them together."""
    each = terms.mechanism.rho_by_round(terms.rounds, alpha)
    return each[0] if isinstance(terms.event, GaussianText) else each, sum(each)


def nats(rho: int) -> str:
    """Nano-nats for people."""
    return f"{rho / NANO:.4g} nats"


def demand(holds: bool, grant: Grant, got: str, expected: str) -> None:
    """BudgetError about a grant."""
    if not holds:
        raise BudgetError(f"grant of {grant.data_set}", got=got, expected=expected)
