"""A plan approved through the running gate: the run key is the runner's; a hash may name the plan."""

from __future__ import annotations

import datetime
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from node.station_kit import PROGRAM
from operator_kit import plan, region, send

from fedfsd.engine import randomness
from fedfsd.errors import BudgetError, NotReadyError, PlanError, RefusedError
from fedfsd.ledger.digest import key_commitment
from fedfsd.ledger.entry import Program
from fedfsd.node import approve, doctor, run_key, status
from fedfsd.node.control import Control
from fedfsd.node.node import Node, open_node
from fedfsd.plan.plan import Plan
from fedfsd.service import lock

TODAY = "2026-06-01"


@pytest.fixture
def node(tmp_path) -> Node:
    return open_node(region(tmp_path))


def approved(node: Node, one: Plan, **options) -> approve.Approved:
    return approve.approve(node, one, data_set=None, officer=None, today=TODAY, **options)


def committed(node: Node, one: Plan) -> str | None:
    with closing(node.open_ledger()) as ledger:
        run = ledger.state.runs.get(one.hash)
        return run.entry.key_commitment if run else None


@contextmanager
def running(node: Node, runner: Path | None, *, test_only: bool = False, program: Program | None = None):
    """A gate of ``node`` whose runner keeps its keys in ``runner``, or is away."""
    asked: list[str] = []

    def commit(request):
        asked.append(request["plan"])
        if runner is None:
            raise NotReadyError("runner", got="no runner", expected="one", hint="fedfsd region up starts it")
        return {"commitment": key_commitment(randomness.run_key(runner, request["plan"]))}

    def settle(request):
        if runner is not None:
            randomness.destroy_run_key(runner, request["plan"])
        return {}

    def status(_):
        return {"test_only": test_only, "program": program and program.model_dump()}

    operations = {"commit": commit, "settle": settle, "status": status}
    (node.folder / "run").mkdir(exist_ok=True)
    held = lock.hold(node.folder / "run" / "gate.pid", what="a gate")
    with held, closing(Control(node.folder / "run", operations)) as control:
        control.start()
        yield asked


def test_the_runner_makes_the_key_and_the_gates_side_never_sees_it(node, tmp_path):
    one, keys = plan(), tmp_path / "runner"
    with running(node, keys) as asked:
        made = approved(node, one)
        assert approved(node, one).seq == made.seq  # again: nothing changes, nobody is asked
        assert asked == [one.hash]
        said = key_commitment(randomness.run_key(keys, one.hash, create=False))
        assert committed(node, one) == said
        assert not list(node.keys.iterdir())
        with closing(node.open_ledger()) as ledger:
            approve.settle(node, ledger, one.hash)
        assert not list(keys.iterdir())


def test_a_rehearsal_is_approved_where_the_running_gate_takes_rehearsals(node, tmp_path):
    one = plan(mode="rehearsal")
    with running(node, tmp_path / "runner"), pytest.raises(RefusedError, match="mode rehearsal"):
        approved(node, one)
    with running(node, tmp_path / "runner", test_only=True) as asked:
        assert approved(node, one).seq is not None
        assert not asked  # its noise is known: there is no key to make


def test_without_the_runner_nothing_is_approved(node):
    with running(node, None), pytest.raises(NotReadyError):
        approved(node, plan())
    (node.folder / "tls").mkdir()  # joined, and the gate does not run
    with pytest.raises(NotReadyError, match="fedfsd region up"):
        approved(node, plan())
    assert committed(node, plan()) is None
    assert not run_key.is_lost(node, plan().hash)  # nobody here can know


def test_without_a_gate_the_runners_own_folder_takes_the_key(node):
    train = node.folder / "train"
    train.mkdir()
    (train / "train.toml").write_text("")
    approved(node, plan())
    assert [path.stem for path in (train / "keys").iterdir()] == [plan().hash]
    assert not run_key.is_lost(node, plan().hash)
    run_key.forget(node, plan().hash)
    assert run_key.is_lost(node, plan().hash)


def test_what_does_not_fit_leaves_no_key(node, tmp_path):
    keys = tmp_path / "runner"
    with running(node, keys):
        for seed in range(20):
            try:
                approved(node, plan(rounds=60, noise=1.0, seed=seed))
            except BudgetError:
                break
        else:
            pytest.fail("the grant pays for ever")
        assert plan(rounds=60, noise=1.0, seed=seed).hash not in {path.stem for path in keys.iterdir()}


