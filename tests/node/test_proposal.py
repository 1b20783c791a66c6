"""Plans on offer: approved, refused or left to a person, whatever a coordinator sends as one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import operator_kit
import pytest
from node import station_kit as kit
from node.coordinator_fake import Coordinator, Direct

from fedfsd import canonical
from fedfsd.border import border_pb2 as pb
from fedfsd.errors import NotReadyError
from fedfsd.node import proposal
from fedfsd.node.line import CoordinatorLine
from fedfsd.node.proposal import Proposals

PLAN = operator_kit.plan()


@pytest.fixture
def eu(granted, tmp_path) -> Path:
    """A region that has approved nothing."""
    return Path(shutil.copytree(granted, tmp_path / "eu"))


@pytest.fixture
def hub(tmp_path) -> Coordinator:
    (tmp_path / "hub").mkdir()
    return Coordinator(tmp_path / "hub")


class Told:
    """Proposals of a station, and an offer put to them."""

    def __init__(self, made, hub: Coordinator) -> None:
        self.station, self.hub = made, hub
        self.line = CoordinatorLine(Direct(hub), count=made.tally.crossed)
        self.proposals = Proposals(made)

    def offer(self, document: str | bytes, *, name: str | None = None, size: int | None = None) -> str | None:
        """What the region answers."""
        content = document if isinstance(document, bytes) else document.encode()
        plan = name or canonical.sha256(content)
        self.hub.documents[bytes.fromhex(plan)] = content
        length = len(content) if size is None else size
        self.proposals.consider(self.line, pb.PlanOffer(plan=bytes.fromhex(plan), size=length))
        return self.hub.answers.get(plan)


@pytest.fixture
def told(eu, hub):
    with kit.station(eu, hub) as made:
        yield Told(made, hub)


def changed(**changes) -> str:
    """PLAN's document with other values."""
    return canonical.encode({**json.loads(PLAN.document()), **changes}).decode()


def of_region(**changes) -> str:
    mine = json.loads(PLAN.document())["regions"]["EU"]
    return changed(regions={"EU": {**mine, **changes}})


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (of_region(noise_multiplier=0.0), "refused"),
        (of_region(max_grad_norm=1e9), "refused"),
        (of_region(sample_rate=1.0), "refused"),  # its epsilon is another one
        (of_region(local_steps=2**40), "refused"),
        (of_region(noise_seed=7), "plan"),
        (changed(mode="rehearsal"), "refused"),
        (changed(mode="none"), "refused"),
        (changed(num_rounds=10**9), "refused"),
        (changed(regions={"US": json.loads(PLAN.document())["regions"]["EU"]}), "plan"),
        (changed(evaluate=True), "plan"),
        (" " + PLAN.document(), "plan"),
        (PLAN.document() + " ", "plan"),
        ("{" * 100_000, "plan"),
        ("null", "plan"),
    ],
)
def test_plans_out_of_policy_are_refused_with_a_code(told, document, code):
    assert told.offer(document) == code
    assert not list(told.station.folder("plans").iterdir())
    assert told.station.tally.refusals == {code: 1}
    assert '"event": "plan_refused"' in kit.log(told.station.node.folder)


def test_another_document_under_the_name_of_a_plan_is_refused(told):
    other = operator_kit.plan(noise=1.0)
    assert told.offer(other.document(), name=PLAN.hash) == "plan"


def test_a_document_of_another_size_is_refused(told):
    assert told.offer(PLAN.document(), size=3) == "plan"


def test_a_plan_is_left_to_the_operator_and_answered_once_approved(told):
    assert told.offer(PLAN.document()) is None
    assert told.offer(PLAN.document()) is None
    assert told.hub.calls.count("Document") == 1
    told.proposals.look(told.line)
    assert told.hub.answers == {}
    kit.approve(told.station.node.folder, PLAN)
    told.proposals.look(told.line)
    assert told.hub.answers == {PLAN.hash: "approved"}
    assert told.proposals.pending == ()


def test_the_operators_no_is_told(told):
    with pytest.raises(NotReadyError, match="no such plan on offer"):
        told.proposals.decline(PLAN.hash)
    told.offer(PLAN.document())
    told.proposals.decline(PLAN.hash)
    told.proposals.look(told.line)
    assert told.hub.answers == {PLAN.hash: "refused"}
    assert (told.proposals.pending, told.station.ledger.state.runs) == ((), {})
    assert told.offer(PLAN.document()) == "refused"


def test_a_plan_that_was_withdrawn_waits_no_longer(told, monkeypatch):
    told.offer(PLAN.document())
    told.proposals.idle()
    assert told.proposals.pending == (PLAN.hash,)
    monkeypatch.setattr(proposal, "WITHDRAWN_SECONDS", -1.0)
    told.proposals.idle()
    assert told.proposals.pending == ()
    assert not list(told.station.folder("plans").iterdir())
    assert told.offer(PLAN.document()) is None  # and may come again
    assert told.proposals.pending == (PLAN.hash,)


def test_a_refused_plan_is_judged_once(told, monkeypatch):
    assert told.offer(changed(num_rounds=10**9)) == "refused"
    monkeypatch.setattr(proposal.Proposals, "_judge", None)
    assert told.offer(changed(num_rounds=10**9)) == "refused"


def test_a_plan_that_is_over_is_refused(told):
    kit.approve(told.station.node.folder, PLAN)
    told.station.ledger.settle(PLAN.hash)
    assert told.offer(PLAN.document()) == "budget"


def test_a_coordinator_cannot_fill_the_disk_with_plans(told, monkeypatch):
    monkeypatch.setattr(proposal, "MAX_PENDING", 3)
    answers = [told.offer(operator_kit.plan(seed=seed).document()) for seed in range(5)]
    assert answers == [None, None, None, "plan", "plan"]
    assert len(list(told.station.folder("plans").iterdir())) == 3


@pytest.fixture
def willing(eu, hub):
    """A region that approves by itself what its policy allows."""
    policy = eu / "policy.toml"
    lines = [one for one in policy.read_text(encoding="utf-8").splitlines() if not one.startswith("approve")]
    policy.write_text("\n".join(['approve = "within policy"', *lines]), encoding="utf-8")
    with kit.station(eu, hub) as made:
        yield Told(made, hub)


def test_within_policy_nobody_needs_to_look(willing):
    assert willing.offer(PLAN.document()) == "approved"
    assert willing.station.ledger.state.runs[PLAN.hash].entry.key_commitment == kit.commitment(PLAN.hash)


def test_without_a_runner_the_plan_waits_for_one(willing):
    willing.station.runner.connected = False
    assert willing.offer(PLAN.document()) is None
    willing.station.runner.connected = True
    willing.proposals.look(willing.line)
    assert willing.hub.answers == {PLAN.hash: "approved"}


def test_more_than_the_grant_has_is_refused(willing):
    dear = [operator_kit.plan(seed=seed, rounds=40, noise=1.0).document() for seed in range(1, 6)]
    assert [willing.offer(one) for one in dear][-1] == "budget"
