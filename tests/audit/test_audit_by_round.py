"""Ledgers whose plans have noise by round: honest ones hold, wrong noise or loss in a round does not."""

from __future__ import annotations

import forge as forging
import pytest
from forge import Forge

from fedfsd.audit.case import cases
from fedfsd.audit.evidence import load
from fedfsd.audit.plan_row import plans
from fedfsd.audit.verify import verify
from fedfsd.ledger import entry
from fedfsd.ledger.error import EvidenceError
from fedfsd.mechanism.accountant import epsilon_pld
from fedfsd.mechanism.event import Event
from fedfsd.mechanism.kind import GaussianByRound, GaussianByRoundPlan

NOISE = (2.0, 2.0, 3.0, 5.0)


def plan_of(noise=NOISE, **changes):
    events = GaussianByRound(sample_rate=0.1, max_grad_norm=1.0, local_steps=5, sigmas=noise).events(
        range(1, len(noise) + 1)
    )
    by_round = GaussianByRoundPlan(noise_multipliers=noise)
    return forging.plan_of(
        rounds=len(noise),
        noise_multiplier=None,
        mechanism=by_round,
        **{"epsilon": epsilon_pld(events, 1e-4), **changes},
    )


@pytest.fixture
def forge() -> Forge:
    """genesis, grant, plan, reserve 1, release, reserve 3, release."""
    made, plan = Forge(), plan_of()
    made.grant()
    made.approve(plan)
    made.round(plan, 1)
    made.round(plan, 3)
    made.plan = plan
    return made


def outcomes(forge: Forge, tmp_path) -> dict[str, str]:
    return forging.outcomes(forging.check(tmp_path, forge))


@pytest.mark.parametrize("settled", [False, True])
def test_an_honest_ledger_holds(forge, tmp_path, settled):
    if settled:
        forge.settle(forge.plan)
    assert not set(outcomes(forge, tmp_path)) & {"plans", "rounds", "filter", "epsilon", "lifetime", "rules"}


def other_rounds_noise(forge: Forge) -> None:
    """Round 3 booked with the noise of round 1."""
    forge.edit(5, event=forge.entries[3].event)


def other_rounds_loss(forge: Forge) -> None:
    forge.edit(3, rho=forge.entries[5].rho, spent=forge.entries[5].rho)


def louder_than_the_document(forge: Forge) -> None:
    event = forge.entries[2].event
    forge.edit(2, event=event.model_copy(update={"noise_multipliers": (2.0, 2.0, 3.0, 6.0)}))


def cheaper_round(forge: Forge) -> None:
    plan = forge.entries[2]
    each = list(plan.rho_round)
    each[3] -= 5
    forge.edit(2, rho_round=tuple(each), rho=plan.rho - 5)


def swapped_rounds(forge: Forge) -> None:
    """The same sum, in another order."""
    plan = forge.entries[2]
    a, b, c, d = plan.rho_round
    forge.edit(2, rho_round=(a, b, d, c))


def too_much_freed(forge: Forge) -> None:
    forge.settle(forge.plan)
    last = len(forge.entries) - 1
    forge.edit(last, freed=forge.entries[last].freed + 1)


@pytest.mark.parametrize(
    ("misdeed", "check"),
    [
        (other_rounds_noise, "rounds"),
        (other_rounds_noise, "filter"),
        (other_rounds_loss, "rounds"),
        (other_rounds_loss, "filter"),
        (louder_than_the_document, "plans"),
        (cheaper_round, "plans"),
        (swapped_rounds, "plans"),
        (too_much_freed, "filter"),
    ],
)
def test_a_misdeed_is_contradicted(forge, tmp_path, misdeed, check):
    misdeed(forge)
    assert outcomes(forge, tmp_path)[check] == "contradicted"


def test_an_epsilon_of_other_noise_is_contradicted(tmp_path):
    forge = Forge()
    forge.story(plan_of(epsilon=epsilon_pld([Event(sample_rate=0.1, noise_multiplier=3.0, steps=20)], 1e-4)))
    assert outcomes(forge, tmp_path)["epsilon"] == "contradicted"


def test_a_kind_of_no_release_is_no_entry(forge):
    content = entry.encode(forge.entries[2])
    with pytest.raises(EvidenceError):
        entry.parse(content.replace(b"gaussian-by-round", b"laplace-by-round"))


def test_the_report_names_the_noise(forge, tmp_path):
    forging.check(tmp_path, forge)
    evidence = load([tmp_path / "EU-0.zip"], trust=forging.trust(tmp_path, forge))
    case = next(iter(cases(evidence, verify(evidence))))
    (row,) = plans(case)
    assert row["noise"] == "2 in round 1 to 5 in round 4, by round"
    assert row["noise_multiplier"] == 2.0
    assert row["epsilon"] == pytest.approx(forge.entries[2].document["regions"]["EU"]["epsilon"], abs=1e-6)