def test_approval_without_a_person_only_where_the_policy_says_so(node):
    one, commitment = plan(), "a" * 64
    with pytest.raises(RefusedError):
        approve.approve_within_policy(node, one, lambda _: commitment)
    policy = node.declared_policy().model_copy(update={"approve": "within policy"})
    made = approve.approve_within_policy(node, one, lambda _: commitment, policy=policy)
    assert made.seq is not None
    assert committed(node, one) == commitment
    with pytest.raises(RefusedError):
        approve.approve_within_policy(node, plan(roster=999), lambda _: commitment, policy=policy)


def test_a_rehearsal_only_where_the_region_only_tests(node):
    rehearsal = plan(mode="rehearsal", seed=3)
    with pytest.raises(RefusedError):
        approved(node, rehearsal)
    tests = open_node(node.folder, overrides=["border.test_only=true"])
    assert approved(tests, rehearsal).entry.key_commitment is None
    assert not list(node.keys.iterdir())


def test_a_plan_on_offer_is_named_by_the_beginning_of_its_hash(node, tmp_path, monkeypatch):
    one, offered = plan(), node.folder / "plans"
    offered.mkdir()
    (offered / f"{one.hash}.json").write_text(one.document())
    for digits in (4, 16, 64):
        assert approve.named(node, one.hash[:digits]) == one
    for text in (one.hash[:3], "0" * 64):
        with pytest.raises(NotReadyError):
            approve.named(node, text)
    (offered / f"{one.hash[:63]}{'0' if one.hash[-1] != '0' else '1'}.json").write_text("{}")
    with pytest.raises(NotReadyError, match="several"):
        approve.named(node, one.hash[:16])
    monkeypatch.chdir(tmp_path)
    assert approve.named(node, send(tmp_path, one, "0123456789")) == one  # a file of such a name
    with pytest.raises(PlanError):
        approve.named(node, str(offered / f"{one.hash[:63]}{'0' if one.hash[-1] != '0' else '1'}.json"))


def test_beside_a_gate_that_does_not_answer_no_key_is_made_elsewhere(node):
    (node.folder / "run").mkdir()
    with lock.hold(node.folder / "run" / "gate.pid", what="a gate"), pytest.raises(NotReadyError):
        approved(node, plan())
    assert not list(node.keys.iterdir())


def recorded(node: Node, one: Plan) -> Program | None:
    with closing(node.open_ledger()) as ledger:
        return ledger.state.runs[one.hash].program


def test_the_runners_program_goes_on_record_with_the_plan(node, tmp_path):
    """From then on only a person exchanges it, and only for what runs now."""
    one, keys, newer = plan(), tmp_path / "keys", PROGRAM.model_copy(update={"code": "3" * 64})
    with running(node, keys, program=PROGRAM):
        approved(node, one)
        assert recorded(node, one) == PROGRAM
    with running(node, keys, program=newer):
        approved(node, one)
        assert recorded(node, one) == PROGRAM
        approved(node, one, anew=True)
        assert recorded(node, one) == newer
    with running(node, keys), pytest.raises(NotReadyError, match="whose program is accepted"):
        approved(node, one, anew=True)


def test_status_and_doctor_say_whose_rounds_are_refused(node, tmp_path):
    one, today = plan(), datetime.date(2026, 11, 27)
    newer = PROGRAM.model_copy(update={"code": "9" * 64})
    with running(node, tmp_path / "runner", program=PROGRAM):
        approved(node, one)
        assert status.status(node, today=today)["program_changed"] == []
    assert status.status(node, today=today)["program_changed"] == []  # nobody to compare with
    with running(node, tmp_path / "runner", program=newer):
        found = status.status(node, today=today)
        assert found["program_changed"] == [one.hash]
        assert any(f"region approve {one.hash[:16]} --program" in told for told in found["warnings"])
        told = doctor.plans(doctor.Patient(node, node.folder / "train", today))
        assert (told.outcome, "another program" in told.found) == ("fail", True)


def test_without_a_person_the_program_is_on_record_too(node):
    one = plan(seed=5)
    policy = node.declared_policy().model_copy(update={"approve": "within policy"})
    approve.approve_within_policy(node, one, lambda _: "b" * 64, policy=policy, program=PROGRAM)
    assert recorded(node, one) == PROGRAM
